package bus_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// field is a subject with an instance that takes frames, and others; what goes there is counted, each of the calls in bursts.
type field struct {
	*bustest.Net
	caller              *bus.Bus
	call                endpoint.Unary[[]byte, []byte]
	frames, ours, other atomic.Int64
}

// counted is echo that counts.
func counted(n *atomic.Int64) func(context.Context, []byte) ([]byte, error) {
	return func(_ context.Context, r []byte) ([]byte, error) {
		n.Add(1)
		return r, nil
	}
}

func newField(t *testing.T, opts ...embedded.Option) *field {
	t.Helper()
	f := &field{Net: bustest.NewNet(t, opts...)}
	f.caller = f.Connect("caller", quiet(), bus.Framing())
	f.call = echoer(f.caller, "svc.echo")
	serve(t, f.Connect("ours", quiet(), bus.Framing()), "svc.echo", rawEndpoint(counted(&f.ours)))
	respond(t, f.Dial("tap"), "svc.echo.~f", func(*nats.Msg) { f.frames.Add(1) })
	return f
}

// bursts makes 16 calls at once, again and again, until it is enough or for so long. Each gets its own reply.
func (f *field) bursts(t *testing.T, most time.Duration, enough func() bool) {
	t.Helper()
	for start := time.Now(); time.Since(start) < most; time.Sleep(10 * time.Millisecond) {
		for _, err := range each(16, func(i int) error {
			got, err := f.call(t.Context(), []byte{byte(i)})
			assert.Equal(t, string(got), string([]byte{byte(i)}))
			return err
		}) {
			assert.NoError(t, err)
		}
		if enough != nil && enough() {
			return
		}
	}
	if enough != nil {
		t.Fatalf("not in %v", most)
	}
}

// shared checks that the others have about half of the calls, while these go on for a while.
func (f *field) shared(t *testing.T) {
	t.Helper()
	f.ours.Store(0)
	f.other.Store(0)
	f.bursts(t, 10*time.Second, nil)
	share := float64(f.other.Load()) / float64(f.ours.Load()+f.other.Load())
	assert.True(t, share > 0.4 && share < 0.6, fmt.Sprint(share))
}

// foreigner answers without knowing of frames, and can be found.
func (f *field) foreigner(t *testing.T, subject string, opts ...micro.EndpointOpt) {
	t.Helper()
	nc := f.Dial("foreigner")
	m, err := micro.AddService(nc, micro.Config{Name: "svc", Version: "1.0.0"})
	assert.NoError(t, err)
	t.Cleanup(func() { _ = m.Stop() })
	assert.NoError(t, m.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) {
		f.other.Add(1)
		_ = r.Respond(r.Data())
	}), append(opts, micro.WithEndpointSubject(subject))...))
	assert.NoError(t, nc.Flush())
}

// Frames are sent where all who serve the subject take them.
func TestBatchTerms(t *testing.T) {
	for name, c := range map[string]struct {
		join   func(t *testing.T, f *field)
		frames bool
		shared bool
	}{
		"nobody else": {join: func(*testing.T, *field) {}, frames: true},
		"another of ours": {join: func(t *testing.T, f *field) {
			t.Helper()
			serve(t, f.Connect("other", quiet(), bus.Framing()), "svc.echo", rawEndpoint(counted(&f.other)))
		}, frames: true, shared: true},
		"one that takes none": {join: func(t *testing.T, f *field) {
			t.Helper()
			serve(t, f.Connect("other", quiet(), bus.WithoutFrames()), "svc.echo", rawEndpoint(counted(&f.other)))
		}, shared: true},
		"one of another make": {join: func(t *testing.T, f *field) {
			t.Helper()
			f.foreigner(t, "svc.echo")
		}, shared: true},
		"a pattern": {join: func(t *testing.T, f *field) {
			t.Helper()
			f.foreigner(t, "svc.*")
		}, shared: true},
		"a pattern below": {join: func(t *testing.T, f *field) {
			t.Helper()
			f.foreigner(t, "svc.echo.*")
		}},
		"another queue group": {join: func(t *testing.T, f *field) {
			t.Helper()
			serve(t, f.Connect("other", quiet(), bus.Framing()), "svc.echo", rawEndpoint(counted(&f.other), endpoint.Queue("another")))
		}},
		"no queue group": {join: func(t *testing.T, f *field) {
			t.Helper()
			serve(t, f.Connect("other", quiet(), bus.Framing()), "svc.echo", rawEndpoint(counted(&f.other), endpoint.Queue("")))
		}},
		"elsewhere": {join: func(t *testing.T, f *field) {
			t.Helper()
			f.foreigner(t, "svc.other")
		}, frames: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newField(t)
				c.join(t, f)
				if c.frames {
					f.bursts(t, 5*time.Second, func() bool { return f.frames.Load() > 0 })
				} else {
					f.bursts(t, 5*time.Second, nil)
				}
				if c.shared {
					f.shared(t)
				}
				assert.Equal(t, f.frames.Load() > 0, c.frames)
				assert.Equal(t, f.caller.Slots(), 0)
			})
		})
	}
}

// Who comes later is noticed. Frames cease, and are agreed on anew with those who can be found; who can't be gets nearly its share.
func TestBatchTerms_later(t *testing.T) {
	for name, c := range map[string]struct {
		join   func(t *testing.T, f *field)
		frames bool // in the end
	}{
		"one of ours": {func(t *testing.T, f *field) {
			t.Helper()
			serve(t, f.Connect("other", quiet(), bus.Framing()), "svc.echo", rawEndpoint(counted(&f.other)))
		}, true},
		"one of another make": {func(t *testing.T, f *field) {
			t.Helper()
			f.foreigner(t, "svc.echo")
		}, false},
		"one that is not found": {func(t *testing.T, f *field) {
			t.Helper()
			nc := f.Dial("plain")
			_, err := nc.QueueSubscribe("svc.echo", endpoint.DefaultQueue, func(m *nats.Msg) {
				f.other.Add(1)
				_ = m.Respond(m.Data)
			})
			assert.NoError(t, err)
			assert.NoError(t, nc.Flush())
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newField(t)
				f.bursts(t, 5*time.Second, func() bool { return f.frames.Load() > 10 })
				c.join(t, f)
				f.bursts(t, 15*time.Second, nil)
				before := f.frames.Load()
				f.shared(t)
				if c.frames {
					assert.True(t, f.frames.Load() > before+100, "frames again")
				} else {
					assert.True(t, f.frames.Load() < before+100, "hardly any frames")
				}
			})
		})
	}
}

// A mapping that takes calls elsewhere does not take frames along: it is noticed by who answers.
func TestBatchTerms_mapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(t, embedded.WithConfig(`mappings: { "svc.echo": [ { destination: "svc.echo", weight: 50% }, { destination: "svc.other", weight: 50% } ] }`))
		serve(t, f.Connect("other", quiet(), bus.Framing()), "svc.other", rawEndpoint(counted(&f.other)))
		f.bursts(t, 15*time.Second, nil)
		f.shared(t)
	})
}

// Who may not ask has no frames, and hears of nothing.
func TestBatchTerms_mayNotAsk(t *testing.T) {
	s := least(t, nil)
	var log text
	caller := as(t, s, "client", "_RI.cli", bus.Framing(), bus.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))))
	service := as(t, s, "service", "_RI.svc", bus.Framing(), content(t))
	serve(t, service, "svc.echo", rawEndpoint(echo))
	call := echoer(caller, "svc.echo")
	for range 20 {
		for _, err := range each(16, func(int) error { _, err := call(t.Context(), nil); return err }) {
			assert.NoError(t, err)
		}
	}
	assert.Eventually(t, func() bool { return own(caller).Denied == 1 })
	log.mu.Lock()
	defer log.mu.Unlock()
	assert.Equal(t, log.buf.String(), "")
}

// A stream that keeps what is sent to the subject would keep frames: they end for good.
func TestBatchTerms_overheard(t *testing.T) {
	s := bustest.Server(t, embedded.WithJetStream(""), unheard())
	service, caller := connect(t, s, quiet(), bus.Framing()), connect(t, s, quiet(), bus.Framing())
	js, err := foreign(t, s).JetStream()
	assert.NoError(t, err)
	_, err = js.AddStream(&nats.StreamConfig{Name: "KEEPS", Subjects: []string{"svc.>"}, Storage: nats.MemoryStorage})
	assert.NoError(t, err)
	var ran atomic.Int64
	serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		ran.Add(1)
		time.Sleep(20 * time.Millisecond) // the stream is quicker
		return r, nil
	}))
	forced := bustest.Connect(t, s, quiet(), bus.Eager())
	for _, b := range []*bus.Bus{caller, forced} {
		ran.Store(0)
		call, seen := echoer(b, "svc.echo"), batches(t, foreign(t, s), "svc.echo")
		first := 0
		for round := range 5 {
			for _, err := range each(16, func(i int) error {
				got, err := call(t.Context(), []byte{byte(i)})
				assert.Equal(t, string(got), string([]byte{byte(i)}))
				return err
			}) {
				assert.NoError(t, err)
			}
			if round == 0 {
				first = int(seen.Load())
			}
		}
		assert.Equal(t, int(seen.Load()), first, "no frames after the stream was heard of")
		assert.Equal(t, first > 0, b == forced)
		assert.Equal(t, ran.Load(), int64(5*16))
	}
}
