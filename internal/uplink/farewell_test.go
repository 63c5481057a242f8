package uplink

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"postbus.example/internal/assert"
)

// pieces is a connection that brings one after the other, and then its end.
type pieces struct {
	net.Conn

	rest    []string
	end     error
	bounded bool
}

func (c *pieces) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, c.end
	}
	if c.rest[0] == "" { // nothing for long
		c.rest = c.rest[1:]
		if c.bounded {
			return 0, os.ErrDeadlineExceeded
		}
		return c.Read(p)
	}
	n := copy(p, c.rest[0])
	if c.rest[0] = c.rest[0][n:]; c.rest[0] == "" {
		c.rest = c.rest[1:]
	}
	return n, nil
}

func (c *pieces) SetReadDeadline(t time.Time) error {
	c.bounded = !t.IsZero()
	return nil
}

func (*pieces) Close() error { return nil }

// all reads to the end.
func (c *pieces) all(room int) (string, error) {
	o := newOutlet(c, 0)
	o.up.Store(true)
	var got strings.Builder
	p := make([]byte, room)
	for {
		n, err := o.Read(p)
		got.Write(p[:n])
		if err != nil {
			return got.String(), err
		}
	}
}

// However a last word is cut, it is not passed on; and what is none is, however it is cut.
func TestFarewells(t *testing.T) {
	for _, word := range farewells {
		for cut := range word {
			first, second := string(word[:cut]), string(word[cut:])
			for _, before := range []string{"", "+OK\r\n", strings.Repeat("x", 1000) + "\r\n"} {
				got, err := (&pieces{rest: []string{before + first, second}, end: io.EOF}).all(512)
				assert.Equal(t, got, before)
				assert.Contains(t, err.Error(), strings.TrimSpace(string(word)))
				for _, after := range []string{"", "x", "+OK\r\n", "-", string(word[:cut])} {
					rest := []string{before + first, second, "", after}
					if cut%2 == 1 && after != "" {
						rest = []string{before + first, second, after}
					}
					got, err := (&pieces{rest: rest, end: io.EOF}).all(512)
					assert.Equal(t, got, before+string(word)+after, "the broker had more to say, or time to")
					assert.ErrorIs(t, err, io.EOF)
				}
			}
		}
	}
	for _, text := range []string{"-ERR 'Permissions Violation'\r\n", "-ERR 'User Authentication Expired'\r\n", "-ERR\r\n", "-", "\n\n-"} {
		got, err := (&pieces{rest: []string{text}, end: io.EOF}).all(512)
		assert.Equal(t, got, text)
		assert.ErrorIs(t, err, io.EOF)
		got, _ = (&pieces{rest: []string{text, "x"}, end: io.EOF}).all(20)
		assert.Equal(t, got, text+"x", "little room")
	}
}
