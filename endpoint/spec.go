package endpoint

import (
	"errors"
	"reflect"
	"time"

	"postbus.example/codec"
)

// Kind is the shape of an operation.
type Kind uint8

// The kinds, visible on the wire by name; append-only.
const (
	UnaryKind        Kind = iota // one request, one reply
	ServerStreamKind             // one request, many replies
	ClientStreamKind             // many requests, one reply
	BidiStreamKind               // many of both
	GatherKind                   // one request, one reply of each instance; callers only
)

var kindNames = [...]string{"unary", "server_stream", "client_stream", "bidi_stream", "gather"}

// String returns the name: server_stream.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// ParseKind finds a kind by its name.
func ParseKind(name string) (Kind, bool) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), true
		}
	}
	return UnaryKind, false
}

// StreamsIn reports whether the request is a stream.
func (k Kind) StreamsIn() bool { return k == ClientStreamKind || k == BidiStreamKind }

// StreamsOut reports whether the reply is a stream.
func (k Kind) StreamsOut() bool {
	return k == ServerStreamKind || k == BidiStreamKind || k == GatherKind
}

// Side tells on which side of a call a middleware runs.
type Side uint8

// The two sides.
const (
	ServerSide Side = iota + 1
	ClientSide
)

// String returns server or client.
func (s Side) String() string {
	switch s {
	case ServerSide:
		return "server"
	case ClientSide:
		return "client"
	default:
		return "unknown"
	}
}

// Spec is what is known of an operation before any call: its types and its policy. It is immutable once its endpoint or
// caller is made, and shared by all calls.
type Spec struct {
	Service, Name string // set when it is served or called; names for metrics never come from the wire
	Doc           string
	Queue         string // queue group, "q" by default; "": every instance gets every call
	Kind          Kind
	Request       reflect.Type
	Response      reflect.Type
	Idempotent    bool
	ReadOnly      bool
	Timeout       time.Duration // 0: the transport's default
	IdleTimeout   time.Duration // streams; 0: none
	Concurrency   int           // 0: the transport's default
	Backlog       int           // 0: the transport's default; negative: none may wait
	BacklogWait   time.Duration // 0: the transport's default
	Codec         codec.Codec   // nil: the transport's default
	Meta          map[string]string

	Quorum int           // gather: enough good replies; 0: all that are known
	Stall  time.Duration // gather: silence that ends it; 0: the transport's default

	declared        []declaration
	newReq          func() any
	newResp         func() any
	reply           reflect.Type // the type of the message that a chain returns; nil if it returns none, or for any
	reqPtr          bool         // the Go types are pointers already
	respPtr         bool
	reqPay, respPay bool // *codec.Payload, which passes every codec
}

// NewRequest allocates a request message to decode into: always a pointer.
func (s *Spec) NewRequest() any { return newMessage(s.newReq, s.Request) }

// NewResponse allocates a reply message to decode into: always a pointer.
func (s *Spec) NewResponse() any { return newMessage(s.newResp, s.Response) }

// newMessage serves a Spec that was written by hand too; one without types takes anything.
func newMessage(alloc func() any, t reflect.Type) any {
	if alloc != nil {
		return alloc()
	}
	if t == nil {
		return new(any)
	}
	alloc, _ = constructor(t)
	return alloc()
}

// Errors returns the names and codes of the declared errors, in order, as a new slice.
func (s *Spec) Errors() []DeclaredError {
	out := make([]DeclaredError, len(s.declared))
	for i, d := range s.declared {
		out[i] = DeclaredError{Name: d.name, Code: d.code}
	}
	return out
}

// DeclaredError is an error that an operation declares with [Errors] or [ErrorValue], as others see it.
type DeclaredError struct {
	Name string
	Code Code
}

// Codecs returns those of accepted that can carry both messages, the endpoint's own choice first. A message type that
// none of them can encode, nested parts included, is an error that names type and path. An endpoint that chose codec.Raw
// takes nothing else.
func (s *Spec) Codecs(accepted codec.Set) (codec.Set, error) {
	var cs []codec.Codec
	if s.Codec != nil {
		if err := s.checkTypes(s.Codec); err != nil {
			return codec.Set{}, err
		}
		cs = append(cs, s.Codec)
	}
	if s.Codec == codec.Raw { // bytes are meant as they are: bare ones must not be read as something else
		return codec.NewSet(cs...), nil
	}
	var fault error
	for _, name := range accepted.Names() {
		c, _ := accepted.Lookup(name)
		if err := s.checkTypes(c); err != nil {
			if fault == nil {
				fault = err // that of the default is the one to show
			}
			continue
		}
		cs = append(cs, c)
	}
	if len(cs) == 0 {
		if fault == nil {
			fault = errors.New("no codec is accepted")
		}
		return codec.Set{}, fault
	}
	return codec.NewSet(cs...), nil
}

func (s *Spec) checkTypes(c codec.Codec) error {
	checker, ok := c.(codec.TypeChecker)
	if !ok {
		return nil
	}
	if !s.reqPay {
		if err := checker.CheckType(s.Request); err != nil {
			return err
		}
	}
	if !s.respPay {
		return checker.CheckType(s.Response)
	}
	return nil
}

// DefaultQueue is the queue group of an endpoint that names none.
const DefaultQueue = "q"

func newSpec(k Kind, req, resp reflect.Type) *Spec {
	s := &Spec{Kind: k, Request: req, Response: resp, Queue: DefaultQueue}
	s.newReq, s.reqPtr = constructor(req)
	s.newResp, s.respPtr = constructor(resp)
	s.reqPay, s.respPay = isPayload(req), isPayload(resp)
	if !k.StreamsOut() {
		s.reply = messageType(resp)
	}
	return s
}

func constructor(of reflect.Type) (func() any, bool) {
	t, ptr := of, of.Kind() == reflect.Pointer
	if ptr {
		t = t.Elem()
	}
	if ptr && of.Name() != "" { // type P *T: the message must be a P
		return func() any { return reflect.New(t).Convert(of).Interface() }, ptr
	}
	return func() any { return reflect.New(t).Interface() }, ptr
}

func isPayload(t reflect.Type) bool {
	return t == reflect.TypeFor[*codec.Payload]() || t == reflect.TypeFor[codec.Payload]()
}

// messageType returns the type that the message of t has inside: always a pointer.
func messageType(t reflect.Type) reflect.Type {
	if t == nil || t.Kind() == reflect.Pointer {
		return t
	}
	return reflect.PointerTo(t)
}

// box and unbox pass between a typed value and the pointer that untyped code handles. With pointer types they cost
// nothing, and all instantiations share one body.
func box[T any](v T, ptr bool) any {
	if ptr {
		return v
	}
	return ref(v)
}

// ref stays out of box so that a pointer does not escape needlessly.
//
//go:noinline
func ref[T any](v T) any { return &v }

func unbox[T any](m any, ptr bool) (v T, ok bool) {
	if ptr {
		v, ok = m.(T)
		return v, ok
	}
	p, ok := m.(*T)
	if !ok || p == nil {
		return v, false
	}
	return *p, true
}

// isNil reports whether a boxed message is nothing at all.
func isNil(m any) bool {
	if m == nil {
		return true
	}
	v := reflect.ValueOf(m)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// noRequest reports whether a boxed request is nothing at all, or a nil interface. Slices and maps are values that may be
// nil; so is what a peer's null becomes, which was sent on purpose.
func noRequest(m any) bool {
	if isNil(m) {
		return true
	}
	v := reflect.ValueOf(m).Elem()
	return v.Kind() == reflect.Interface && v.IsNil()
}
