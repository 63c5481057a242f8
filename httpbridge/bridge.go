package httpbridge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/identity"
)

// Bridge serves endpoints over HTTP. It is made by [New], immutable but for [Bridge.Drain], and safe for concurrent use.
type Bridge struct {
	exposed   *exposure
	routes    *routes
	rpc       string // the path of JSON-RPC without its slash; "": there is none
	directory *directory
	documents *documents // nil: there is no OpenAPI document
	readiness *readiness
	limits    Limits
	timeouts  Timeouts
	in, out   headerList
	auth      func(*http.Request) (context.Context, error)
	may       func(context.Context, string) error
	signer    *identity.Signer
	log       *slog.Logger
	origin    sameOrigin
	cors      *cors // nil: pages of other origins may not call
	gate      *gate
	conns     conns
	lives     lives           // what ends when a drain gives up waiting
	life      context.Context // ends then, or when a drain is done
	end       context.CancelCauseFunc
	protocols []Protocol // besides our own
	tells     bool       // headers of replies may pass
	err       error
}

var _ http.Handler = (*Bridge)(nil)

// New makes a bridge in front of a transport. It never fails: faults are returned by [Bridge.Err], and a bridge that has
// some answers everything with 500. Without [Expose] and [Route] nothing is reachable but /healthz and /readyz.
//
// If the transport is an [endpoint.Directory] too, the bridge asks it what there is: which of the subjects that a pattern
// exposes, which endpoints stream, which are read-only. It asks when somebody calls what it does not know, at most every five
// seconds, and every thirty seconds while it is used. Where that fails, which is logged once, POST of one message is served and
// nothing else, and what is exposed by pattern and stops is 404 rather than 503. If the transport has the method
// Ready(context.Context) error, /readyz asks it, at most four times a second however many ask.
func New(t endpoint.Transport, opts ...Option) *Bridge {
	s := &settings{in: defaultIn(), log: slog.Default(), own: map[string]string{"/healthz": "", "/readyz": ""}}
	for _, o := range opts {
		if o == nil {
			s.errs = append(s.errs, errors.New("a nil option"))
			continue
		}
		o(s)
	}
	if t == nil || reflect.ValueOf(t).Kind() == reflect.Pointer && reflect.ValueOf(t).IsNil() {
		s.errs = append(s.errs, errors.New("the transport is nil"))
		t = nil
	}
	if s.signer != nil && s.auth == nil {
		s.fault("WithIdentity", errors.New("there is no WithAuth that could say who calls"))
	}
	s.clashes()
	if s.cors != nil {
		s.cors.complete(s)
	}
	s.limits.complete()
	s.timeouts.complete()
	b := &Bridge{
		limits: s.limits, timeouts: s.timeouts, in: s.in, out: s.out, auth: s.auth, may: s.may, signer: s.signer, log: s.log,
		rpc:    strings.TrimPrefix(s.rpc, "/"),
		origin: sameOrigin{http.NewCrossOriginProtection(), s.cors},
		cors:   s.cors,
		gate:   newGate(s.limits.Concurrent),
		conns:  conns{limit: s.limits.PerConnection, running: map[string]int{}},
		tells:  s.out.some(),
	}
	b.protocols = s.speak(b.limits)
	b.life, b.end = context.WithCancelCause(context.Background())
	b.exposed = newExposure(t, s.exact, s.patterns)
	b.routes = newRoutes(s, b.exposed)
	if s.openapi != nil {
		b.documents = &documents{info: s.openapi}
	}
	b.err = errors.Join(s.errs...)
	b.directory = newDirectory(b.life, t, b.reaches, s.log)
	b.readiness = newReadiness(b.life, t)
	if b.err != nil {
		b.log.Error("the bridge has faults and serves nothing", "error", b.err)
	}
	return b
}

// Err returns every fault of the bridge's options, joined; nil if there are none.
func (b *Bridge) Err() error { return b.err }

// ServeHTTP answers one request. It may stand under any router; http.StripPrefix takes off what is not the subject's.
func (b *Bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{
		Bridge: b, w: w, r: r, client: r.Context(), start: time.Now(),
		unread: r.Body != nil && r.Body != http.NoBody,
	}
	x.protocol = b.speaker(r)
	x.set("X-Content-Type-Options", "nosniff")
	if x.unread {
		x.readUntil(x.start.Add(x.timeouts.Body))
	}
	defer x.rescue()
	if err := x.dispatch(); err != nil {
		x.fail(err)
	}
}

// exchange is one HTTP request in progress.
type exchange struct {
	*Bridge
	w       http.ResponseWriter
	r       *http.Request
	client  context.Context // ends when the client leaves
	start   time.Time
	unread  bool      // there is a body, and it was not read to its end
	subject string    // "" until the path is understood
	allow   string    // methods that routes have for the path, when they have not the request's
	down    *downlink // of a stream; nil for one reply
	endless bool      // a stream, which may take as long as its client says
	duplex  bool      // the answer may begin before the body ends
	left    bool      // the client had left when reading was stopped, for which net/http takes that, too
	values  [4]string // memory of what set sets
	used    int

	protocol Protocol // nil: one of the bridge's own
	called   *Call    // of protocol
}

// set sets a header of the answer to one value. It has memory for a few, which become the ResponseWriter's.
func (x *exchange) set(name, value string) {
	if x.used == len(x.values) {
		x.w.Header()[name] = []string{value}
		return
	}
	x.values[x.used] = value
	x.used++
	x.w.Header()[name] = x.values[x.used-1 : x.used : x.used]
}

// dispatch finds out who answers. It returns an error only if nothing was answered yet.
func (x *exchange) dispatch() error {
	if x.err != nil {
		return endpoint.Internal.Wrap(x.err, "")
	}
	if x.cors != nil {
		if answered, err := x.cross(); answered {
			return err
		}
	}
	if answer := x.own(); answer != nil {
		return answer(x)
	}
	if err := x.gate.enter(); err != nil {
		return err
	}
	defer x.gate.leave()
	if x.r.ProtoMajor >= 2 { // HTTP/1.1 runs one at a time by itself
		release, err := x.conns.enter(x.r)
		if err != nil {
			return err
		}
		defer release()
	}
	return x.handle()
}

// reaches reports whether anything leads to a subject.
func (b *Bridge) reaches(subject string) bool {
	return b.routes.reach(subject) || b.exposed.exposes(subject)
}

// own returns what answers the bridge's own paths, at any time and without being counted; nil for all others.
func (x *exchange) own() func(*exchange) error {
	switch "/" + strings.TrimPrefix(x.r.URL.Path, "/") {
	case "/healthz":
		return (*exchange).alive
	case "/readyz":
		return (*exchange).ready
	}
	return nil
}

// handle answers what counts as a call: by a route, by what else has a path of its own, or by the path's subject.
func (x *exchange) handle() error {
	if x.rpc != "" && strings.TrimPrefix(x.r.URL.Path, "/") == x.rpc {
		return x.jsonRPC()
	}
	if x.documents != nil && strings.TrimPrefix(x.r.URL.Path, "/") == "openapi.json" {
		return x.openapi()
	}
	if x.protocol == nil { // the paths of protocols are subjects
		route, others := x.routes.find(x.r)
		if route != nil {
			return x.routed(route)
		}
		x.allow = others
	}
	t := x.exposed.at(x.r.URL)
	switch {
	case t == nil && x.allow != "":
		return x.method("")
	case t == nil:
		return notFound()
	}
	x.subject = t.subject
	return x.serve(t)
}

// rescue answers for what panicked. Whether something was written already, nobody knows: then the answer is lost.
func (x *exchange) rescue() {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		if x.down != nil {
			x.down.abandon()
		}
		panic(p) // net/http's own way to end a request
	}
	x.fail(endpoint.Recovered(p))
}

// fail answers with an error, and records it.
func (x *exchange) fail(err error) {
	err = x.attributed(err)
	if x.down != nil && x.down.talks() {
		e, status := public(err)
		_ = x.down.end(e) // nobody is left to be told
		x.record(http.StatusOK, status, err)
		return
	}
	x.parting(x.unread && x.duplex)
	x.answering()
	if x.protocol != nil {
		e, status := public(err)
		x.protocol.Fail(x.w, x.r, e)
		sent := http.StatusOK
		if x.r.Method != http.MethodPost {
			sent = status
		}
		x.record(sent, status, err)
		return
	}
	status := writeError(x.w, err)
	x.record(status, status, err)
}

// attributed tells a drain, and a client that left, from other reasons why a call was canceled.
func (x *exchange) attributed(err error) error {
	switch {
	case errors.Is(err, context.Canceled) && x.life.Err() != nil:
		return errDraining.WithOutcome(endpoint.OutcomeOf(err))
	case x.clientLeft() && !errors.Is(err, context.DeadlineExceeded):
		return endpoint.Canceled.Wrap(err, "the client left")
	}
	return err
}

func (x *exchange) clientLeft() bool {
	if x.duplex {
		return x.left
	}
	return errors.Is(x.client.Err(), context.Canceled)
}

// record logs a failure by how bad it is, which a stream's status doesn't tell.
func (x *exchange) record(status, verdict int, err error) {
	level := slog.LevelDebug
	switch {
	case verdict == http.StatusInternalServerError:
		level = slog.LevelError
	case verdict > http.StatusInternalServerError || verdict == http.StatusTooManyRequests:
		level = slog.LevelWarn
	}
	ctx := x.client
	if !x.log.Enabled(ctx, level) {
		return
	}
	path := x.r.URL.Path
	if len(path) > 200 {
		path = strings.ToValidUTF8(path[:200], "") + "…"
	}
	x.log.LogAttrs(ctx, level, "request failed", slog.Int("status", status), slog.String("code", endpoint.CodeOf(err).String()),
		slog.String("method", x.r.Method), slog.String("path", path), slog.String("subject", x.subject),
		slog.Duration("took", time.Since(x.start)), slog.Any("error", err))
}
