package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// Each entry of a batch frame is a call of its own. The tests in this file write frames of their own, so that they know what is
// in them.

// framer sends frames, and has what comes back: by the entries' ids, and by "" what is said about a frame.
type framer struct {
	nc    *nats.Conn
	inbox string

	mu    sync.Mutex
	said  map[string][]*nats.Msg
	parts int
}

func newFramer(t testing.TB, nc *nats.Conn) *framer {
	t.Helper()
	f := &framer{nc: nc, inbox: nc.NewInbox(), said: map[string][]*nats.Msg{}}
	respond(t, nc, f.inbox+".*", f.hear)
	return f
}

func (f *framer) hear(m *nats.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(m.Header) > 0 {
		id := m.Header.Get(wire.EntryHeader)
		f.said[id] = append(f.said[id], m)
		return
	}
	entries, err := wire.ReadEntries(nil, m.Data)
	if err != nil {
		f.said["garbage"] = append(f.said["garbage"], m)
	}
	f.parts++
	for _, e := range entries {
		id := wire.Name(e, string(m.Data))
		f.said[id] = append(f.said[id], &nats.Msg{Data: e.Body(m.Data)})
	}
}

// of returns what was said of an entry.
func (f *framer) of(id string) []*nats.Msg {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said[id]
}

// id is the name of the n-th entry in replies.
func id(n int) string { return string(wire.AppendID(nil, n, 7)) }

// meta is what a caller says that wants raw bytes and waits for so long.
func meta(timeout time.Duration) *wire.Request {
	return &wire.Request{HasTimeout: true, Timeout: timeout, MediaType: "application/octet-stream"}
}

// send sends a frame with n entries.
func (f *framer) send(t testing.TB, subject string, n int, entry func(i int) (*wire.Request, []byte)) {
	t.Helper()
	var frame []byte
	for i := range n {
		m, body := entry(i)
		frame = wire.AppendEntry(frame, wire.AppendToken([]byte(id(i)), m), body)
	}
	assert.NoError(t, f.nc.PublishRequest(subject+".~f", f.inbox+"."+id(99)+"~a1", frame))
}

// Deadlines count from when the frame arrived, each entry's own.
func TestBatchEntry_deadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, _ := far(t, bus.Framing())
		var ran []string
		serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			ran = append(ran, string(r))
			time.Sleep(8 * time.Millisecond)
			return r, nil
		}, endpoint.Concurrency(1)))
		f := newFramer(t, n.Dial("peer"))
		f.send(t, "svc.echo", 5, func(i int) (*wire.Request, []byte) {
			return meta([]time.Duration{time.Second, 5 * time.Millisecond, time.Second, 15 * time.Millisecond, 30 * time.Millisecond}[i]), fmt.Append(nil, i)
		})
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, fmt.Sprint(ran), "[0 2 4]")
		for i, refused := range []bool{false, true, false, true, false} {
			said := f.of(id(i))
			assert.Equal(t, len(said), 1, id(i))
			if refused {
				assert.Equal(t, said[0].Header.Get(wire.Reason), endpoint.ReasonExpired)
				assert.Equal(t, said[0].Header.Get(wire.OutcomeHeader), "not_executed")
			} else {
				assert.Equal(t, string(said[0].Data), fmt.Sprint(i))
			}
		}
		s := statsOf(t, service, "svc.echo")
		assert.Equal(t, s.Expired, uint64(2))
		assert.Equal(t, s.Calls, uint64(3))
	})
}

// What is quick does not wait for what is slow, and comes together.
func TestBatchEntry_parts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, _ := far(t, bus.Framing())
		serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			d, err := time.ParseDuration(string(r))
			time.Sleep(d)
			return r, err
		}))
		f := newFramer(t, n.Dial("peer"))
		takes := []time.Duration{0, 0, 0, 10 * time.Millisecond, time.Second}
		f.send(t, "svc.echo", len(takes), func(i int) (*wire.Request, []byte) { return meta(time.Minute), []byte(takes[i].String()) })
		start := time.Now()
		for _, d := range takes {
			lag := time.Millisecond + 1 // of a part
			if d > 0 {
				lag += 3 * time.Millisecond // until the dispatcher sees that one handler holds the others up
			}
			time.Sleep(time.Until(start.Add(d + lag)))
			synctest.Wait()
			for i, other := range takes {
				if other <= d {
					assert.Equal(t, len(f.of(id(i))), 1, fmt.Sprint(i, " after ", d))
				}
			}
		}
		assert.Equal(t, f.parts, 3)
		assert.Equal(t, string(f.of(id(4))[0].Data), "1s")
	})
}

// What each call has to say is its own, whatever else is in its frame.
func TestBatchEntry_replies(t *testing.T) {
	service, _, s := pair(t)
	var traces sync.Map
	serve(t, service, "svc.do", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		c := endpoint.FromContext(ctx)
		traces.Store(string(r), c.Trace())
		switch {
		case bytes.HasPrefix(r, []byte("error")):
			e := endpoint.NotFound.New(string(r)).WithReason("gone")
			e.Details = []endpoint.Detail{{Type: string(r), Value: []byte("v")}}
			return nil, e
		case bytes.HasPrefix(r, []byte("panic")):
			panic(string(r))
		case bytes.HasPrefix(r, []byte("header")):
			c.Reply.Set("X-Own", string(r))
		case bytes.HasPrefix(r, []byte("long")):
			return bytes.Repeat(r, 1000), nil
		case bytes.HasPrefix(r, []byte("empty")):
			return nil, nil
		}
		return r, nil
	}))
	b := as(t, s, "client", "_RI.cli", bus.Eager())
	raw := echoer(b, "svc.do")
	b.Use(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			c.SetTrace(traceOf(string(c.Body())))
			return next(ctx, c)
		}
	})
	traced := echoer(b, "svc.do")
	kinds := []string{"error", "panic", "header", "long", "empty", "plain", "observed"}
	for range 20 {
		each(2*len(kinds), func(i int) bool {
			kind := kinds[i%len(kinds)]
			body := fmt.Sprint(kind, i)
			ctx, call := t.Context(), raw
			if i >= len(kinds) {
				call = traced
			}
			ctx, report := observeIf(ctx, kind == "header" || kind == "observed")
			got, err := call(ctx, []byte(body))
			switch kind {
			case "error":
				e := failed(t, err, endpoint.NotFound, "gone", endpoint.Executed)
				assert.Equal(t, e.Message, body)
				assert.True(t, len(e.Details) == 1 && e.Details[0].Type == body, "its details")
			case "panic":
				failed(t, err, endpoint.Internal, endpoint.ReasonPanic, endpoint.Executed)
			case "long":
				assert.Equal(t, string(got), strings.Repeat(body, 1000))
			case "empty":
				assert.True(t, err == nil && len(got) == 0, "nothing")
			default:
				assert.True(t, err == nil && string(got) == body, fmt.Sprint(string(got), err))
			}
			if report != nil {
				assert.Equal(t, report.Instance, service.ID())
			}
			if kind == "header" {
				assert.Equal(t, report.Reply.Get("X-Own"), body)
			}
			want := ""
			if i >= len(kinds) {
				want = traceOf(body)
			}
			trace, _ := traces.Load(body)
			assert.Equal(t, trace, any(want))
			return true
		})
	}
	assert.Eventually(t, func() bool {
		st := statsOf(t, service, "svc.do")
		return st.Calls == uint64(20*2*len(kinds)) && st.Failures() == 20*2*2
	})
	assert.Equal(t, b.Slots(), 0)
}

// traceOf makes a trace that nobody samples of a text.
func traceOf(text string) string {
	return fmt.Sprintf("00-%032x-00f067aa0ba902b7-00", text[:min(len(text), 16)])
}

func observeIf(ctx context.Context, observe bool) (context.Context, *endpoint.Report) {
	if !observe {
		return ctx, nil
	}
	return endpoint.Observe(ctx)
}

// Who keeps a request, or a reply, and appends to it overwrites nobody's.
func TestBatchEntry_bytes(t *testing.T) {
	service, _, s := pair(t)
	b := as(t, s, "client", "_RI.cli", bus.Eager())
	var mu sync.Mutex
	kept := map[string][]byte{}
	keep := func(side string, r []byte) {
		mu.Lock()
		defer mu.Unlock()
		kept[side+string(r)] = r
		_ = append(r, make([]byte, 500)...)
	}
	serve(t, service, "svc.raw", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		keep("s", r)
		return r, nil
	}))
	serve(t, service, "svc.payload", endpoint.New(func(_ context.Context, r *codec.Payload) (*codec.Payload, error) {
		keep("s", r.Data)
		return r, nil
	}))
	raw, payload := echoer(b, "svc.raw"), endpoint.Caller[*codec.Payload, *codec.Payload](b, "svc.payload")
	for round := range 20 {
		for _, err := range each(32, func(i int) error {
			got, err := raw(t.Context(), fmt.Appendf(nil, "%d.%d", round, i))
			keep("c", got)
			return err
		}) {
			assert.NoError(t, err)
		}
		for _, err := range each(32, func(i int) error {
			got, err := payload(t.Context(), &codec.Payload{MediaType: codec.Raw.Name(), Data: fmt.Appendf(nil, "p%d.%d", round, i)})
			if err == nil {
				keep("c", got.Data)
			}
			return err
		}) {
			assert.NoError(t, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, len(kept), 4*20*32)
	for key, r := range kept {
		assert.Equal(t, string(r), key[1:])
	}
}
