package bus_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// shrinking is a broker whose limit for messages can be lowered while it runs, as by a reload. It tells nobody.
type shrinking struct {
	ns   *server.Server
	opts *server.Options
}

func newShrinking(t *testing.T, config *tls.Config) *shrinking {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, TLSConfig: config, TLSTimeout: 10}
	ns, err := server.NewServer(opts.Clone())
	assert.NoError(t, err)
	go ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	assert.True(t, ns.ReadyForConnections(10*time.Second))
	return &shrinking{ns, opts}
}

func (s *shrinking) shrink(t *testing.T) {
	t.Helper()
	opts := s.opts.Clone()
	opts.MaxPayload = 4096
	assert.NoError(t, s.ns.ReloadOptions(opts))
}

// closing is a way to close a connection for good where nobody takes care of it. What is prepared may have options of the bus,
// and close returns when it did what it could.
type closing struct {
	url   string
	opts  []bus.Option
	close func(t *testing.T, b *bus.Bus)
}

const (
	longToken = 5000
	back      = 6 * time.Second // five, and some for a busy machine
)

var bulk = strings.Repeat("x", 100_000)

// closings are those that are known.
var closings = map[string]func(t *testing.T) closing{
	"a subject of 5 KB": func(t *testing.T) closing {
		t.Helper()
		return closing{url: bustest.Server(t).URL(), close: longSubject}
	},
	"a subject of 5 KB, by the connection itself": func(t *testing.T) closing {
		t.Helper()
		return closing{url: bustest.Server(t).URL(), close: func(t *testing.T, b *bus.Bus) {
			t.Helper()
			assert.NoError(t, b.Conn().Publish("svc."+strings.Repeat("x", longToken), nil))
			gone(t, b)
		}}
	},
	"a request over a limit that shrank": func(t *testing.T) closing {
		t.Helper()
		s := newShrinking(t, nil)
		return closing{url: s.ns.ClientURL(), close: s.request}
	},
	"a request over a limit that shrank, over TLS": func(t *testing.T) closing {
		t.Helper()
		ours := newAuthority(t)
		s := newShrinking(t, &tls.Config{Certificates: []tls.Certificate{ours.of(t, "server")}, MinVersion: tls.VersionTLS13})
		config := &tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS13}
		return closing{url: s.ns.ClientURL(), opts: []bus.Option{bus.WithNATS(nats.Secure(config))}, close: s.request}
	},
	"a reply over a limit that shrank": func(t *testing.T) closing {
		t.Helper()
		s := newShrinking(t, nil)
		return closing{url: s.ns.ClientURL(), close: s.reply}
	},
	"credentials that expired": func(t *testing.T) closing {
		t.Helper()
		op := newOperator(t)
		c := op.user(t)
		end := c.renew(2 * time.Second).Add(time.Second)
		return closing{url: op.URL(), opts: []bus.Option{c.option()}, close: func(t *testing.T, b *bus.Bus) {
			t.Helper()
			assert.Eventually(t, func() bool { return time.Now().After(end) && b.Conn().IsReconnecting() })
			refused(t, b)
			c.renew(time.Hour)
		}}
	},
}

// Nothing keeps a bus away for good: what would is refused, or it is back within five seconds from when that can be.
func TestNoPermanentDeath(t *testing.T) {
	t.Parallel()
	for name, prepare := range closings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := prepare(t)
			b, err := bus.Connect(c.url, append(c.opts, quiet())...)
			assert.NoError(t, err)
			t.Cleanup(func() { _ = b.Close() })
			serve(t, b, "svc.echo", rawEndpoint(echo))
			serve(t, b, "svc.big", rawEndpoint(func(context.Context, []byte) ([]byte, error) { return []byte(bulk), nil }))
			works := func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := echoer(b, "svc.echo")(ctx, []byte("x"))
				return err == nil
			}
			assert.True(t, works())
			c.close(t, b)
			timed(t, back, func() { assert.Eventually(t, works) })
			assert.Eventually(t, func() bool { return b.Ready(t.Context()) == nil })
		})
	}
}

// longSubject is refused here, and the connection not touched.
func longSubject(t *testing.T, b *bus.Bus) {
	t.Helper()
	long := "svc." + strings.Repeat("x", longToken)
	_, err := echoer(b, long)(t.Context(), nil)
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	failed(t, b.Serve(long, rawEndpoint(echo)), endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.NoError(t, b.Conn().Flush())
	assert.Equal(t, b.Conn().Stats().Reconnects, uint64(0))
}

// request is told what is true, and those that come after the connection is back why they can't be.
func (s *shrinking) request(t *testing.T, b *bus.Bus) {
	t.Helper()
	s.shrink(t)
	call := echoer(b, "svc.echo")
	timed(t, soon, func() {
		_, err := call(t.Context(), []byte(bulk))
		failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
	})
	timed(t, back, func() {
		assert.Eventually(t, func() bool {
			_, err := call(t.Context(), []byte(bulk))
			assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
			return errors.Is(err, endpoint.ResourceExhausted)
		})
	})
}

// reply makes the service learn it, and its callers get an error of a size that goes.
func (s *shrinking) reply(t *testing.T, b *bus.Bus) {
	t.Helper()
	caller, err := bus.Connect(s.ns.ClientURL(), quiet())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = caller.Close() })
	call := echoer(caller, "svc.big")
	_, err = call(t.Context(), nil)
	assert.NoError(t, err)
	s.shrink(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = call(ctx, nil)
	failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted) // it was quicker than its ack
	timed(t, back, func() {
		assert.Eventually(t, func() bool {
			_, err = call(t.Context(), nil)
			return errors.Is(err, endpoint.ResourceExhausted)
		})
	})
	failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed)
}

// gone waits until the broker hung up.
func gone(t *testing.T, b *bus.Bus) {
	t.Helper()
	assert.Eventually(t, func() bool { return !b.Conn().IsConnected() || b.Conn().Stats().Reconnects > 0 })
}

// Nor does an outage of a day, which is in no time here.
func TestBackAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		serve(t, service, "svc.echo", rawEndpoint(echo))
		n.Server.Shutdown()
		time.Sleep(24 * time.Hour)
		_, err := echoer(caller, "svc.echo")(t.Context(), nil)
		failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		assert.NoError(t, n.Server.Restart())
		time.Sleep(5 * time.Second) // the longest delay
		_, err = echoer(caller, "svc.echo")(t.Context(), nil)
		assert.NoError(t, err)
	})
}

// What looks like a last word and is none is part of what it stands in.
func TestFarewellsInPayloads(t *testing.T) {
	s := bustest.Server(t)
	b, err := bus.Connect(s.URL(), quiet())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.echo", rawEndpoint(echo))
	call := echoer(b, "svc.echo")
	for _, word := range []string{"-ERR 'Maximum Payload Violation'", "-ERR 'maximum control line exceeded'\r\n", "-ERR 'Maximum", "-"} {
		for _, before := range []string{"", "\n", "x\r\n", bulk + "\r\n"} {
			timed(t, soon, func() { // not at the next ping, two seconds later
				got, err := call(t.Context(), []byte(before+word))
				assert.NoError(t, err)
				assert.True(t, string(got) == before+word, "as it was")
			})
		}
	}
	assert.Equal(t, b.Conn().Stats().Reconnects, uint64(0))
}
