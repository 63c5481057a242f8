package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// Option configures a Bus. Faults of all options are reported at once by Connect or New.
type Option func(*config) error

type config struct {
	name, version, description string
	metadata                   map[string]string
	codec                      codec.Codec
	more                       []codec.Codec
	codecs                     codec.Set // of codec and more
	logger                     *slog.Logger
	concurrency, backlog       int
	backlogWait                time.Duration
	timeout                    time.Duration
	skew, heartbeat            time.Duration
	inboxPrefix                string
	rpcRoot, srvRoot           string
	headerMetadata             bool
	maxMessage                 int  // bytes; 0: what the broker takes
	compresses                 bool // messages in chunks
	frameless                  bool
	curbed                     atomic.Bool // takes none any more
	eager                      bool        // every call goes in a frame, and nobody is asked: for tests
	nats                       []nats.Option

	refused    atomic.Pointer[error] // why the broker does not let us back in
	maxPayload atomic.Int64          // what the broker takes; each of its servers may have its own limit
	reconnects atomic.Uint64         // those that the handlers of our connection know of
	hears      atomic.Pointer[Bus]   // what is heard on it
	lent       atomic.Bool           // the connection is its user's, too, who may have subscriptions on it
	grumbles   grumbles
}

func newConfig(opts []Option) (*config, error) {
	c := &config{
		version: buildVersion(), codec: codec.JSON, logger: slog.Default(),
		concurrency: endpoint.DefaultConcurrency, backlog: endpoint.DefaultBacklog, backlogWait: endpoint.DefaultBacklogWait,
		timeout: 10 * time.Second, skew: 2 * time.Second, rpcRoot: wire.RPCRoot, srvRoot: wire.SRVRoot,
		inboxPrefix: "_INBOX", heartbeat: wire.DefaultHeartbeat,
	}
	var errs []error
	for _, o := range opts {
		if o == nil {
			errs = append(errs, errors.New("a nil option"))
			continue
		}
		errs = append(errs, o(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, misconfigured(err)
	}
	c.codecs = codec.NewSet(c.codec).With(c.more...)
	return c, nil
}

// misconfigured is what Connect and New return for options, and what else they were given, that can't be.
func misconfigured(err error) error {
	return endpoint.InvalidArgument.Wrap(err, "bus: "+err.Error()).WithReason(endpoint.ReasonConstruction).WithOutcome(endpoint.NotSent)
}

// WithName names the one service that all endpoints of this bus belong to: letters, digits, - and _. By default each
// endpoint's service comes from its subject: all tokens but the last.
func WithName(name string) Option {
	return func(c *config) error {
		c.name = name
		return named("WithName", endpoint.ValidateServiceName(name))
	}
}

// buildVersion is the version of the program that was built, where its build knows one.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		if v, err := endpoint.ParseVersion(info.Main.Version); err == nil {
			return v
		}
	}
	return "0.0.0"
}

// WithVersion sets the semantic version that is published; a leading v is dropped. By default the version of the program's
// main module, or 0.0.0 where the build knows none.
func WithVersion(version string) Option {
	return func(c *config) (err error) {
		c.version, err = endpoint.ParseVersion(version)
		return named("WithVersion", err)
	}
}

// WithDescription says in a sentence what the service is for; it is published. By default empty.
func WithDescription(text string) Option {
	return func(c *config) error {
		c.description = text
		return nil
	}
}

// WithMetadata publishes keys and values with the service; the map is copied. By default none. Keys that start with _nats
// belong to NATS, those that start with rpc. to the protocol.
func WithMetadata(md map[string]string) Option {
	return func(c *config) error {
		for k := range md {
			if k == "" || strings.HasPrefix(k, "_nats") || strings.HasPrefix(k, "rpc.") {
				return fmt.Errorf("WithMetadata: the key %q is empty or reserved", k)
			}
		}
		c.metadata = maps.Clone(md)
		return nil
	}
}

// WithCodec sets the default codec and, alone, the whole set that is accepted. By default it is codec.JSON.
func WithCodec(cd codec.Codec) Option {
	return func(c *config) error {
		if cd == nil {
			return errors.New("WithCodec: the codec is nil")
		}
		c.codec = cd
		return nil
	}
}

// WithCodecs adds to the set that is accepted, behind the default. By default the set has the default codec alone.
func WithCodecs(cds ...codec.Codec) Option {
	return func(c *config) error {
		for _, cd := range cds {
			if cd == nil {
				return errors.New("WithCodecs: a codec is nil")
			}
		}
		c.more = append(c.more, cds...)
		return nil
	}
}

// WithLogger sets where the bus reports what no caller can be told: causes of internal errors, connection events. By
// default slog.Default() at the time the bus is made.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: the logger is nil")
		}
		c.logger = l
		return nil
	}
}

// WithConcurrency bounds how many calls each endpoint runs at once, unless it says so itself. By default 1,024.
func WithConcurrency(n int) Option {
	return func(c *config) error {
		c.concurrency = n
		return positive("WithConcurrency", n)
	}
}

// report logs. A logger that panics must not take the process along: it is called where nobody else recovers.
func (c *config) report(level slog.Level, msg string, attrs ...slog.Attr) {
	defer func() { _ = recover() }()
	c.logger.LogAttrs(context.Background(), level, msg, attrs...) //nolint:sloglint // the callers' messages are constants
}

// WithDefaultTimeout bounds calls whose context has no deadline, and handlers whose caller sent none. By default 10 seconds.
func WithDefaultTimeout(d time.Duration) Option {
	return func(c *config) error {
		c.timeout = d
		return positive("WithDefaultTimeout", d)
	}
}

// WithInboxPrefix sets where replies go: below it, each bus adds a random token of its own, and another one for Conn().Request
// where the bus makes the connection. Permissions name it. By default _INBOX.
func WithInboxPrefix(prefix string) Option {
	return func(c *config) error {
		c.inboxPrefix = prefix
		if prefix == "_INBOX" {
			return nil
		}
		return named("WithInboxPrefix", endpoint.ValidateSubject(strings.TrimPrefix(prefix, "_INBOX.")))
	}
}

// WithClockSkew bounds how far the clocks of callers and services may differ: a request is refused when its send time says
// that its deadline passed by more. By default 2 seconds.
func WithClockSkew(d time.Duration) Option {
	return func(c *config) error {
		c.skew = d
		if d < 0 {
			return fmt.Errorf("WithClockSkew: %v is negative", d)
		}
		return nil
	}
}

// WithHeartbeat sets how often both sides of the streams that this bus calls say that they live: 5 seconds to a minute, rounded
// down to milliseconds. By default 15 seconds. Three beats that are missed end a stream, where nobody knows sooner. Streams that
// are served go by what their callers say.
func WithHeartbeat(d time.Duration) Option {
	return func(c *config) error {
		if c.heartbeat = d.Truncate(time.Millisecond); c.heartbeat < wire.MinHeartbeat || c.heartbeat > wire.MaxHeartbeat {
			return fmt.Errorf("WithHeartbeat: %v is not from %v to %v", d, wire.MinHeartbeat, wire.MaxHeartbeat)
		}
		return nil
	}
}

// WithRoots renames the roots of instance and discovery subjects; all peers must agree. By default _RPC and $SRV.
func WithRoots(rpc, srv string) Option {
	return func(c *config) error {
		for _, r := range []string{rpc, srv} {
			if r == "" {
				return errors.New("WithRoots: a root is empty")
			}
			if err := endpoint.ValidateSubject("x" + r); err != nil { // which would refuse our own roots as they are
				_, why, _ := strings.Cut(err.Error(), fmt.Sprintf("%.80q ", "x"+r))
				return fmt.Errorf("WithRoots: the root %.80q %s", r, why)
			}
		}
		c.rpcRoot, c.srvRoot = rpc, srv
		return nil
	}
}

// WithHeaderMetadata sends deadlines and the like as headers instead of in the reply subject, which account imports
// rewrite. By default they ride in the reply subject, which is cheaper.
func WithHeaderMetadata() Option {
	return func(c *config) error {
		c.headerMetadata = true
		return nil
	}
}

// WithoutFrames neither sends nor takes batch frames. By default calls to one subject that begin at the same moment share a
// message, where Discover finds that all who serve the subject take such; whoever listens along on the subject itself sees
// none of these.
func WithoutFrames() Option {
	return func(c *config) error {
		c.frameless = true
		return nil
	}
}

// maxMaxMessage is the most that WithMaxMessage takes.
const maxMaxMessage = 1 << 30

// WithMaxMessage lets unary requests and replies have up to so many bytes, beyond what the broker takes in one message, if the
// other side has the option, too: they go in chunks, requests to one instance, beside which small calls go on. What is longer is
// refused before it is sent (resource_exhausted). At most 1 GiB: what may be longer belongs in a stream. A bus puts together
// four of the largest at once; beyond that requests wait as long as they may in the endpoint's backlog, and count there until
// their handler has ended, and replies wait until their deadline. By default, and for items of streams always, the limit is the
// broker's max_payload.
func WithMaxMessage(bytes int) Option {
	return func(c *config) error {
		c.maxMessage = bytes
		if bytes > maxMaxMessage {
			return fmt.Errorf("WithMaxMessage: %d is more than %d", bytes, maxMaxMessage)
		}
		return positive("WithMaxMessage", bytes)
	}
}

// WithCompression compresses what goes in chunks with S2: requests, and replies to callers that say they take it, as ours do. It
// costs a processor some milliseconds for 10 MiB, and is worth it where the network is slow and messages are text. By default
// nothing is compressed; what comes compressed is always read.
func WithCompression() Option {
	return func(c *config) error {
		c.compresses = true
		return nil
	}
}

// WithNATS passes options to nats.Connect, after the bus's own; Connect only. A handler for disconnects or reconnects
// replaces the bus's, which logs, and tells credentials that the broker refuses from a broker that is away; one for errors
// replaces what is logged of them. One that is given the connection may subscribe on it, so from its first call on messages come by way
// of nats.go, as after [Bus.Conn]. By default none.
func WithNATS(opts ...nats.Option) Option {
	return func(c *config) error {
		c.nats = append(c.nats, opts...)
		return nil
	}
}

func named(option string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	return nil
}

func positive[N int | time.Duration](option string, n N) error {
	if n <= 0 {
		return fmt.Errorf("%s: %v is not positive", option, n)
	}
	return nil
}
