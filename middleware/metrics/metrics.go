package metrics

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
)

// Option configures [New].
type Option func(*settings)

type settings struct {
	methods int
	faults  []error
}

// defaultMethods is how many methods of a side have time series of their own.
const defaultMethods = 1000

// MaxMethods bounds the distinct values of rpc_method that one middleware value makes on each side; calls of further
// methods are counted together, as "_OTHER". By default 1,000. Less than 1 is a fault: each call is refused.
func MaxMethods(n int) Option {
	return func(s *settings) {
		if s.methods = n; n < 1 {
			s.faults = append(s.faults, fmt.Errorf("MaxMethods(%d): at least 1 is needed", n))
		}
	}
}

// New measures the calls it surrounds: how long they took, by method and code, how many are in flight, and how large
// requests and replies are. The table in the package's documentation has the names and labels.
//
// It acts on both sides and on all kinds. A stream is counted once, when it ends, with its code; one that its consumer
// leaves is canceled. On the server's side the code is what the peer is told. A panic that passes through is counted as
// internal and goes on. What stands outside of New is not seen by it: outermost it measures calls, inside of a retry
// attempts. It measures from where it stands; the time a request waited for its turn is in [Collector]'s latency.
//
// Method names come from registration and from the subjects of callers, never from the wire. A program that makes callers
// for subjects it was given by strangers is bounded by [MaxMethods].
//
// A call with a traceparent that says sampled leaves its trace id as the exemplar of its duration.
//
// The metrics are registered here; a second New on the same registerer, for another bus, adds to the same ones. A metric
// of the same name with other labels, help or kind is a fault: each call is refused, and the error names it. A nil
// registerer measures nothing. Registering under other labels is what [prometheus.WrapRegistererWith] does.
//
// The good path allocates nothing and costs about a quarter of a microsecond. A failure adds what it takes to find out what
// the peer is told, two allocations at the server; an exemplar adds a microsecond and a dozen small ones.
func New(reg prometheus.Registerer, opts ...Option) endpoint.Middleware {
	if absent(reg) {
		return endpoint.Chain()
	}
	s := settings{methods: defaultMethods}
	for _, o := range opts {
		if o != nil {
			o(&s)
		}
	}
	server, serverFaults := newSide(reg, serverPrefix, s.methods)
	client, clientFaults := newSide(reg, clientPrefix, s.methods)
	if err := errors.Join(append(s.faults, serverFaults, clientFaults)...); err != nil {
		return endpoint.Faulty(fmt.Errorf("metrics.New: %w", err))
	}
	return func(next endpoint.Handler) endpoint.Handler {
		return (&binding{server: server, client: client, next: next}).handler()
	}
}

// absent reports whether an interface holds nothing, or a nil pointer.
func absent(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}

// binding is the middleware around one endpoint or caller.
type binding struct {
	server, client *side
	next           endpoint.Handler
	bound          atomic.Pointer[bound]
}

// bound remembers the time series of a method: one endpoint is served under one name, as a rule.
type bound struct {
	service, name string
	side          endpoint.Side
	series        *series
}

func (b *binding) of(c *endpoint.Call) *series {
	if n := b.bound.Load(); n != nil && n.side == c.Side && n.service == c.Spec.Service && n.name == c.Spec.Name {
		return n.series
	}
	s := b.client
	if c.Side == endpoint.ServerSide {
		s = b.server
	}
	n := &bound{service: c.Spec.Service, name: c.Spec.Name, side: c.Side}
	n.series = s.of(n.service, n.name)
	b.bound.Store(n)
	return n.series
}

// errGone is the error of a call that did not return: it panicked, or ended its goroutine.
var errGone = endpoint.Internal.New("").WithReason(endpoint.ReasonPanic)

func (b *binding) handler() endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (reply any, err error) {
		s, start := b.begin(c)
		err = errGone                           // until next returned
		defer func() { s.end(c, start, err) }() // it recovers nothing: a panic goes on, with the stack it has
		reply, err = b.next(ctx, c)
		return reply, err
	}
}

// begin counts a call in. It is not inlined: what is on the stack of handler is there while the call waits.
//
//go:noinline
func (b *binding) begin(c *endpoint.Call) (*series, time.Time) {
	s := b.of(c)
	s.inFlight.Inc()
	return s, c.Now()
}

// codes is the number of codes there are: Unauthenticated is the last one. A test watches that it stays so.
const codes = endpoint.Unauthenticated + 1

// codeOf returns the code of a call: as the peer is told, on the server's side.
func codeOf(c *endpoint.Call, err error) endpoint.Code {
	if err == nil {
		return endpoint.OK
	}
	var code endpoint.Code
	if c.Side == endpoint.ServerSide {
		code = c.Verdict(err).Code
	} else {
		code = endpoint.CodeOf(err)
	}
	if code == endpoint.OK || code >= codes { // an error without a code of one
		return endpoint.Unknown
	}
	return code
}
