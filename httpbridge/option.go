package httpbridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"time"

	"postbus.example/internal/identity"
)

// Option configures a [Bridge]. Faults of options are joined and returned by [Bridge.Err].
type Option func(*settings)

// settings collects what the options say.
type settings struct {
	exact    []string
	patterns []string
	routes   []*route
	rpc      string // the path of JSON-RPC
	openapi  *Info
	own      map[string]string // paths that the bridge answers itself, and by which option
	limits   Limits
	timeouts Timeouts
	in, out  headerList
	auth     func(*http.Request) (context.Context, error)
	may      func(context.Context, string) error
	signer   *identity.Signer
	cors     *cors
	log      *slog.Logger
	errs     []error

	protocols []func(Limits) Protocol
}

func (s *settings) fault(option string, err error) {
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("%s: %w", option, err))
	}
}

// claim notes that the bridge answers a path itself.
func (s *settings) claim(option, path string) {
	if by, taken := s.own[path]; taken {
		s.fault(option, fmt.Errorf("the bridge answers %s already%s", path, by))
		return
	}
	s.own[path] = ", by " + option
}

// clashes finds what was named exactly and can't be reached, because the bridge answers its path itself.
func (s *settings) clashes() {
	for _, subject := range s.exact {
		if by := s.own["/"+strings.ReplaceAll(subject, ".", "/")]; by != "" {
			s.fault("Expose", fmt.Errorf("subject %q can't be reached: the bridge answers its path itself%s", subject, by))
		}
	}
}

// Limits bound what one bridge takes upon itself. A zero field means its default; a negative one is a fault.
type Limits struct {
	// Body is the largest request body in bytes, before and after decompression. By default 1 MiB, as much as a NATS
	// server takes; what is over the transport's own limit is refused as 413, too.
	Body int

	// Header is what the headers of a request may weigh in all: names, values and four bytes a line. By default 8 KiB.
	Header int

	// Concurrent is how many calls run at once, those included whose body is being read; more are refused with 429. By
	// default 1,024.
	Concurrent int

	// PerConnection is how many calls run at once on one connection of HTTP/2, of which HTTP/1.1 runs one at a time; more
	// are refused with 429. Connections are told apart by Request.RemoteAddr, which a server fills in. By default 100.
	PerConnection int

	// Batch is how many calls a batch of JSON-RPC may have; larger ones are refused whole. By default 100.
	Batch int
}

// WithLimits sets limits; a limit that is zero keeps its default. By default those that [Limits] names apply.
func WithLimits(l Limits) Option {
	return func(s *settings) {
		s.limits = l
		if l.Body < 0 || l.Header < 0 || l.Concurrent < 0 || l.PerConnection < 0 || l.Batch < 0 {
			s.fault("WithLimits", errors.New("a limit is negative"))
		}
	}
}

func (l *Limits) complete() {
	defaultTo(&l.Body, 1<<20)
	l.Body = min(l.Body, math.MaxInt-1) // so that one more byte can be counted
	defaultTo(&l.Header, 8<<10)
	defaultTo(&l.Concurrent, 1024)
	defaultTo(&l.PerConnection, 100)
	defaultTo(&l.Batch, 100)
}

// Timeouts bound how long things may take. A zero field means its default; a negative one is a fault.
type Timeouts struct {
	// Call bounds a call that brings no Connect-Timeout-Ms, from when its body was read. By default 10 seconds, or MaxCall
	// if that is less. The endpoint's own timeout applies besides.
	Call time.Duration

	// MaxCall is the longest that Connect-Timeout-Ms may ask for, from when the request arrived, authentication and body
	// included; more is cut to it. By default a minute, or Call if that is more. Neither is for streams: they end when they
	// end, or when the time is up that Connect-Timeout-Ms gives.
	MaxCall time.Duration

	// Header bounds reading a request's headers; it is for [Bridge.Server]. By default 10 seconds.
	Header time.Duration

	// Body bounds reading a request's body, under any http.Server; of a body that is a stream, each message from its first byte
	// to its last. By default 30 seconds.
	Body time.Duration

	// Write bounds writing a reply, under any http.Server; of a stream, each item: a client that doesn't read for so long,
	// and up to a quarter longer, loses its stream. By default 30 seconds.
	Write time.Duration

	// Heartbeat is how long a stream may be silent until its headers are sent in any case, and a comment in a stream of
	// events, so that nothing on the way takes it for dead. By default 15 seconds.
	Heartbeat time.Duration

	// Idle bounds how long a connection waits for its next request; it is for [Bridge.Server]. By default two minutes.
	Idle time.Duration
}

// WithTimeouts sets timeouts; one that is zero keeps its default. By default those that [Timeouts] names apply.
func WithTimeouts(t Timeouts) Option {
	return func(s *settings) {
		s.timeouts = t
		for _, d := range []time.Duration{t.Call, t.MaxCall, t.Header, t.Body, t.Write, t.Heartbeat, t.Idle} {
			if d < 0 {
				s.fault("WithTimeouts", fmt.Errorf("%v is negative", d))
			}
		}
		if t.MaxCall > 0 && t.Call > t.MaxCall {
			s.fault("WithTimeouts", fmt.Errorf("%v for a call is over its maximum of %v", t.Call, t.MaxCall))
		}
	}
}

func (t *Timeouts) complete() {
	defaultTo(&t.MaxCall, max(time.Minute, t.Call))
	defaultTo(&t.Call, min(10*time.Second, t.MaxCall))
	defaultTo(&t.Header, 10*time.Second)
	defaultTo(&t.Body, 30*time.Second)
	defaultTo(&t.Write, 30*time.Second)
	defaultTo(&t.Heartbeat, 15*time.Second)
	defaultTo(&t.Idle, 2*time.Minute)
}

func defaultTo[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// WithAuth authenticates each call before its body is read; /healthz and /readyz are open. The request's context ends when
// the client leaves, when the time is up that it asked for, and when a drain gives up waiting: f should heed it wherever it
// waits.
//
// The context that f returns becomes the call's; it should derive from the request's (nil means the request's).
// [endpoint.WithHeader] on it is metadata of the call, and takes the place of whatever the client sent under the same name.
// A name that f sets for some callers alone is the client's to set for the others, unless [WithHeaders] keeps it out: set it
// always, or take it back ("!X-User").
//
// It is asked once for a request, when that arrives, and [WithAuthorization] when a call begins. A stream that was let in goes on
// for as long as both ends like, though the credentials expire or are withdrawn meanwhile: Identity.Expires ends nothing.
// A [Bridge.Drain] that gives up waiting does, and whoever opens a stream again is asked again.
//
// An error ends the request with the status of its code: endpoint.Unauthenticated is 401, endpoint.PermissionDenied 403.
// An error without a code is 401 without text; [Challenge] adds a WWW-Authenticate. By default everybody may call what is
// exposed.
func WithAuth(f func(*http.Request) (context.Context, error)) Option {
	return func(s *settings) {
		switch {
		case f == nil:
			s.fault("WithAuth", errors.New("the function is nil"))
		case s.auth != nil:
			s.fault("WithAuth", errors.New("given twice; which one counts would be a guess"))
		}
		s.auth = f
	}
}

// WithLogger logs failed requests: server errors as Error, those of load and absence as Warn, the client's own faults
// and its leaving as Debug. By default slog.Default() at the time the bridge is made; a nil logger is a fault.
func WithLogger(l *slog.Logger) Option {
	return func(s *settings) {
		if l == nil {
			s.fault("WithLogger", errors.New("the logger is nil"))
			return
		}
		s.log = l
	}
}
