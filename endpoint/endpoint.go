package endpoint

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Endpoint is an operation ready to be served. It is immutable and safe for concurrent use; the constructors never fail,
// their faults are reported by Serve and by Err.
type Endpoint struct {
	spec    *Spec
	handler Handler // the function with its middleware around it
	err     error
	dressed bool // there is middleware
}

// Servable is what a server takes: one endpoint, or the group of a service.
type Servable interface{ Endpoints() []*Endpoint }

// Transport is where operations are called; *bus.Bus and *Mux are transports. Handler is bare and never nil: callers
// compose, outermost first, the transport's own middleware, the caller's options and then Handler. A transport may also
// have the methods
//
//	Middleware() endpoint.Middleware  // around every handler and caller
//	Codec() codec.Codec               // for callers that choose none; JSON without it
//	DefaultTimeout() time.Duration    // for callers whose context has no deadline; none without it
type Transport interface {
	Handler(subject string, s *Spec) Handler
}

// Server is where operations are served. An endpoint of a service is served below the subject, by its name.
type Server interface {
	Serve(subject string, s Servable) error
}

// Spec returns what is known of the operation. It must not be changed.
func (e *Endpoint) Spec() *Spec { return e.spec }

// Err returns all faults of construction, joined; nil if there are none.
func (e *Endpoint) Err() error { return e.err }

// Handler returns the operation with its middleware around it, nil if a middleware returned none. It is for transports.
func (e *Endpoint) Handler() Handler { return seal(e.handler) }

// Bare reports whether no middleware is around the function. It is for transports.
func (e *Endpoint) Bare() bool { return !e.dressed }

// Endpoints returns e alone.
func (e *Endpoint) Endpoints() []*Endpoint { return []*Endpoint{e} }

// With returns a copy of e behind more middleware, the first outermost.
func (e *Endpoint) With(mws ...Middleware) *Endpoint {
	n := *e
	n.handler = Chain(mws...)(e.handler)
	n.dressed = e.dressed || some(mws)
	return &n
}

// Bind returns a copy of e that knows the service and the name it is served under. It is for transports.
func (e *Endpoint) Bind(service, name string) *Endpoint {
	n := *e
	s := *e.spec
	s.Service, s.Name = service, name
	n.spec = &s
	return &n
}

// Subject returns where e is served when Serve was given a base: below it for an endpoint of a service.
func (e *Endpoint) Subject(base string) string {
	if e.spec.Name == "" {
		return base
	}
	return base + "." + e.spec.Name
}

// newEndpoint finishes the construction: f runs the user's function on the call.
func newEndpoint(s *settings, isNil bool, core Handler) *Endpoint {
	if isNil {
		s.fault(fmt.Errorf("the function of the %v endpoint is nil", s.spec.Kind))
	}
	h := Chain(s.mws...)(core)
	if h == nil {
		s.fault(errNilHandler)
	}
	return &Endpoint{spec: s.spec, handler: h, err: errors.Join(s.errs...), dressed: some(s.mws)}
}

var errNilHandler = errors.New("a middleware returned a nil handler")

// PanicError is the cause of the internal error that a panic became.
type PanicError struct {
	Value any
	Stack []byte // its innermost calls, at most 8 KiB
	Func  string // the function that panicked, as main.authorize.func1; "" if unknown
}

// Error names the value and the function; the stack is for logs that want it.
func (p *PanicError) Error() string {
	if p.Func == "" {
		return fmt.Sprintf("panic: %v", p.Value)
	}
	return fmt.Sprintf("panic in %s: %v", p.Func, p.Value)
}

// Recovered makes the error of a recovered panic: internal, without text for the peer. It is for transports and
// middleware, called from the deferred function so that the stack is the panic's.
func Recovered(p any) *Error {
	return &Error{Code: Internal, reason: ReasonPanic, cause: newPanicError(p)}
}

func newPanicError(p any) *PanicError {
	stack := make([]byte, maxStack)
	return &PanicError{Value: p, Stack: stack[:runtime.Stack(stack, false)], Func: panicName()}
}

// maxStack bounds the stack of a panic, whose innermost calls come first. One that fits is written once: debug.Stack does it anew
// for each size that it tries, which costs others when thousands panic.
const maxStack = 8 << 10

// enter marks that the user's function runs from here on, and makes sure that it finds its call in the context.
func (c *Call) enter(ctx context.Context) context.Context {
	c.root.entered.Store(true)
	if x, ok := ctx.(*callContext); ok && x.call == c { // asks for nothing
		return ctx
	}
	if ctx.Value(callKey{}) == any(c) {
		return ctx
	}
	return context.WithValue(ctx, callKey{}, c)
}

// leave is deferred around the user's function: it turns a panic into an error, and stamps every error Executed.
func (c *Call) leave(err *error) {
	if p := recover(); p != nil {
		*err = Recovered(p).WithOutcome(Executed)
	}
}
