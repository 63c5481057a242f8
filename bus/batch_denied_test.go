package bus_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// census counts how often each call was executed.
type census [2000]atomic.Int32

func (c *census) add(_ context.Context, r *AddRequest) (*AddResponse, error) {
	c[r.A].Add(1)
	return &AddResponse{r.A + r.B}, nil
}

// check calls n times at once; each succeeds, and is executed once.
func (c *census) check(t *testing.T, b *bus.Bus, n int) {
	t.Helper()
	c.checks(t, b, adder(b, "svc.add"), n)
}

// checks is check by a caller that has been agreeing on frames before.
func (c *census) checks(t *testing.T, b *bus.Bus, call endpoint.Unary[*AddRequest, *AddResponse], n int) {
	t.Helper()
	for i, err := range each(n, func(i int) error {
		sum, err := call(patient(t), &AddRequest{i, 1})
		assert.True(t, err != nil || sum.Sum == i+1, "its own reply")
		return err
	}) {
		assert.NoError(t, err)
		assert.Equal(t, c[i].Swap(0), int32(1), fmt.Sprint(i))
	}
	assert.Eventually(t, func() bool { return b.Slots()+b.FrameSlots()+b.Tombs() == 0 })
}

// Who may publish to the subject alone, as a bridge that exposes it, has its calls executed, once.
func TestBatchDenied_caller(t *testing.T) {
	s := least(t, nil)
	late := doubles(t, foreign(t, s))
	for _, taken := range []bool{false, true} {
		var ran census
		service := as(t, s, "service", "_RI.svc", bus.Framing(), content(t))
		serve(t, service, "svc.add", endpoint.New(ran.add))
		b := as(t, s, "bridge", "_RI.http", bus.Eager())
		if taken {
			b.Conn()
		}
		for range 5 {
			ran.check(t, b, 300)
		}
		assert.True(t, own(b).Denied > 0, "frames were denied")
		late(b)
		assert.NoError(t, service.Drain(t.Context()))
	}
}

// A service that may not listen to frames says so, and serves.
func TestBatchDenied_service(t *testing.T) {
	s := least(t, func(users map[string]string) {
		granted := bus.Permissions(bus.ServiceRole, "svc", "svc.add")
		users["service"] = strings.Replace(granted, `"svc.add.~f q", `, "", 1)
		assert.True(t, users["service"] != granted, "frames are granted unless taken away")
	})
	var ran census
	service, client := as(t, s, "service", "_RI.svc", bus.Framing()), as(t, s, "client", "_RI.cli", bus.Eager(), content(t))
	serve(t, service, "svc.add", endpoint.New(ran.add))
	assert.Equal(t, featuresOf(t, s), "ack,direct")
	for range 3 {
		ran.check(t, client, 300)
	}
	assert.NoError(t, service.Stop(t.Context(), "svc.add"))
	serve(t, service, "svc.add", endpoint.New(ran.add))
}

// featuresOf returns what is published of svc.add.
func featuresOf(t *testing.T, s *embedded.Server) string {
	t.Helper()
	all, err := as(t, s, "discovery", "_RI.find").Discover(t.Context(), "svc")
	assert.NoError(t, err)
	assert.True(t, len(all) == 1 && len(all[0].Endpoints) == 1, fmt.Sprint(all))
	return all[0].Endpoints[0].Metadata["rpc.features"]
}

// byResponses makes a server whose service may reply to those alone who asked, so many times.
func byResponses(t *testing.T, most int) *embedded.Server {
	t.Helper()
	return least(t, func(users map[string]string) {
		lines := strings.Split(users["service"], "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "  publish:") {
				lines[i] = ""
			}
			lines[i] = strings.Replace(lines[i], "# allow_responses: { max: -1", fmt.Sprint("allow_responses: { max: ", most), 1)
		}
		users["service"] = strings.Join(lines, "\n")
		assert.Contains(t, users["service"], fmt.Sprint("\n  allow_responses: { max: ", most))
	})
}

// A broker that lets all answers through that somebody asked for lets those through that a frame asked for.
func TestBatchDenied_responses(t *testing.T) {
	s := byResponses(t, -1)
	var ran census
	service, client := as(t, s, "service", "_RI.svc", bus.Framing(), content(t)), as(t, s, "client", "_RI.cli", bus.Eager(), content(t))
	serve(t, service, "svc.add", endpoint.New(ran.add))
	for range 3 {
		ran.check(t, client, 300)
	}
	assert.Equal(t, featuresOf(t, s), "ack,direct,frames")
}

// One that lets fewer through has some calls wait in vain; then there are no frames any more.
func TestBatchDenied_fewResponses(t *testing.T) {
	for _, adopted := range []bool{false, true} {
		s := byResponses(t, 1)
		var ran census
		var log text
		opts := []bus.Option{bus.Framing(), bus.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), bus.WithInboxPrefix("_RI.svc")}
		service := as(t, s, "service", "_RI.svc", opts...)
		if adopted {
			var err error
			service, err = bus.New(foreign(t, s, nats.UserInfo("service", "service"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})), opts...)
			assert.NoError(t, err)
			t.Cleanup(func() { _ = service.Close() })
		}
		client := as(t, s, "client", "_RI.cli", bus.Eager())
		serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
			if r.B == 13 { // which is a message of its own
				return add(ctx, r)
			}
			return ran.add(ctx, r)
		}))
		call, lost := adder(client, "svc.add"), 0
		for _, err := range each(200, func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := call(ctx, &AddRequest{i, 13})
			return err
		}) {
			if endpoint.CodeOf(err) == endpoint.DeadlineExceeded && endpoint.OutcomeOf(err) != endpoint.NotSent { // as on a busy machine
				assert.Equal(t, endpoint.OutcomeOf(err), endpoint.MaybeExecuted)
				lost++
			}
		}
		assert.True(t, lost > 0, "the broker lets one answer pass")
		for range 3 {
			ran.check(t, client, 200)
		}
		assert.Equal(t, featuresOf(t, s), "ack,direct")
		log.has(t, "no batch frames any more")
	}
}

// Of two instances one has no room: what it refuses is sent once more, and never executed twice. With one it is refused once.
func TestBatchRefused(t *testing.T) {
	for _, alone := range []bool{false, true} {
		s := bustest.Server(t, embedded.WithoutListener())
		full, caller := bustest.Connect(t, s, quiet(), bus.Framing()), bustest.Connect(t, s, quiet(), bus.Framing())
		var ran census
		g := newGate(t)
		serve(t, full, "svc.add", endpoint.New(func(_ context.Context, r *AddRequest) (*AddResponse, error) {
			if r.B < 0 {
				g.pass()
			}
			ran[r.A].Add(1)
			return &AddResponse{}, nil
		}, endpoint.Concurrency(1), endpoint.Backlog(0, time.Second)))
		call := adder(caller, "svc.add")
		held := make(chan error, 1)
		go func() { _, err := call(patient(t), &AddRequest{1999, -1}); held <- err }()
		g.await(t, 1)
		if !alone {
			serve(t, bustest.Connect(t, s, quiet(), bus.Framing()), "svc.add", endpoint.New(ran.add))
		}
		seen := batches(t, foreign(t, s), "svc.add")
		calls, failures := 0, 0
		for start := time.Now(); seen.Load() < 20; {
			for i, err := range each(32, func(i int) error { _, err := call(patient(t), &AddRequest{i, 1}); return err }) {
				want := int32(1)
				if err != nil {
					failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonBacklogFull, endpoint.NotExecuted)
					failures, want = failures+1, 0
				}
				calls++
				assert.Equal(t, ran[i].Swap(0), want, fmt.Sprint(err))
			}
			assert.True(t, time.Since(start) < 20*time.Second, fmt.Sprint(seen.Load(), " frames, ", calls, " calls, ", failures))
		}
		g.open()
		assert.NoError(t, <-held)
		refused := int(statsOf(t, full, "svc.add").Refused)
		t.Logf("%d of %d calls failed, %d were refused", failures, calls, refused)
		assert.True(t, (refused == failures) == alone, "refused once, or sent once more")
	}
}

// Instances come and go under load: no call fails, and none is executed twice.
func TestBatchRolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		latency(n)
		caller := n.Connect("caller", quiet(), bus.Framing())
		var ran census
		start := func(i int) *bus.Bus {
			b := n.Connect(fmt.Sprint("i", i), quiet(), bus.Framing())
			serve(t, b, "svc.add", endpoint.New(ran.add))
			return b
		}
		old := []*bus.Bus{start(0), start(1)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 2; i < 10; i++ {
				time.Sleep(1100 * time.Millisecond)
				old = append(old, start(i))
				time.Sleep(50 * time.Millisecond)
				assert.NoError(t, old[0].Drain(t.Context()))
				old = old[1:]
			}
		}()
		call, seen := adder(caller, "svc.add"), batches(t, n.Dial("tap"), "svc.add")
		for over := false; !over; time.Sleep(2 * time.Millisecond) {
			ran.checks(t, caller, call, 16)
			select {
			case <-done:
				over = true
			default:
			}
		}
		assert.True(t, seen.Load() > 50, fmt.Sprint(seen.Load(), " frames")) // the first two agree on them within a second, later ones in between
	})
}
