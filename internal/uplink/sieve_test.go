package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/internal/assert"
)

// lines are open streams, by subject.
type lines map[string]*heard

// heard is an open stream, and what was told of its subject.
type heard struct {
	items   []string
	news    bool // that it was not told of
	detours int
	plain   []string
	passed  int
}

func (h *heard) Next(seq uint64, body []byte, now time.Time) bool {
	if h.detours > 0 || seq != uint64(len(h.items)+1) || now.IsZero() {
		return false
	}
	h.items, h.news = append(h.items, string(body)), true
	return true
}

func (h *heard) Told() { h.news = false }

func (m lines) Item(subject []byte, seq uint64, body []byte, now time.Time) Line {
	if l := m[string(subject)]; l != nil && l.Next(seq, body, now) {
		return l
	}
	return nil
}

func (m lines) Detour(subject []byte) {
	if l := m[string(subject)]; l != nil {
		l.detours++
	}
}

// Plain takes what is said to an open stream without headers and without a reply subject.
func (m lines) Plain(subject, reply, body []byte) (Runner, bool) {
	l := m[string(subject)]
	if l == nil || len(reply) > 0 {
		return nil, false
	}
	l.plain = append(l.plain, string(body))
	return nil, true
}

func (m lines) Passes(subject []byte) {
	if l := m[string(subject)]; l != nil {
		l.passed++
	}
}

func hmsg(subject, reply, header, body string) string {
	if reply != "" {
		reply += " "
	}
	return fmt.Sprintf("HMSG %s 7 %s%d %d\r\n%s%s\r\n", subject, reply, len(header), len(header)+len(body), header, body)
}

func numbered(n uint64) string { return fmt.Sprintf("NATS/1.0\r\nRpc-Seq: %d\r\n\r\n", n) }

// Whatever is read, and however it is cut, items that are next go to their streams and everything else is passed on as it was.
func TestSieve(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 8))
		streams := lines{"in.0a": {}, "in.0b": {}}
		want := map[string][]string{}
		next := map[string]uint64{"in.0a": 1, "in.0b": 1, "in.0c": 1}
		detour := map[string]bool{} // something does not get there in this test, so nothing may come before it
		plain, passed := map[string][]string{}, map[string]int{}
		var all, rest strings.Builder
		usual := func(s string) {
			all.WriteString(s)
			rest.WriteString(s)
			if kind, rest, _ := strings.Cut(s, " "); kind == "HMSG" || kind == "MSG" {
				passed[rest[:len("in.0a")]]++
			}
		}
		for range 100 + r.IntN(200) {
			subject := []string{"in.0a", "in.0b", "in.0c"}[r.IntN(3)]
			body := strings.Repeat("x", r.IntN(1500))
			switch r.IntN(14) {
			case 0:
				usual("PING\r\n")
			case 1:
				usual("-ERR 'Permissions Violation for Publish to \"x\"'\r\n")
			case 2:
				m := fmt.Sprintf("MSG %s 7 %d\r\n%s\r\n", subject, len(body), body)
				if streams[subject] == nil {
					usual(m)
					break
				}
				all.WriteString(m)
				plain[subject] = append(plain[subject], body)
			case 3: // what looks like an item, within a body
				inner := hmsg(subject, "", numbered(next[subject]), body)
				usual(fmt.Sprintf("MSG %s 7 reply.to %d\r\n%s\r\n", subject, len(inner), inner))
			case 4:
				usual(hmsg(subject, "a.reply", numbered(next[subject]), body))
			case 5:
				usual(hmsg(subject, "", "NATS/1.0\r\nRpc-Seq: 2\r\nContent-Type: text/csv\r\n\r\n", body))
			case 6:
				usual(hmsg(subject, "", "NATS/1.0\r\nRpc-End: 2\r\n\r\n", ""))
				detour[subject] = true
			case 7:
				usual(hmsg(subject, "", numbered(next[subject]+1+uint64(r.IntN(3))), body))
				detour[subject] = true
			case 8:
				usual(hmsg(subject, "", numbered(next[subject]-1), body))
				detour[subject] = true
			case 9:
				usual(hmsg(subject, "", numbered(next[subject]), strings.Repeat("long", sieved/4+r.IntN(sieved))))
			case 10:
				usual("INFO {\"x\":\"" + body + "\"}\r\n")
			default:
				m := hmsg(subject, "", numbered(next[subject]), body)
				if streams[subject] == nil || detour[subject] {
					usual(m)
					break
				}
				all.WriteString(m)
				want[subject] = append(want[subject], body)
				next[subject]++
			}
		}
		left := strain(t, cut(r, all.String()), streams)
		assert.True(t, left == rest.String(), fmt.Sprint("seed ", seed, ": what is passed on is not what it was"))
		for subject, l := range streams {
			assert.Equal(t, l.items, want[subject])
			assert.Equal(t, l.plain, plain[subject])
			assert.Equal(t, l.passed, passed[subject])
		}
	}
}

func cut(r *rand.Rand, s string) (all []string) {
	for len(s) > 0 {
		n := min(1+r.IntN([]int{3, 100, 5000, 60_000}[r.IntN(4)]), len(s))
		all, s = append(all, s[:n]), s[n:]
	}
	return all
}

// strain reads it all by an outlet, and returns what is passed on.
func strain(t *testing.T, all []string, streams lines) string {
	t.Helper()
	o := newOutlet(&pieces{rest: all, end: io.EOF}, time.Minute)
	o.up.Store(true)
	o.sieve.on = true
	o.takes = &atomic.Pointer[Taker]{}
	o.takes.Store(new(Taker(streams)))
	var passed bytes.Buffer
	p := make([]byte, 32<<10)
	for {
		n, err := o.read(p)
		passed.Write(p[:n])
		if errors.Is(err, io.EOF) {
			return passed.String()
		}
		assert.NoError(t, err)
		assert.True(t, n > 0, "a read that read nothing")
		for subject, l := range streams {
			assert.True(t, !l.news, subject)
		}
	}
}

// What is not the protocol is passed on as it is.
func TestSieveOfNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		noise := []byte("HMSG in.0a 7 22 30\r\nMSG 1 \r\n 9999999999999999999\n+PING")
		for range r.IntN(8) {
			noise[r.IntN(len(noise))] = byte(r.IntN(256))
		}
		noise = bytes.Repeat(noise, 1+r.IntN(300))
		passed := strain(t, cut(r, string(noise)), lines{})
		assert.True(t, strings.HasPrefix(string(noise), passed), "nothing is changed")
		assert.True(t, len(noise)-len(passed) < sieved+longLine, "nothing but a message that is not whole is held back")
	}
}
