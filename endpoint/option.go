package endpoint

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"postbus.example/codec"
)

// Option configures an endpoint or a caller; a [Middleware] is one too. An option that does not apply (a queue group on
// a caller, an idle timeout on a unary operation) is a fault: it is reported by Serve, and by each call of a caller.
type Option interface{ apply(*settings) }

// settings collects what options say while an endpoint or caller is made.
type settings struct {
	spec   *Spec
	side   Side
	shared bool // options of a contract that both sides read: those of the other side are skipped
	group  bool // options of a whole service: those that don't fit this field's kind are skipped
	used   map[Option]bool
	field  string // of the contract, while its own options are applied and after
	mws    []Middleware
	errs   []error
}

// fault notes what is wrong, and with which field.
func (s *settings) fault(err error) {
	if s.field != "" {
		err = fmt.Errorf("field %s: %w", s.field, err)
	}
	s.errs = append(s.errs, err)
}

type option struct {
	name  string
	side  Side // 0: both
	kinds []Kind
	set   func(*settings) error
}

func (o *option) apply(s *settings) {
	switch {
	case o.side != 0 && o.side != s.side:
		if !s.shared {
			s.fault(fmt.Errorf("option %s does not apply to the %s side", o.name, s.side))
		}
		return
	case o.kinds != nil && !slices.Contains(o.kinds, s.spec.Kind):
		if !s.group {
			s.fault(fmt.Errorf("option %s does not apply to a %v operation", o.name, s.spec.Kind))
		}
		return
	}
	if s.used != nil {
		s.used[o] = true
	}
	if err := o.set(s); err != nil {
		s.fault(fmt.Errorf("option %s: %w", o.name, err))
	}
}

func (s *settings) applyAll(opts []Option) {
	for _, o := range opts {
		if o == nil {
			s.fault(errors.New("a nil option"))
			continue
		}
		o.apply(s)
	}
}

func (m Middleware) apply(s *settings) {
	if m == nil {
		s.fault(errors.New("a nil middleware"))
		return
	}
	s.mws = append(s.mws, m)
}

type withOption []Middleware

func (w withOption) apply(s *settings) {
	for _, m := range w {
		m.apply(s)
	}
}

// With puts middleware around the endpoint or caller, the first outermost. By default there is none but the
// transport's own. It serves plain func values; a Middleware is an Option as it is.
func With(mws ...Middleware) Option { return withOption(mws) }

var streamKinds = []Kind{ServerStreamKind, ClientStreamKind, BidiStreamKind}

// ReadOnly declares that the operation has no side effects. It implies Idempotent; only such operations are served by
// HTTP GET and cached. By default an operation has side effects.
func ReadOnly() Option {
	return &option{name: "ReadOnly", set: func(s *settings) error {
		s.spec.ReadOnly, s.spec.Idempotent = true, true
		return nil
	}}
}

// Idempotent declares that doing it twice is doing it once, so that it may be retried and hedged. A caller's Retry reads
// the caller's own declaration, or the shared struct's tag. By default an operation is not idempotent.
func Idempotent() Option {
	return &option{name: "Idempotent", set: func(s *settings) error {
		s.spec.Idempotent = true
		return nil
	}}
}

// Timeout bounds a call: on the caller's side the whole call with its retries, on the server's side the handler. Of
// several bounds, the context's own among them, the smallest wins. By default the transport's default applies to calls
// whose context has no deadline.
func Timeout(d time.Duration) Option {
	return &option{name: "Timeout", set: func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("%v is not positive", d)
		}
		if s.spec.Timeout == 0 || d < s.spec.Timeout {
			s.spec.Timeout = d
		}
		return nil
	}}
}

// IdleTimeout ends a stream that carried no item for so long. By default there is no such bound.
func IdleTimeout(d time.Duration) Option {
	return &option{name: "IdleTimeout", kinds: streamKinds, set: func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("%v is not positive", d)
		}
		s.spec.IdleTimeout = d
		return nil
	}}
}

// Doc says in a sentence what the operation does; it is published. By default there is none.
func Doc(text string) Option {
	return &option{name: "Doc", side: ServerSide, set: func(s *settings) error {
		s.spec.Doc = text
		return nil
	}}
}

// Queue names the queue group, of which one instance gets each call. By default it is [DefaultQueue].
// Queue("") means none: every instance gets every call.
func Queue(group string) Option {
	return &option{name: "Queue", side: ServerSide, set: func(s *settings) error {
		s.spec.Queue = group
		if group == "" {
			return nil
		}
		return ValidateSubject(group)
	}}
}

// Concurrency bounds how many calls one instance runs at once. By default the transport's: 1,024.
func Concurrency(n int) Option {
	return &option{name: "Concurrency", side: ServerSide, set: func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("%d is not positive", n)
		}
		s.spec.Concurrency = n
		return nil
	}}
}

// Backlog bounds how many calls may wait at one instance when Concurrency calls run, and for how long; the rest is
// refused at once as resource_exhausted. By default 4,096 and one second. A wait of 0 means the default; n of 0 means
// that none may wait. What waits is counted, not weighed: it takes up to n times the largest message that the transport
// lets through, so where requests are large, n should be small.
func Backlog(n int, wait time.Duration) Option {
	return &option{name: "Backlog", side: ServerSide, set: func(s *settings) error {
		if n < 0 || wait < 0 {
			return fmt.Errorf("%d, %v: must not be negative", n, wait)
		}
		if s.spec.Backlog = n; n == 0 {
			s.spec.Backlog = -1
		}
		s.spec.BacklogWait = wait
		return nil
	}}
}

// Codec chooses the codec of one caller, or an endpoint's first choice; of an endpoint that chooses codec.Raw it is the only
// one. By default it is the transport's.
func Codec(c codec.Codec) Option {
	return &option{name: "Codec", set: func(s *settings) error {
		if c == nil {
			return errors.New("the codec is nil")
		}
		s.spec.Codec = c
		return nil
	}}
}

// Meta publishes a key and value with the endpoint. Keys that start with rpc. or _nats are taken. By default nothing
// is published besides what the transport itself says.
func Meta(key, value string) Option {
	return &option{name: "Meta", side: ServerSide, set: func(s *settings) error {
		if key == "" || len(key) >= 4 && key[:4] == "rpc." || len(key) >= 5 && key[:5] == "_nats" {
			return fmt.Errorf("the key %q is empty or reserved", key)
		}
		if s.spec.Meta == nil {
			s.spec.Meta = map[string]string{}
		}
		s.spec.Meta[key] = value
		return nil
	}}
}

// Quorum ends a gather when n instances gave a good reply; the calls of the others are canceled, and none of them is missing.
// By default, and when there are not so many, it ends when all known instances answered.
func Quorum(n int) Option {
	return &option{name: "Quorum", side: ClientSide, kinds: []Kind{GatherKind}, set: func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("%d is not positive", n)
		}
		s.spec.Quorum = n
		return nil
	}}
}

// First ends a gather at its first good reply: Quorum(1).
func First() Option { return Quorum(1) }

// Stall ends a gather when no reply came for so long, counted from its start and from when the consumer took the last one; who is
// known and did not answer is missing. By default the transport's: none where the instances are known, so that the deadline
// alone ends a gather of which one is silent.
func Stall(d time.Duration) Option {
	return &option{name: "Stall", side: ClientSide, kinds: []Kind{GatherKind}, set: func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("%v is not positive", d)
		}
		s.spec.Stall = d
		return nil
	}}
}

// build applies options to a fresh spec and returns the collected settings.
func build(side Side, k Kind, req, resp reflect.Type, opts []Option) *settings {
	s := &settings{spec: newSpec(k, req, resp), side: side}
	s.applyAll(opts)
	return s
}
