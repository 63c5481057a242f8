package bus

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func opened(t *testing.T, url string, opts ...Option) *Bus {
	t.Helper()
	b, err := Connect(url, opts...)
	assert.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.Close()) })
	return b
}

// What is out of the ordinary goes by way of nats.go: large messages, those with headers, and all on a connection that its user has.
func TestShortcut(t *testing.T) {
	s, err := embedded.Start()
	assert.NoError(t, err)
	t.Cleanup(s.Shutdown)
	echo := func(_ context.Context, r []byte) ([]byte, error) {
		if string(r) == "fail" {
			return nil, endpoint.NotFound.New("no such thing")
		}
		return r, nil
	}
	for _, frames := range []bool{false, true} {
		takes, sends := WithoutFrames(), WithoutFrames()
		if frames {
			takes, sends = Framing(), Eager()
		}
		service, client := opened(t, s.URL(), takes), opened(t, s.URL(), sends)
		assert.NoError(t, service.Serve("svc.echo", endpoint.New(echo, endpoint.Codec(codec.Raw))))
		call := endpoint.Caller[[]byte, []byte](client, "svc.echo", endpoint.Codec(codec.Raw))
		// by is how many messages came by way of nats.go, at the service and at the client.
		by := func(ctx context.Context, body string) [2]uint64 {
			a, b := service.nc.Stats().InMsgs, client.nc.Stats().InMsgs
			got, err := call(ctx, []byte(body))
			if body == "fail" {
				assert.ErrorIs(t, err, endpoint.NotFound)
			} else {
				assert.NoError(t, err)
				assert.Equal(t, string(got), body)
			}
			return [2]uint64{service.nc.Stats().InMsgs - a, client.nc.Stats().InMsgs - b}
		}
		assert.Equal(t, by(t.Context(), "small"), [2]uint64{0, 0})
		assert.Equal(t, by(t.Context(), ""), [2]uint64{0, 0})
		assert.Equal(t, by(t.Context(), strings.Repeat("x", 8<<10)), [2]uint64{1, 1})
		assert.Equal(t, by(t.Context(), "fail"), [2]uint64{0, 1})
		assert.Equal(t, by(endpoint.WithHeader(t.Context(), "a", "b"), "headers"), [2]uint64{1, 0})
		client.Conn()
		assert.Equal(t, by(t.Context(), "small"), [2]uint64{0, 1})
		service.Conn()
		assert.Equal(t, by(t.Context(), "small"), [2]uint64{1, 1})
		assert.NoError(t, service.Stop(t.Context(), "svc.echo"))
	}
}

// Nothing overtakes what is still on its way by way of nats.go to the same call.
func TestShortcutKeepsOrder(t *testing.T) {
	m := testMux()
	s, secret := m.open(request{}, nil)
	token := wire.AppendID(nil, s.index, secret)
	m.passes(token)
	assert.True(t, !m.take(token, []byte("first")), "something is before it")
	m.deliver(&nats.Msg{Subject: m.token(s, secret), Header: nats.Header{"A": {"b"}}})
	assert.True(t, m.take(token, []byte("second")))
	assert.Equal(t, (<-s.ch).Header.Get("A"), "b")
	assert.Equal(t, string((<-s.ch).Data), "second")
	assert.True(t, !m.take(token, []byte("third")), "its memory is taken")

	m.passes(token) // and is lost with the connection
	m.close(s)
	assert.True(t, !m.take(token, []byte("late")))
	again, secret := m.open(request{}, nil)
	assert.True(t, again == s)
	assert.True(t, m.take(wire.AppendID(nil, s.index, secret), []byte("of the next call")))
}

// Who reads refuses nothing: what finds no room, all of a frame, is left to the usual way.
func TestShortcutRefusesNothing(t *testing.T) {
	ran := make(chan struct{}, 8)
	d := dispatcher{limit: 1, backlog: 3, wait: time.Minute, run: func(job) { <-ran }}
	d.inline.never = true
	offer := func(jobs ...job) bool {
		_, ok := d.offer(jobs...)
		return ok
	}
	jobs := slices.Repeat([]job{{received: time.Now()}}, 5)
	assert.True(t, !offer(jobs...), "one too many")
	assert.True(t, offer(jobs[:4]...))
	assert.True(t, !offer(jobs[0]))
	ran <- struct{}{}
	assert.Eventually(t, func() bool { return offer(jobs[0]) })
	for range 4 {
		ran <- struct{}{}
	}
	<-d.close()
	assert.True(t, !offer(jobs[0]))
}

// A connection that the user's callbacks have been given may have subscriptions of theirs.
func TestShortcutEndsWhereTheConnectionIsLent(t *testing.T) {
	s, err := embedded.Start()
	assert.NoError(t, err)
	t.Cleanup(s.Shutdown)
	heard := make(chan string, 10)
	service := opened(t, s.URL(), WithNATS(nats.ConnectHandler(func(nc *nats.Conn) {
		_, err := nc.Subscribe("svc.echo", func(m *nats.Msg) { heard <- string(m.Data) })
		assert.NoError(t, err)
		assert.NoError(t, nc.Flush())
		heard <- "ready"
	})))
	assert.Equal(t, <-heard, "ready")
	var ran atomic.Int32
	assert.NoError(t, service.Serve("svc.echo", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) {
		ran.Add(1)
		return r, nil
	}, endpoint.Codec(codec.Raw))))
	call := endpoint.Caller[[]byte, []byte](opened(t, s.URL(), WithoutFrames()), "svc.echo", endpoint.Codec(codec.Raw))
	_, err = call(t.Context(), []byte("once"))
	assert.NoError(t, err)
	assert.Eventually(t, func() bool { return len(heard) > 0 }, "what is theirs they get")
	assert.Equal(t, ran.Load(), int32(1))
}
