package endpoint

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
)

// place is where an attempt is in its chain: how many guards it is inside of, and how many it ever was; and who is told the
// time, one more than where that one stands, see Now.
type place struct{ at, deepest, clock uint16 }

// guard stands between two middlewares of a chain and holds the outer one to calling next once, the inner one to returning
// a reply of the right type. What is wrong fails the call as internal; the cause names the function, for the log.
//
// An attempt passes each guard once. Whoever calls next again enters at a depth where the attempt has been before; whoever
// wants to try again makes a new attempt with [Call.Retry].
//
// While a call waits, all guards of its chain stand on its stack: so there is never one directly inside of another, and
// the innermost does what a caller's transport needs. What stands around inner is of the same caller.
func guard(h, inner Handler) Handler {
	if h == nil || guards(h) {
		return h
	}
	return guardOf(h, nil, isCallers(inner))
}

// guardOf is guard, of a caller's transport where k is not nil. Not inlined, it is one function wherever it is called, by which
// guards are known.
//
//go:noinline
func guardOf(h Handler, k *caller, callers bool) Handler {
	return func(ctx context.Context, c *Call) (any, error) {
		if c == nil { // see isCallers
			return callers, nil
		}
		at := c.place.at
		if at < c.place.deepest {
			return nil, c.again()
		}
		if at < math.MaxUint16 {
			c.place.at, c.place.deepest = at+1, at+1
		}
		if k != nil {
			k.attempt(c)
		}
		reply, err := h(ctx, c)
		c.place = place{at: at, deepest: c.place.deepest}
		switch {
		case err == nil:
			return c.judge(h, reply)
		case k != nil:
			return nil, k.received(err)
		}
		return reply, err
	}
}

// guards reports whether a handler is a guard.
func guards(h Handler) bool {
	return reflect.ValueOf(h).Pointer() == reflect.ValueOf(guardOf(nil, nil, false)).Pointer()
}

// isCallers reports whether a handler is a guard in the chain of a caller, which it says when it is asked without a call. Then it
// is known while the chain is made what is of no use in it.
func isCallers(h Handler) bool {
	if h == nil || !guards(h) {
		return false
	}
	is, _ := h(nil, nil) // without a call there is no context
	return is == any(true)
}

// again is the fault of who called next twice. It is not inlined: a chain has a guard for each middleware, and while the call
// waits they all stand on its stack.
//
//go:noinline
func (c *Call) again() error { return c.misused(nil, errors.New(callerName()+" called next twice")) }

// judge looks at what a handler of the chain returned without an error. It must not return a nil *Error as an error.
func (c *Call) judge(h Handler, reply any) (any, error) {
	if reply == c.replyMsg && reply != nil { // the message that travelled is of the type
		return reply, nil
	}
	if c.Spec == nil || c.Spec.reply == nil || isMessage(reply, c.Spec.reply) {
		return reply, nil
	}
	e := Internal.Errorf("a middleware replied with %T, want %v", reply, c.Spec.reply)
	return reply, c.misused(e, fmt.Errorf("%s replied with %T, want %v", funcName(h), reply, c.Spec.reply))
}

// misused notes the first fault of a chain, so that no middleware can hide it, and returns it.
func (c *Call) misused(e *Error, cause error) error {
	if e == nil {
		e = Internal.New("")
	}
	e = e.WithCause(cause)
	if c.Side == ServerSide {
		e = e.WithOutcome(c.outcome())
	}
	if c.fault == nil {
		c.fault = e
	}
	return e
}

// seal is the outermost guard of a chain: no fault that was noted inside gets past it.
func seal(h Handler) Handler {
	if h == nil {
		return nil
	}
	return func(ctx context.Context, c *Call) (any, error) {
		reply, err := h(ctx, c)
		return c.sealed(h, reply, err)
	}
}

// sealed is what gets past the seal of what a chain returned.
func (c *Call) sealed(h Handler, reply any, err error) (any, error) {
	switch {
	case c.fault != nil:
		return nil, c.fault
	case err != nil:
		return nil, err
	case c.Side == ServerSide && c.Spec.Kind.StreamsOut() && !c.root.entered.Load() && !c.Committed():
		return nil, c.misused(nil, fmt.Errorf("%s, or a middleware inside of it, ended a stream and never called next", funcName(h)))
	}
	if _, err = c.judge(h, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// funcName is the name of a function for people, without the path of its package: main.authorize.func1.
func funcName(f any) string {
	if fn := runtime.FuncForPC(reflect.ValueOf(f).Pointer()); fn != nil {
		return baseName(fn.Name())
	}
	return "a middleware"
}

// callerName is the name of the function that called the guard.
func callerName() string {
	const guarded = 4 // Callers, callerName, again, guard
	var pc [1]uintptr
	frame, _ := runtime.CallersFrames(pc[:runtime.Callers(guarded, pc[:])]).Next()
	return baseName(frame.Function)
}

// panicName is the name of the function that panicked, asked while its frames are still there. Of a panic that was
// recovered and thrown again the deepest one counts.
func panicName() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	name, after := "", false
	for {
		frame, more := frames.Next()
		switch {
		case frame.Function == "runtime.gopanic":
			after = true
		case after && !strings.HasPrefix(frame.Function, "runtime."):
			name, after = baseName(frame.Function), false
		}
		if !more {
			return name
		}
	}
}

func baseName(function string) string { return function[strings.LastIndexByte(function, '/')+1:] }
