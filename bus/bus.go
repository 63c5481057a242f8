// Package bus serves and calls endpoints over NATS: a call is a request on a subject, a queue group is the registry and
// the load balancer.
//
//	b, err := bus.Connect("nats://localhost:4222", bus.WithName("calculator"), bus.WithVersion("1.4.0"))
//	b.Serve("svc.add", endpoint.New(add))                                      // the whole server
//	sum := endpoint.Caller[*AddRequest, *AddResponse](b, "svc.add")            // the whole client
//
// Every service is a NATS micro service (ADR-32) on the wire: nats req, nats service ls and the micro clients of other
// languages work with ours, and ours with theirs. docs/protocol.md has what travels.
//
// A call ends by its deadline whatever else happens, and fails with a code, a reason and a truthful outcome, never as a
// bare timeout where the cause is knowable.
package bus

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/uplink"
)

// Bus serves and calls endpoints over one NATS connection. It is safe for concurrent use. The zero value is not usable:
// see Connect and New.
type Bus struct {
	*config
	nc    *nats.Conn
	owned bool
	up    *uplink.Uplink // without connections where they are none of ours
	id    string
	mux   *replyMux

	buffers bool // the connection keeps what is published while it is away, and sends it later

	inbox     []byte // where replies to us go
	malformed atomic.Uint64
	grown     atomic.Int64 // bytes by which the windows of streams to us are larger than at first
	pulse     pulse        // beats once something was served
	denials   *denials
	roster    roster   // of who takes batch frames
	census    census   // of who may be gathered from
	last      lastWord // of a connection that was adopted

	serving sync.Mutex // one Serve at a time looks at the broker's last word

	mu       sync.RWMutex
	mws      []endpoint.Middleware
	served   map[string]*operation // by subject
	services map[string]*service   // by name
	roots    map[string]*root      // by service
	leaving  map[*operation]bool   // taken away by Stop, and not known to be at their end
	state    state
	taken    atomic.Pointer[map[string]*operation] // a copy of served, for callbacks: they never wait for a lock
	acked    *ledger                               // of calls to us
	streams  streams                               // to us
	depot    depot                                 // for requests that are put together
	replies  depot                                 // and for replies, for which a call that holds room for its request may wait
	kept     kept                                  // replies that wait for a connection
	names    names                                 // of the services of instances elsewhere
	events   chan nats.Status                      // of the connection

	moving   atomic.Bool                   // to another server
	gate     atomic.Pointer[chan struct{}] // closed when calls may go on; nil while they may
	ending   atomic.Bool                   // somebody drains
	hurry    context.Context               // ends when what drains is to come to an end
	rush     context.CancelFunc
	drained  chan struct{}
	drainErr error
}

type state uint8

const (
	running state = iota
	draining
	closed
)

var (
	_ endpoint.Transport     = (*Bus)(nil)
	_ endpoint.Server        = (*Bus)(nil)
	_ endpoint.Directory     = (*Bus)(nil)
	_ endpoint.StatsReporter = (*Bus)(nil)
)

// Instance is one running member of a service, as Discover finds it.
type Instance = endpoint.Instance

// Connect makes a bus on a connection of its own, with the settings that make failures prompt: publishing while
// disconnected fails at once, reconnects go on for good with jitter, a dead peer is noticed within six seconds. What the
// network does not take at once waits, and beyond 4 MiB calls wait with it; where the network has taken nothing for half a
// second, they are refused (resource_exhausted, reason write_backlog, NotSent). Drain or Close ends it. It fails with every
// fault of its options (invalid_argument), when the broker can't be reached (unavailable, reason disconnected), or when this
// client may not connect (unauthenticated) or receive replies (permission_denied).
func Connect(url string, opts ...Option) (*Bus, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	up := &uplink.Uplink{}
	nc, err := nats.Connect(url, slices.Concat(connDefaults(c), c.nats, []nats.Option{c.lend, up.Option, c.hear})...)
	if err != nil {
		return nil, connectError(err, "connect to "+redact(url))
	}
	b, err := newBus(nc, c, up)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return b, nil
}

// New makes a bus on your connection, which stays yours: handlers on it keep working, and Drain and Close leave it open.
// What an adopted connection can't have: the settings that Connect makes; with its reconnect buffer, a request that is
// published at the very moment the connection breaks may be sent later (it is refused then by its send time). While nats.go
// dials, calls wait for it, beyond their deadlines where a dial takes so long: give the connection a short nats.Timeout.
func New(nc *nats.Conn, opts ...Option) (*Bus, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if nc == nil {
		return nil, misconfigured(errors.New("the connection is nil"))
	}
	if len(c.nats) > 0 {
		return nil, misconfigured(errors.New("WithNATS is for Connect: New takes the connection as it is"))
	}
	return newBus(nc, c, nil)
}

// newBus makes a bus on a connection, which it owns if it comes with its uplink.
func newBus(nc *nats.Conn, c *config, up *uplink.Uplink) (*Bus, error) {
	b := &Bus{
		config: c, nc: nc, owned: up != nil, up: cmp.Or(up, &uplink.Uplink{}), id: newID(),
		served: map[string]*operation{}, services: map[string]*service{}, roots: map[string]*root{}, leaving: map[*operation]bool{}, drained: make(chan struct{}),
		acked: newLedger(), kept: kept{wake: make(chan struct{}, 1)}, buffers: nc.Opts.ReconnectBufSize >= 0,
	}
	b.hurry, b.rush = context.WithCancel(context.Background())
	b.taken.Store(new(map[string]*operation))
	b.events = nc.StatusChanged(nats.RECONNECTING, nats.CONNECTED, nats.CLOSED)
	b.maxPayload.Store(nc.MaxPayload())
	b.depot.free = depotShare * int64(b.maxMessage)
	b.replies.free = b.depot.free
	b.denials = newDenials(b)
	if err := b.openInbox(c.inboxPrefix + "." + newID()); err != nil {
		nc.RemoveStatusListener(b.events)
		return nil, err
	}
	b.up.Became(nc, nats.CONNECTED)
	b.inbox = []byte(b.mux.prefix)
	b.up.Attach(intake{b}, b.severed, b.move)
	go b.follow(b.events)
	if b.owned {
		c.hears.Store(b)
	}
	return b, nil
}

// openInbox subscribes to the replies and makes sure that the broker lets us.
func (b *Bus) openInbox(prefix string) error {
	before := b.nc.LastError()
	mux, err := newReplyMux(b.nc, prefix, newPeers(b), b.crowded)
	if err != nil {
		return connectError(err, "subscribe to replies")
	}
	if err := b.nc.FlushTimeout(5 * time.Second); err != nil {
		_ = mux.sub.Unsubscribe()
		return connectError(err, "subscribe to replies")
	}
	if err := b.nc.LastError(); err != nil && !errors.Is(err, before) && strings.Contains(err.Error(), prefix) {
		_ = mux.sub.Unsubscribe()
		return connectError(err, "receive replies below "+prefix+" (see WithInboxPrefix)")
	}
	b.mux = mux
	return nil
}

// newID returns 26 characters that no one can guess.
func newID() string { return crand.Text() }

// Use puts middleware outermost around every handler and every caller made from now on, the first outermost.
func (b *Bus) Use(mws ...endpoint.Middleware) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mws = append(b.mws, mws...)
}

// Middleware returns what Use was given so far, as one, nil if there was none. Callers take it when they are made.
func (b *Bus) Middleware() endpoint.Middleware {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.mws) == 0 {
		return nil // calls that nobody sees cost less
	}
	return endpoint.Chain(slices.Clone(b.mws)...)
}

// Codec returns the default codec.
func (b *Bus) Codec() codec.Codec { return b.codecs.Default() }

// DefaultTimeout returns what bounds calls whose context has no deadline.
func (b *Bus) DefaultTimeout() time.Duration { return b.timeout }

// Conn returns the NATS connection. What you publish on it may be denied by the broker, too, and a denial does not say which
// message it is about: from now on, calls whose requests are denied are MaybeExecuted where they were NotExecuted. What you subscribe
// to may be what the bus uses: from now on, requests, replies and items of streams come by way of nats.go, which costs more (an item
// about twice as much). A connection of your own costs neither.
func (b *Bus) Conn() *nats.Conn {
	b.denials.shared.Store(true)
	b.lent.Store(true)
	return b.nc
}

// ID returns the id of this instance, under which all its services are found.
func (b *Bus) ID() string { return b.id }

// Stats returns the counters of each endpoint, by subject, and last an entry without one for the bus itself.
func (b *Bus) Stats() []endpoint.Stats {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []endpoint.Stats
	for _, op := range b.served {
		out = append(out, op.stats())
	}
	slices.SortFunc(out, func(a, b endpoint.Stats) int { return strings.Compare(a.Subject, b.Subject) })
	own := endpoint.Stats{Late: b.mux.late.Load(), Malformed: b.malformed.Load(), Denied: b.denials.count.Load(), Reconnects: b.nc.Stats().Reconnects}
	own.Dropped = dropped(b.mux.sub)
	for _, r := range b.roots {
		if r.sub != nil {
			own.Dropped += dropped(r.sub)
		}
	}
	return append(out, own)
}

// Ready returns nil when the bus is connected and its own services answer; else why not. It asks the broker, and itself
// by way of the broker. Without permission to ask itself, or to be asked, being connected is enough.
func (b *Bus) Ready(ctx context.Context) error {
	b.mu.RLock()
	st, services := b.state, make([]*service, 0, len(b.services))
	for _, s := range b.services {
		if !s.mute {
			services = append(services, s)
		}
	}
	b.mu.RUnlock()
	if st != running {
		return endpoint.Unavailable.New("the bus is draining").WithReason(reasonDraining).WithOutcome(endpoint.NotSent)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if !b.connected() {
		return b.sendError(nats.ErrDisconnected, 0)
	}
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return b.sendError(err, 0)
	}
	for _, s := range services {
		if err := b.pingSelf(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
