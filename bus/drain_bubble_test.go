package bus_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// ending is one call, and what it is to end with after a drain began.
type ending struct {
	subject string
	reason  string
	outcome endpoint.Outcome
	after   time.Duration
}

// A drain takes the time that it was given, and half a second for last words. Everybody is answered as soon as it is known
// what to say, and who does not end is named.
func TestDrainTakesItsTime(t *testing.T) {
	const patience, words = 2 * time.Second, 500 * time.Millisecond
	for name, c := range map[string]struct {
		limit time.Duration
		end   func(ctx context.Context, b *bus.Bus) error
	}{
		"drain":                    {patience, func(ctx context.Context, b *bus.Bus) error { return b.Drain(ctx) }},
		"drain without a deadline": {30 * time.Second, func(_ context.Context, b *bus.Bus) error { return b.Drain(context.Background()) }},
		"close":                    {0, func(_ context.Context, b *bus.Bus) error { return b.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, _, caller := far(t)
				service, err := bus.New(n.Dial("its own"), quiet()) // the net would drain its own once more
				assert.NoError(t, err)
				g := newGate(t)
				serveEnds(t, service, g)
				endings := []ending{
					{"svc.stubborn", endpoint.ReasonDraining, endpoint.Executed, c.limit + words},
					{"svc.stubborn", endpoint.ReasonDraining, endpoint.Executed, c.limit + words},
					{"svc.polite", endpoint.ReasonDraining, endpoint.Executed, c.limit},
					{"svc.narrow", endpoint.ReasonDraining, endpoint.Executed, c.limit + words},
					{"svc.narrow", endpoint.ReasonDraining, endpoint.NotExecuted, c.limit},
				}
				var start time.Time
				ended := make(chan struct{})
				for _, e := range endings {
					done := deadline(t, echoer(caller, e.subject), time.Hour)
					go func() {
						defer func() { ended <- struct{}{} }()
						err := <-done
						failed(t, err, endpoint.Unavailable, e.reason, e.outcome)
						assert.Equal(t, time.Since(start).String(), e.after.String(), e.subject)
					}()
					synctest.Wait()
				}
				time.Sleep(50 * time.Millisecond) // until they run
				start = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				err = c.end(ctx, service)
				assert.Equal(t, time.Since(start).String(), (c.limit + words).String())
				failed(t, err, endpoint.DeadlineExceeded, endpoint.ReasonDraining, endpoint.MaybeExecuted)
				assert.Contains(t, err.Error(), "svc.narrow (1), svc.stubborn (2)")
				assert.True(t, !strings.Contains(err.Error(), "polite"), err.Error())
				for range endings {
					<-ended
				}
				g.open()
			})
		})
	}
}

// serveEnds serves handlers that end in all ways.
func serveEnds(t *testing.T, b *bus.Bus, g *gate) {
	t.Helper()
	serve(t, b, "svc.polite", rawEndpoint(func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	stubborn := func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}
	serve(t, b, "svc.stubborn", rawEndpoint(stubborn))
	serve(t, b, "svc.narrow", rawEndpoint(stubborn, endpoint.Concurrency(1), endpoint.Backlog(10, time.Hour)))
}
