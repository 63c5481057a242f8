package embedded_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

// A client that is turned away before it could say a word hears why.
func TestInProcessConnRefusedBeforeTheGreeting(t *testing.T) {
	s := start(t, embedded.WithConfig(`max_connections: 1`))
	connect(t, s)
	began := time.Now()
	_, err := s.Connect()
	assert.True(t, err != nil, "refused")
	assert.Contains(t, err.Error(), "maximum connections exceeded")
	assert.True(t, time.Since(began) < 5*time.Second, "at once")
}

// A client may send all it has to say in one go, in pieces of any size.
func TestInProcessConnKeepsTheOrder(t *testing.T) {
	s := start(t, embedded.WithMaxPayload(1<<20))
	c, err := s.InProcessConn()
	assert.NoError(t, err)
	defer c.Close()
	assert.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))

	var all bytes.Buffer
	all.WriteString("CONNECT {\"verbose\":false}\r\nSUB a 1\r\n")
	for i := range 100 { // more than is queued
		all.WriteString("PUB a 1024\r\n" + strings.Repeat(string(rune('a'+i%26)), 1024) + "\r\n")
	}
	all.WriteString("PING\r\n")
	_, want, _ := strings.Cut(all.String(), "SUB a 1\r\n")
	want = strings.ReplaceAll(want, "PUB a ", "MSG a 1 ")
	want = strings.Replace(want, "PING", "PONG", 1)

	info, err := readLine(c)
	assert.NoError(t, err)
	assert.True(t, strings.HasPrefix(info, "INFO {"), info)
	written := make(chan error, 1)
	go func() {
		for chunk := all.Bytes(); len(chunk) > 0; {
			n := min(len(chunk), 333)
			if _, err := c.Write(chunk[:n]); err != nil {
				written <- err
				return
			}
			chunk = chunk[n:]
		}
		written <- nil
	}()
	got := make([]byte, len(want))
	_, err = io.ReadFull(c, got)
	assert.NoError(t, err)
	assert.NoError(t, <-written)
	assert.True(t, string(got) == want, "every byte, in order")
}

func TestInProcessConnOfAServerThatEnds(t *testing.T) {
	s := start(t)
	c, err := s.InProcessConn()
	assert.NoError(t, err)
	defer c.Close()
	_, err = readLine(c)
	assert.NoError(t, err)
	s.Shutdown()
	assert.Eventually(t, func() bool { _, err := c.Write([]byte("PING\r\n")); return err != nil }, "write fails")
	_, err = io.ReadAll(c)
	assert.NoError(t, err)
}

func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil {
			return "", err
		}
		if line = append(line, b[0]); b[0] == '\n' {
			return string(line), nil
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	s := start(b)
	nc := connect(b, s)
	echo(b, connect(b, s), "svc.echo")
	for b.Loop() {
		if err := ask(nc, "svc.echo"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := embedded.Start()
		if err != nil {
			b.Fatal(err)
		}
		s.Shutdown()
	}
}
