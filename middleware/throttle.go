package middleware

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

// ThrottlePolicy says how [Throttle] holds back. The zero value is the good default. Negative values are faults.
type ThrottlePolicy struct {
	// K is how many times as many calls go out as the service takes; what goes out beyond is how the client
	// notices that the service takes more again. By default 2, at least 1.
	K float64

	// Window is the time over which calls are counted. By default 10 seconds, since it takes about as long to notice that
	// a service has recovered; the book has two minutes. At least a millisecond.
	Window time.Duration

	// Most is the largest part of the calls that is held back, below 1. By default 0.9: what goes out in any case shows
	// when it is over, while the formula alone would let one call in so many through as there were in the window.
	Most float64

	// PerSecond is what goes out in any case, so that a client that calls rarely is never held back: PerSecond times Window
	// calls in each window. By default 1.
	PerSecond float64

	// Report is told the part of the calls that is held back, 0 to 1, whenever it changed by a hundredth or got back to 0:
	// the name is "throttle", the subject the name of the service. It runs in a call's goroutine and must be quick.
	// By default nobody is told.
	Report func(name, subject string, value float64)
}

const (
	defaultK             = 2
	defaultThrottleMost  = 0.9
	defaultThrottleFloor = 1
)

func (p *ThrottlePolicy) complete() []error {
	faults := belowZero(
		amount{"K", p.K}, amount{"Window", float64(p.Window)}, amount{"Most", p.Most}, amount{"PerSecond", p.PerSecond},
	)
	if p.K == 0 {
		p.K = defaultK
	}
	if p.Window == 0 {
		p.Window = 10 * time.Second
	}
	if p.Most == 0 {
		p.Most = defaultThrottleMost
	}
	if p.PerSecond == 0 {
		p.PerSecond = defaultThrottleFloor
	}
	if math.IsInf(p.K, 0) || math.IsInf(p.PerSecond, 0) {
		faults = append(faults, errors.New("an infinite K or PerSecond"))
	}
	if p.K > 0 && p.K < 1 {
		faults = append(faults, fmt.Errorf("a K of %v holds back what the service takes", p.K))
	}
	if p.Most >= 1 {
		faults = append(faults, fmt.Errorf("a Most of %v lets nothing through", p.Most))
	}
	if p.Window > 0 && p.Window < time.Millisecond {
		faults = append(faults, fmt.Errorf("a Window of %v is too short", p.Window))
	}
	return faults
}

// Throttle holds calls back at the client, at random, while their service refuses for overload: even to refuse costs the
// service something, and those who are held back hear at once. It is the adaptive throttling of Google's "Site Reliability
// Engineering", chapter 21: of the calls of a window,
//
//	(requests − K × accepted) / (requests + 1)
//
// are held back, where requests are all that came here, those held back included. So a service that takes a hundred calls a
// second gets K times a hundred, however many there are.
//
// A call counts as refused for overload when a peer says that it did not run it, as resource_exhausted or unavailable: its
// backlog is full, or it shuts down. Everything else a peer says is a call that it took, errors included. A peer's rate_limited
// is its word about one caller or tenant, and not held against the others; request_too_large and header_too_large are
// about the call. Calls that ended without a peer's word are not counted: nobody there, no connection, the time was up, the
// verdict of a limiter or breaker in this process. A call counts as accepted until it is refused, so slow ones don't look like failures.
//
// What is held back gets resource_exhausted, reason local_limit, outcome NotSent and a tenth of the Window as RetryAfter;
// [Retry] leaves it to the caller. Each middleware value has one count for each service.
//
// Throttle acts on the client's side, handlers pass through. It belongs outside of Retry, so that calls count and not attempts.
// Streams of all kinds count once. It costs no allocation, but a lock held for a few dozen nanoseconds.
func Throttle(p ThrottlePolicy) endpoint.Middleware {
	if faults := p.complete(); faults != nil {
		return broken("Throttle", faults...)
	}
	t := &throttle{policy: p, begin: time.Now(), slot: p.Window / throttleParts, floor: p.PerSecond * p.Window.Seconds()}
	t.held = deny("held back, because the service is overloaded", "").client.WithRetryAfter(t.slot)
	return endpoint.OnClient(func(next endpoint.Handler) endpoint.Handler {
		var bound atomic.Pointer[throttleCount]
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			n := bound.Load()
			if n == nil || n.service != c.Spec.Service {
				n = t.count(c.Spec.Service) // once, since a caller belongs to one service
				bound.Store(n)
			}
			slot, ok := n.enter()
			if !ok {
				return nil, t.held
			}
			reply, err := next(ctx, c)
			if err != nil {
				n.failed(slot, err)
			}
			return reply, err
		}
	})
}

// throttle is one middleware value.
type throttle struct {
	policy ThrottlePolicy
	begin  time.Time
	slot   time.Duration
	floor  float64 // PerSecond times Window
	held   *endpoint.Error

	mu       sync.Mutex
	services map[string]*throttleCount
}

func (t *throttle) count(service string) *throttleCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.services[service]
	if n == nil {
		n = &throttleCount{throttle: t, service: service}
		if t.services == nil {
			t.services = map[string]*throttleCount{}
		}
		t.services[service] = n
	}
	return n
}
