package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"postbus.example/endpoint"
)

// Defaults says what the stacks of [Server] and [Client] are made of. What is nil or zero is absent: the zero value is a
// server that survives panics and validates what can validate itself, and a client as it is.
//
// One value may serve both stacks: each field belongs to one side, but for Log, Metrics, Tracing and Timeout, which are
// meant for both.
type Defaults struct {
	// Log gets one line for each call, see [Log]; LogOptions go with it.
	Log        *slog.Logger
	LogOptions []LogOption

	// Metrics is metrics.New, Tracing is tracing.New: packages of their own, since they bring their libraries along. On the
	// client's side Tracing stands in two places: around the call, and around each attempt.
	Metrics, Tracing endpoint.Middleware

	// Timeout bounds a handler, and a call with all of its attempts, see [Timeout].
	Timeout time.Duration

	// Identity lets handlers know who calls over an HTTP bridge, see [VerifyIdentity].
	Identity *IdentityPolicy

	// Authenticate lets handlers know who calls, see [Authenticate].
	Authenticate func(context.Context, *endpoint.Call) (context.Context, error)

	// Adaptive bounds the handlers that run at once by the time that calls wait, see [AdaptiveConcurrency]; Concurrency
	// bounds those of all endpoints together, see [Concurrency]; Limiter bounds how many start, see [RateLimit].
	Adaptive    *AdaptivePolicy
	Concurrency int
	Limiter     Limiter

	// Throttle keeps calls back while the peer refuses, see [Throttle].
	Throttle *ThrottlePolicy

	// Retry tries again, see [Retry]; Hedge is quicker where a call is slow, see [Hedge]. With both, each attempt of Retry
	// may be hedged; they share Retry's budget unless Hedge names one.
	Retry *RetryPolicy
	Hedge *HedgePolicy

	// CallLimiter bounds how many attempts this client makes, see [RateLimit]; Breaker stops them where they are in vain,
	// see [Breaker].
	CallLimiter Limiter
	Breaker     *BreakerPolicy
}

// Server is the recommended stack for handlers, outermost first:
//
//	Recover → Metrics → Tracing → Log → Timeout → AdaptiveConcurrency → VerifyIdentity → Authenticate → Concurrency → RateLimit
//	→ Validate
//
// It acts on the server's side only, so that bus.Use(Server(d), Client(d)) is right. What refuses stands before what
// decodes, so a refusal is cheap; what measures stands around what refuses, so that it is seen. docs/middleware.md has the
// reasons of the order.
func Server(d Defaults) endpoint.Middleware {
	if faults := d.serverFaults(); faults != nil {
		return endpoint.OnServer(broken("Server", faults...))
	}
	mws := []endpoint.Middleware{Recover(), d.Metrics, d.Tracing, d.log()}
	if d.Timeout != 0 {
		mws = append(mws, Timeout(d.Timeout))
	}
	if d.Adaptive != nil {
		mws = append(mws, AdaptiveConcurrency(*d.Adaptive))
	}
	if d.Identity != nil {
		mws = append(mws, VerifyIdentity(*d.Identity))
	}
	if d.Authenticate != nil {
		mws = append(mws, Authenticate(d.Authenticate))
	}
	if d.Concurrency != 0 {
		mws = append(mws, Concurrency(d.Concurrency))
	}
	if d.Limiter != nil {
		mws = append(mws, RateLimit(d.Limiter))
	}
	return endpoint.OnServer(append(mws, Validate())...)
}

// Client is the recommended stack for callers, outermost first:
//
//	Metrics → Tracing → Log → Timeout → Throttle → Retry, Hedge → RateLimit → Breaker → Tracing of the attempt
//
// It acts on the client's side only. The bound of an attempt is Retry's. The rate limit stands outside of the breaker, so
// that its verdicts never open it; both stand inside of Retry, so that they see what is really sent.
func Client(d Defaults) endpoint.Middleware {
	if faults := d.clientFaults(); faults != nil {
		return endpoint.OnClient(broken("Client", faults...))
	}
	mws := []endpoint.Middleware{d.Metrics, d.Tracing}
	l := d.layers()
	if l.log == nil {
		mws = append(mws, d.log())
	}
	if d.Timeout != 0 && l.timeout == nil {
		mws = append(mws, Timeout(d.Timeout))
	}
	if d.Throttle != nil {
		mws = append(mws, Throttle(*d.Throttle))
	}
	switch {
	case l != layers{}:
		mws = append(mws, retryWithin(l, *d.Retry))
	case d.Retry != nil && d.Hedge != nil:
		mws = append(mws, retryHedge(*d.Retry, *d.Hedge))
	case d.Retry != nil:
		mws = append(mws, Retry(*d.Retry))
	case d.Hedge != nil:
		mws = append(mws, Hedge(*d.Hedge))
	}
	if d.CallLimiter != nil {
		mws = append(mws, RateLimit(d.CallLimiter))
	}
	if d.Breaker != nil && l.breaker == nil {
		mws = append(mws, Breaker(*d.Breaker))
	}
	if d.Retry != nil || d.Hedge != nil { // without either there is one attempt, which is the call
		mws = append(mws, d.Tracing)
	}
	return endpoint.OnClient(mws...)
}

// layers are those that stand next to Retry, on either side, and become one with it.
func (d *Defaults) layers() (l layers) {
	if d.Retry == nil || d.Hedge != nil {
		return l
	}
	if d.Throttle == nil {
		if d.Log != nil {
			l.log = newLog(d.Log, d.LogOptions)
		}
		if d.Timeout != 0 {
			l.timeout = newTimeout(d.Timeout)
		}
	}
	if d.CallLimiter == nil && d.Breaker != nil {
		p := *d.Breaker
		p.complete()
		l.breaker = newBreaker(p)
	}
	return l
}

// serverFaults are those of all fields of the server's side, so that they are told at once. The policies are copies.
func (d *Defaults) serverFaults() []error {
	faults := belowZero(amount{"Timeout", float64(d.Timeout)}, amount{"Concurrency", float64(d.Concurrency)})
	if d.Adaptive != nil {
		p := *d.Adaptive
		faults = append(faults, within("Adaptive", p.complete())...)
	}
	if d.Identity != nil {
		if _, err := d.Identity.verifier(); err != nil {
			faults = append(faults, fmt.Errorf("Identity: %w", err))
		}
	}
	if d.Limiter != nil && absent(d.Limiter) {
		faults = append(faults, errors.New("Limiter is a nil pointer"))
	}
	return faults
}

// clientFaults are those of the client's side.
func (d *Defaults) clientFaults() []error {
	faults := belowZero(amount{"Timeout", float64(d.Timeout)})
	if d.Throttle != nil {
		p := *d.Throttle
		faults = append(faults, within("Throttle", p.complete())...)
	}
	if d.Retry != nil {
		p := *d.Retry
		faults = append(faults, within("Retry", p.complete())...)
	}
	if d.Hedge != nil {
		p := *d.Hedge
		faults = append(faults, within("Hedge", p.complete())...)
	}
	if d.CallLimiter != nil && absent(d.CallLimiter) {
		faults = append(faults, errors.New("CallLimiter is a nil pointer"))
	}
	if d.Breaker != nil {
		p := *d.Breaker
		faults = append(faults, within("Breaker", p.complete())...)
	}
	return faults
}

// within says which field the faults of a policy are in.
func within(field string, faults []error) []error {
	for i, f := range faults {
		faults[i] = fmt.Errorf("%s: %w", field, f)
	}
	return faults
}

func (d *Defaults) log() endpoint.Middleware {
	if d.Log == nil {
		return nil
	}
	return Log(d.Log, d.LogOptions...)
}
