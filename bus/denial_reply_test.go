package bus_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// lines returns how many lines of the log have the text.
func (l *text) lines(s string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, s) {
			n++
		}
	}
	return n
}

// elsewhere starts a server whose service may reply to bridges and not to clients.
func elsewhere(t testing.TB) *embedded.Server {
	t.Helper()
	return least(t, func(users map[string]string) {
		users["service"] = strings.Replace(users["service"], `allow: ["_RI.>"]`, `allow: ["_RI.http.>"]`, 1)
	})
}

// The service knows that its replies go nowhere: it counts them, and says so in a line for many.
func TestRow11ReplyDenied(t *testing.T) {
	if eager() {
		t.Skip("an instance whose answers are denied takes no frames any more")
	}
	const calls = 200
	s := elsewhere(t)
	var log text
	service := as(t, s, "service", "_RI.svc", bus.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	client, bridge := as(t, s, "client", "_RI.cli"), as(t, s, "bridge", "_RI.http")
	serve(t, service, "svc.add", endpoint.New(add))
	errs := make(chan error, calls)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // all are to be sent and executed within it
	defer cancel()
	for range calls {
		go func() {
			_, err := adder(client, "svc.add")(ctx, &AddRequest{1, 2})
			errs <- err
		}()
	}
	timed(t, soon, func() {
		for range calls {
			failed(t, <-errs, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted) // the client can't know
		}
	})
	assert.Eventually(t, func() bool { return own(service).Denied >= calls }) // an ack may be among them
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.add").Calls == calls })
	log.has(t, "level=WARN", "the broker denies what is published", "subject=_RI.cli.", "ermissions")
	assert.Equal(t, log.lines("the broker denies what"), 1)
	assert.Equal(t, own(client).Denied, uint64(0))
	_, err := adder(bridge, "svc.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err, "others are served")
}

// A complaint about a reply is not about a call of the same bus, which goes on.
func TestRow11CallsGoOn(t *testing.T) {
	s := least(t, func(users map[string]string) {
		text := strings.Replace(users["service"], `allow: ["_RI.>"]`, `allow: ["_RI.http.>"]`, 1)
		users["service"] = both(t, text, users["client"])
	})
	service, client := as(t, s, "service", "_RI.svc"), as(t, s, "client", "_RI.cli")
	serve(t, service, "svc.add", endpoint.New(add))
	nc := foreign(t, s, nats.UserInfo("service", "service"))
	requests := make(chan *nats.Msg, 1)
	_, err := nc.QueueSubscribe("svc.slow", "q", func(m *nats.Msg) { requests <- m })
	assert.NoError(t, err)
	assert.NoError(t, nc.Flush())
	done := deadline(t, echoer(service, "svc.slow"), time.Minute)
	<-requests
	assert.Eventually(t, func() bool { // one that is not sent within its 10 ms is not denied
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := adder(client, "svc.add")(ctx, &AddRequest{1, 2})
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		return own(service).Denied >= 10
	})
	assert.Equal(t, len(done), 0)
	assert.NoError(t, service.Close())
	assert.True(t, <-done != nil)
}

// What a broker does not take is told in an instant. The figures are logged; what is asserted is the kind.
func TestDeniedAtOnce(t *testing.T) {
	const rounds = 50
	s := least(t, nil, embedded.WithMaxPayload(4096))
	service, bridge := as(t, s, "service", "_RI.svc"), as(t, s, "bridge", "_RI.http")
	serve(t, service, "svc.add", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		return make([]byte, 1000*len(r)), nil
	}))
	client := as(t, s, "client", "_RI.cli")
	for _, c := range []struct {
		name    string
		f       func() error
		code    endpoint.Code
		reason  string
		outcome endpoint.Outcome
	}{
		{"publish denied", func() error {
			_, err := echoer(bridge, "svc.secret")(t.Context(), nil)
			return err
		}, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted},
		{"inbox denied", func() error {
			_, err := reach(s, nats.UserInfo("client", "client"))
			return err
		}, endpoint.PermissionDenied, "", endpoint.NotSent},
		{"request too big", func() error {
			_, err := echoer(client, "svc.add")(t.Context(), make([]byte, 5000))
			return err
		}, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotSent},
		{"reply too big", func() error {
			_, err := echoer(client, "svc.add")(t.Context(), make([]byte, 5))
			return err
		}, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed},
		{"unknown endpoint", func() error {
			_, err := echoer(client, "svc.nobody")(t.Context(), nil)
			return err
		}, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted},
	} {
		var sum, most time.Duration
		for range rounds {
			start := time.Now()
			err := c.f()
			took := time.Since(start)
			sum, most = sum+took, max(most, took)
			failed(t, err, c.code, c.reason, c.outcome)
		}
		t.Logf("%-16s mean %8v, most %8v of %d", c.name, (sum / rounds).Round(time.Microsecond), most.Round(time.Microsecond), rounds)
		assert.True(t, sum/rounds < time.Second, c.name)
	}
}

// Another complaint at the same time hides none: what may not be is told, however many others there are.
func TestDeniedAmongOthers(t *testing.T) {
	const odd = `svc.a"b\c`
	s := least(t, nil)
	b := as(t, s, "service", "_RI.svc")
	serve(t, b, "svc.add", endpoint.New(add))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				for range 100 {
					_ = b.Conn().Publish("elsewhere", nil)
				}
				_ = b.Conn().Flush()
			}
		}
	}()
	for range 20 {
		failed(t, b.Serve("other.add", endpoint.New(add)), endpoint.PermissionDenied, "", endpoint.NotExecuted)
		failed(t, b.Serve(`other.a"b\c`, endpoint.New(add)), endpoint.PermissionDenied, "", endpoint.NotExecuted)
		_, err := b.Discover(t.Context(), "other")
		failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
	}
	serve(t, b, odd, endpoint.New(add))
	close(stop)
	<-stopped
	_, err := adder(b, odd)(t.Context(), &AddRequest{1, 2}) // may serve, not call
	failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
	assert.NoError(t, b.Stop(t.Context(), odd))
	serve(t, b, odd, endpoint.New(add))
	assert.NoError(t, b.Conn().Flush())
}

// After a reconnect all is as before.
func TestRow09AfterReconnect(t *testing.T) {
	s := least(t, nil)
	for _, opts := range [][]bus.Option{nil, {bus.WithNATS(nats.ReconnectHandler(func(*nats.Conn) {}))}} {
		b := as(t, s, "bridge", "_RI.http", append(opts, quickly())...)
		assert.NoError(t, s.Restart())
		assert.Eventually(t, func() bool { return own(b).Reconnects == 1 && b.Ready(t.Context()) == nil })
		assert.Eventually(t, func() bool {
			_, err := echoer(b, "svc.secret")(t.Context(), nil)
			assert.ErrorIs(t, err, endpoint.PermissionDenied)
			return endpoint.OutcomeOf(err) == endpoint.NotExecuted
		})
	}
}
