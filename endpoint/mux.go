package endpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"postbus.example/codec"
)

// Mux is an in-memory transport: it serves and calls without a broker, with the real codecs, limits, deadlines and
// errors, all four kinds. It is for unit tests, and for bridges in front of endpoints of the same process. A handler gets
// the caller's deadline and cancellation, and none of its context values. It is safe for concurrent use.
type Mux struct {
	id, name, version string
	set               codec.Set
	timeout           time.Duration
	errs              []error // faults of the options, told by Serve

	mu  sync.RWMutex
	ops map[string]*muxOp
	mws []Middleware
}

var (
	_ Transport     = (*Mux)(nil)
	_ Server        = (*Mux)(nil)
	_ Directory     = (*Mux)(nil)
	_ StatsReporter = (*Mux)(nil)
)

// MuxOption configures a Mux.
type MuxOption func(*Mux)

// MuxCodecs sets the codecs that callers and endpoints may use, the default first. By default codec.JSON alone.
func MuxCodecs(first codec.Codec, more ...codec.Codec) MuxOption {
	return func(m *Mux) {
		if m.set = codec.NewSet(first).With(more...); m.set.Len() == 0 {
			m.errs = append(m.errs, errors.New("MuxCodecs: there is no codec"))
		}
	}
}

// MuxName sets one service name and version for all that is served. By default the name comes from each subject and the
// version is 0.0.0.
func MuxName(name, version string) MuxOption {
	return func(m *Mux) {
		v, err := ParseVersion(version)
		m.name, m.version, m.errs = name, v, append(m.errs, ValidateServiceName(name), err)
	}
}

// MuxTimeout bounds unary calls whose context has no deadline; 0 means not at all. By default 10 seconds.
func MuxTimeout(d time.Duration) MuxOption { return func(m *Mux) { m.timeout = d } }

// NewMux makes an empty Mux. Faults of its options are told by Serve.
func NewMux(opts ...MuxOption) *Mux {
	m := &Mux{id: rand.Text()[:20], version: "0.0.0", set: codec.NewSet(codec.JSON), timeout: 10 * time.Second, ops: map[string]*muxOp{}}
	for _, o := range opts {
		if o == nil {
			m.errs = append(m.errs, errors.New("a nil option"))
			continue
		}
		o(m)
	}
	return m
}

// Use puts middleware outermost around every handler and caller made from now on.
func (m *Mux) Use(mws ...Middleware) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mws = append(m.mws, mws...)
}

// Middleware returns what Use was given, for callers.
func (m *Mux) Middleware() Middleware {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return Chain(slices.Clone(m.mws)...)
}

// Codec returns the default codec.
func (m *Mux) Codec() codec.Codec { return m.set.Default() }

// DefaultTimeout returns what bounds unary calls whose context has no deadline.
func (m *Mux) DefaultTimeout() time.Duration { return m.timeout }

// Serve serves an endpoint on a subject, or a service's endpoints below it: all or nothing. Faults of construction, a bad
// or taken subject and types that no codec can carry are refused, all at once.
func (m *Mux) Serve(subject string, s Servable) error {
	if s == nil {
		return InvalidArgument.Errorf("serve %.80q: nothing to serve", subject).WithReason(ReasonConstruction).WithOutcome(NotSent)
	}
	mw := m.Middleware()
	ops := map[string]*muxOp{}
	errs := slices.Clone(m.errs)
	eps := s.Endpoints()
	if len(eps) == 0 {
		errs = append(errs, errors.New("nothing to serve"))
	}
	for _, ep := range eps { // not under the lock: constructors of middleware are the user's code
		op, err := m.newOp(subject, ep, mw)
		switch {
		case err != nil:
			errs = append(errs, err)
		case ops[op.subject] != nil:
			errs = append(errs, fmt.Errorf("subject %q is there twice", op.subject))
		default:
			ops[op.subject] = op
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, taken := range slices.Sorted(maps.Keys(ops)) {
		if m.ops[taken] != nil {
			errs = append(errs, fmt.Errorf("subject %q is served already", taken))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return InvalidArgument.Wrap(err, fmt.Sprintf("serve %.80q: %v", subject, err)).WithReason(ReasonConstruction).WithOutcome(NotSent)
	}
	maps.Copy(m.ops, ops)
	return nil
}

// Identity derives the names of an endpoint from its subject: under the given service name, or the subject's own.
func Identity(service, subject string) (string, string) {
	if service != "" {
		return service, EndpointName(subject)
	}
	return ServiceName(subject), EndpointName(subject[strings.LastIndexByte(subject, '.')+1:])
}

func (m *Mux) newOp(base string, ep *Endpoint, mw Middleware) (*muxOp, error) {
	if ep == nil || ep.spec == nil {
		return nil, errors.New("the endpoint is nil")
	}
	if err := ep.Err(); err != nil {
		return nil, err
	}
	subject := ep.Subject(base)
	if err := ValidateSubject(subject); err != nil {
		return nil, err
	}
	ep = ep.Bind(Identity(m.name, subject)).With(mw)
	set, err := ep.spec.Codecs(m.set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	info, err := ep.spec.Info(subject, set.Names())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	if ep.handler == nil {
		return nil, fmt.Errorf("%s: %w", subject, errNilHandler)
	}
	op := &muxOp{base: base, subject: subject, spec: ep.spec, handler: ep.Handler(), codecs: set, info: info, id: m.id}
	op.limit(ep.spec)
	return op, nil
}

// Stop takes away what Serve was given for the subject and waits until what runs has ended; it may be served again.
func (m *Mux) Stop(ctx context.Context, subject string) error {
	m.mu.Lock()
	var gone []*muxOp
	for s, op := range m.ops {
		if op.base == subject {
			delete(m.ops, s)
			gone = append(gone, op)
		}
	}
	m.mu.Unlock()
	if len(gone) == 0 {
		return NotFound.Errorf("nothing is served on %.80q", subject)
	}
	for _, op := range gone {
		if err := op.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Discover returns the services of this Mux as one instance each; an empty name means all.
func (m *Mux) Discover(ctx context.Context, name string) ([]Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextFault(ctx, err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	services := map[string]*Instance{}
	var out []Instance
	for _, op := range m.sorted() {
		service := op.spec.Service
		if name != "" && name != service {
			continue
		}
		if services[service] == nil {
			services[service] = &Instance{Service: service, ID: m.id, Version: m.version}
		}
		services[service].Endpoints = append(services[service].Endpoints, op.info.clone())
	}
	for _, i := range services {
		out = append(out, *i)
	}
	slices.SortFunc(out, func(a, b Instance) int { return strings.Compare(a.Service, b.Service) })
	return out, nil
}

// Ready returns nil: a Mux is always usable.
func (m *Mux) Ready(context.Context) error { return nil }

// Stats returns the counters of each endpoint, by subject, and an entry for the Mux itself.
func (m *Mux) Stats() []Stats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []Stats
	for _, op := range m.sorted() {
		s := op.meter.Stats()
		s.Service, s.Name, s.Subject = op.spec.Service, op.spec.Name, op.subject
		out = append(out, s)
	}
	return append(out, Stats{})
}

func (m *Mux) sorted() []*muxOp {
	ops := make([]*muxOp, 0, len(m.ops))
	for _, op := range m.ops {
		ops = append(ops, op)
	}
	slices.SortFunc(ops, func(a, b *muxOp) int { return strings.Compare(a.subject, b.subject) })
	return ops
}

// Handler calls what is served on the subject. A bad subject makes a handler that says so.
func (m *Mux) Handler(subject string, s *Spec) Handler {
	if err := ValidateSubject(subject); err != nil {
		fault := InvalidArgument.Wrap(err, err.Error()).WithOutcome(NotSent)
		return func(context.Context, *Call) (any, error) { return nil, fault }
	}
	return func(ctx context.Context, c *Call) (any, error) {
		op := m.enter(subject, InstanceFrom(ctx))
		if op == nil {
			return nil, Unavailable.Errorf("nobody serves %s", subject).WithReason(ReasonNoResponders).WithOutcome(NotExecuted)
		}
		defer op.running.Done()
		return op.call(ctx, c, m.set)
	}
}

// enter finds what is served on the subject and counts the call; under the lock, so that Stop misses none.
func (m *Mux) enter(subject, instance string) *muxOp {
	m.mu.RLock()
	defer m.mu.RUnlock()
	op := m.ops[subject]
	if op == nil || instance != "" && instance != m.id {
		return nil
	}
	op.running.Add(1)
	return op
}

// servedKind is the kind that a caller's kind needs at the server.
func servedKind(k Kind) Kind {
	if k == GatherKind {
		return UnaryKind
	}
	return k
}
