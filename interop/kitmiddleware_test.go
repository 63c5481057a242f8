package interop_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-kit/kit/circuitbreaker"
	kit "github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/ratelimit"
	"github.com/sony/gobreaker"
	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

// Go kit's own middlewares around a handler and a caller of ours, on a real bus.
func TestKitMiddleware(t *testing.T) {
	b := connect(t, broker(t))
	broken := errors.New("broken")
	fail := false
	add := func(_ context.Context, r *addRequest) (*addResponse, error) {
		if fail {
			return nil, broken
		}
		return &addResponse{r.A + r.B}, nil
	}
	seen := 0
	counting := func(next kit.Endpoint) kit.Endpoint {
		return func(ctx context.Context, request any) (any, error) {
			if _, ok := request.(*addRequest); ok {
				seen++
			}
			return next(ctx, request)
		}
	}
	limiter := rate.NewLimiter(rate.Every(time.Hour), 3)
	err := b.Serve("kit.add", endpoint.New(add, middleware.FromKit(counting, ratelimit.NewErroringLimiter(limiter))))
	if err != nil {
		t.Fatal(err)
	}
	breaker := gobreaker.NewCircuitBreaker(gobreaker.Settings{ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 2 }})
	sum := endpoint.Caller[*addRequest, *addResponse](b, "kit.add", middleware.FromKit(circuitbreaker.Gobreaker(breaker)))

	reply, err := sum(t.Context(), &addRequest{A: 1, B: 2})
	if err != nil || reply.Sum != 3 {
		t.Fatal(reply, err)
	}
	fail = true
	if _, err = sum(t.Context(), &addRequest{}); !errors.Is(err, endpoint.Unknown) {
		t.Fatal("a failure of the handler:", err)
	}
	fail = false
	if _, err = sum(t.Context(), &addRequest{}); err != nil {
		t.Fatal("one failure leaves it closed:", err)
	}
	for range 2 { // an error of the limiter's own type is nobody's business but the service's
		if _, err = sum(t.Context(), &addRequest{}); !errors.Is(err, endpoint.Unknown) || endpoint.OutcomeOf(err) != endpoint.NotExecuted {
			t.Fatal("Go kit's limiter at the service:", err, endpoint.OutcomeOf(err))
		}
	}
	_, err = sum(t.Context(), &addRequest{})
	if !errors.Is(err, gobreaker.ErrOpenState) || endpoint.OutcomeOf(err) != endpoint.NotSent {
		t.Fatal("Go kit's breaker at the caller:", err, endpoint.OutcomeOf(err))
	}
	if seen != 5 {
		t.Fatal("the service's middleware saw", seen, "requests, want 5")
	}
}
