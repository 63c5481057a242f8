package middleware

import (
	"fmt"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// action is what the law says about a failed attempt.
type action uint8

const (
	tryNever action = iota
	tryQuick        // once, soon
	tryOnBudget
)

// law is the table of Retry. late tells that the attempt's own deadline passed.
func law(err error, idempotent, late bool) action {
	var reason string
	var advice time.Duration
	remote := false
	if e, ok := find(err); ok {
		reason, advice, remote = e.Reason(), e.RetryAfter, e.Remote()
	}
	switch reason {
	case endpoint.ReasonBreakerOpen, endpoint.ReasonLocalLimit, endpoint.ReasonRateLimited:
		return tryNever // a limiter's verdict is for the caller
	}
	if advice < 0 {
		return tryNever
	}
	code := endpoint.CodeOf(err)
	switch endpoint.OutcomeOf(err) {
	case endpoint.NotSent, endpoint.NotExecuted:
		switch {
		case code == endpoint.Unavailable && reason == endpoint.ReasonNoResponders:
			return tryQuick
		case code == endpoint.Unavailable, code == endpoint.ResourceExhausted && advice > 0:
			return tryOnBudget
		}
	default:
		// A Timeout inside of Retry bounds the attempt as well; the peer's own timeout is another matter.
		late = late || reason == endpoint.ReasonTimeout && !remote
		if idempotent && (code == endpoint.Unavailable || code == endpoint.Aborted || code == endpoint.DeadlineExceeded && late) {
			return tryOnBudget
		}
	}
	return tryNever
}

// missing tells the failures that WaitForService waits out: there is nobody, or no way to anybody.
func missing(err error) bool {
	e, ok := find(err)
	if !ok || e.Code != endpoint.Unavailable || e.RetryAfter < 0 {
		return false
	}
	return (e.Outcome() == endpoint.NotSent || e.Outcome() == endpoint.NotExecuted) &&
		(e.Reason() == endpoint.ReasonNoResponders || e.Reason() == endpoint.ReasonDisconnected)
}

// reached tells that an attempt met a service, whatever it said.
func reached(err error) bool {
	if e, ok := find(err); ok && e.Remote() {
		return true
	}
	o := endpoint.OutcomeOf(err)
	return o == endpoint.Executed || o == endpoint.MaybeExecuted
}

// rank orders outcomes by what may have happened, for the truth about several attempts.
func rank(o endpoint.Outcome) int {
	switch o {
	case endpoint.NotSent:
		return 0
	case endpoint.NotExecuted:
		return 1
	case endpoint.Executed:
		return 3
	default:
		return 2
	}
}

// RetryError is the cause of the error that [Retry] returns after more than one attempt. errors.As and errors.Is find the
// last attempt's error through it.
type RetryError struct {
	// Attempts are those made, in order. Of more than 16 (a long wait for a service) the first and the last eight are kept.
	Attempts []RetryAttempt
	// Total is how many were made.
	Total int
}

// RetryAttempt is one failed attempt.
type RetryAttempt struct {
	Attempt  int    // its number, 0 for the first
	Instance string // who answered, "" if unknown
	Took     time.Duration
	Err      error
}

const keptAttempts = 8 // at each end

func (e *RetryError) add(a RetryAttempt) {
	e.Total++
	if len(e.Attempts) == 2*keptAttempts {
		copy(e.Attempts[keptAttempts:], e.Attempts[keptAttempts+1:])
		e.Attempts = e.Attempts[:2*keptAttempts-1]
	}
	e.Attempts = append(e.Attempts, a)
}

// Error lists the attempts.
func (e *RetryError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "attempts: %d", e.Total)
	for i, a := range e.Attempts {
		if missing := e.Total - len(e.Attempts); i == keptAttempts && missing > 0 {
			fmt.Fprintf(&b, "; %d more", missing)
		}
		fmt.Fprintf(&b, "; %v, after %v", a.Err, a.Took)
		if a.Instance != "" {
			b.WriteString(" at " + a.Instance)
		}
	}
	return b.String()
}

// Unwrap returns the last attempt's error.
func (e *RetryError) Unwrap() error {
	if len(e.Attempts) == 0 {
		return nil
	}
	return e.Attempts[len(e.Attempts)-1].Err
}
