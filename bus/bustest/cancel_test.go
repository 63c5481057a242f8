package bustest_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// asleep serves a handler that waits until its context ends, and hands over why it did.
func asleep(t *testing.T, b *bus.Bus) (entered chan struct{}, causes chan error) {
	t.Helper()
	entered, causes = make(chan struct{}, 10), make(chan error, 10)
	assert.NoError(t, b.Serve("svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		if r.A == 0 {
			return &addResponse{}, nil
		}
		entered <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, ctx.Err()
	})))
	return entered, causes
}

func arrives[T any](t *testing.T, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("it does not come")
		panic("unreachable")
	}
}

// HTTP clients that leave, before the service has acked their calls or after, end their handlers behind bridge and broker:
// soon, and with a cause that says why.
func TestDisconnectReachesTheHandler(t *testing.T) {
	s := bustest.Server(t, unheard())
	entered, causes := asleep(t, connect(t, s))
	url := bridge(t, connect(t, s), httpbridge.Expose("svc.add"))
	var late []time.Duration
	for i := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- ask(ctx, url+"/svc.add", `{"A":1}`) }()
		arrives(t, entered)
		began := time.Now()
		<-time.After(time.Duration(i%25) * time.Millisecond) // the ack comes after ten
		left := time.Now()
		cancel()
		assert.ErrorIs(t, arrives(t, done), context.Canceled)
		cause := arrives(t, causes)
		late = append(late, time.Since(maxTime(left, began.Add(10*time.Millisecond))))
		e, ok := errors.AsType[*endpoint.Error](cause)
		assert.True(t, ok && e.Code == endpoint.Canceled && e.Message == "the caller gave up", cause.Error())
	}
	slices.Sort(late)
	t.Logf("handlers ended %v after their clients left or their calls were acked, at most %v", late[len(late)/2], late[len(late)-1])
	assert.True(t, late[len(late)/2] < 50*time.Millisecond, "most of them soon")
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask posts and forgets the answer.
func ask(ctx context.Context, url, body string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// The attempt of a hedged call that lost ends at its service, too.
func TestHedgesLoserIsCanceled(t *testing.T) {
	s := bustest.Server(t, unheard())
	slow, quick := connect(t, s), connect(t, s)
	entered, causes := asleep(t, slow)
	caller := connect(t, s)
	first := func(next endpoint.Handler) endpoint.Handler { // the first attempt meets the slow one
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if m, err := c.Message(); err == nil && m.(*addRequest).A == 1 && c.Attempt == 0 {
				ctx = endpoint.WithInstance(ctx, slow.ID())
			} else {
				ctx = endpoint.WithInstance(ctx, quick.ID())
			}
			return next(ctx, c)
		}
	}
	assert.NoError(t, quick.Serve("svc.add", endpoint.New(add)))
	sum := endpoint.Caller[*addRequest, *addResponse](caller, "svc.add", endpoint.Idempotent(),
		middleware.Hedge(middleware.HedgePolicy{ExtraLoad: 0.5}), endpoint.Middleware(first))
	for range 200 { // it learns what is usual
		_, err := sum(t.Context(), &addRequest{0, 1})
		assert.NoError(t, err)
	}
	resp, err := sum(t.Context(), &addRequest{1, 1})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 2)
	arrives(t, entered)
	assert.ErrorIs(t, arrives(t, causes), endpoint.Canceled)
}
