package bus

import (
	"errors"
	"hash/maphash"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// What a client may not publish the broker drops, and says so to the connection: one complaint for each message, in the order
// they were sent, with the subject and no word about which message it was. On a connection of ours they come one by one, by
// its error handler, and are told to those whom they concern: calls (claim.go), probes and cancels, acks. The handlers of an
// adopted connection are its owner's: there, calls that wait look at its last error (adopted.go).

// deniedPublish returns the subject of a message that the broker dropped for want of a grant.
func deniedPublish(err error) (subject string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	_, text, ok := strings.Cut(err.Error(), `Violation for Publish to "`)
	if !ok {
		return "", false
	}
	quoted, err := strconv.QuotedPrefix(`"` + text)
	if err != nil {
		return "", false
	}
	subject, err = strconv.Unquote(quoted)
	return subject, err == nil
}

// hear is the last of the options of a connection, so that the bus hears what the broker has to say whoever logs it.
func (c *config) hear(o *nats.Options) error {
	failed, back := o.AsyncErrorCB, o.ReconnectedCB
	o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if unauthenticated(err) {
			c.refused.Store(&err)
		}
		if b := c.hears.Load(); b != nil {
			b.heard(err)
		}
		if failed != nil {
			failed(nc, sub, err)
		}
	}
	o.ReconnectedCB = func(nc *nats.Conn) {
		c.refused.Store(nil)                      // in the order in which the broker speaks
		c.reconnects.Store(nc.Stats().Reconnects) // which counts those that ended before they began, too
		if b := c.hears.Load(); b != nil {
			b.denials.forget()
		}
		if back != nil {
			back(nc)
		}
	}
	return nil
}

// heard takes an error of our own connection.
func (b *Bus) heard(err error) {
	b.denials.note(err)
	subject, ok := deniedPublish(err)
	if !ok {
		return
	}
	b.denials.count.Add(1)
	if c, ok := wire.ParseControl(b.rpcRoot, subject); ok {
		b.mux.dam(c)
		if c.Service != "" {
			b.mux.acked.silence(c.Service)
			return
		}
	}
	if asksAck(subject) {
		b.acked.spoil(b, err)
		b.kept.refuse(subject)
		b.curb(subject, err)
	}
	b.denials.claim(subject)
}

// denials are the broker's complaints that are not matched with calls yet.
type denials struct {
	bus   *Bus
	count atomic.Uint64

	shared atomic.Bool // others than the bus may publish on this connection
	ghosts ghosts

	mu       sync.Mutex
	open     map[string]*denial // by subject
	era      uint64             // of the connection that they came by
	busy     bool               // match is under way, or its timer runs
	timer    *time.Timer
	matched  time.Time // when match last ended
	pause    time.Duration
	hearings map[*hearing]bool
}

func newDenials(b *Bus) *denials {
	return &denials{bus: b, open: map[string]*denial{}, hearings: map[*hearing]bool{}, ghosts: ghosts{seed: maphash.MakeSeed()}}
}

// ghosts remember on which subjects a call ended of itself, so that a complaint may be about it. A subject shares its mark
// with others: a mark too many makes an outcome less certain, never wrong.
type ghosts struct {
	seed  maphash.Seed
	marks [64]atomic.Int64
}

func (g *ghosts) mark(subject string) *atomic.Int64 {
	return &g.marks[maphash.String(g.seed, subject)%uint64(len(g.marks))]
}

func (g *ghosts) add(subject string) { g.mark(subject).Store(time.Now().UnixNano()) }

func (g *ghosts) since(subject string, d time.Duration) bool {
	return time.Now().UnixNano()-g.mark(subject).Load() < int64(d)
}

// grumbles log the broker's complaints about messages, not each of them: a line for the first below each root of subjects,
// and then one in grumbleEvery with how many there were since.
type grumbles struct {
	mu    sync.Mutex
	roots map[string]*grumble
}

type grumble struct {
	at     time.Time
	unsaid int
}

const (
	grumbleEvery = 10 * time.Second
	maxGrumbles  = 64
)

// due reports whether to log a complaint about the subject, and how many were left out before it.
func (g *grumbles) due(subject string) (unsaid int, now bool) {
	root, _, _ := strings.Cut(subject, ".")
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.roots == nil {
		g.roots = map[string]*grumble{}
	}
	if g.roots[root] == nil && len(g.roots) >= maxGrumbles {
		root = ""
	}
	last := g.roots[root]
	if last == nil {
		last = &grumble{}
		g.roots[root] = last
	}
	if time.Since(last.at) < grumbleEvery {
		last.unsaid++
		return 0, false
	}
	unsaid, last.unsaid, last.at = last.unsaid, 0, time.Now()
	return unsaid, true
}

// grumble logs what our own connection was told.
func (c *config) grumble(sub *nats.Subscription, err error) {
	if subject, ok := deniedPublish(err); ok {
		if subject == c.srvRoot+infoVerb { // who asked is told
			return
		}
		if unsaid, now := c.grumbles.due(subject); now {
			c.report(slog.LevelWarn, "the broker denies what is published", slog.String("subject", subject),
				slog.Int("unsaid", unsaid), slog.Any("error", err))
		}
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	c.report(slog.LevelWarn, "nats error", slog.String("subject", subject), slog.Any("error", err))
}

// publishDenied is what a call is told whose request the broker dropped, or may have.
func publishDenied(subject string, cause error) *endpoint.Error {
	const msg = "the broker does not let this client publish to "
	if cause == nil {
		cause = nats.ErrPermissionViolation
	}
	return endpoint.PermissionDenied.Wrap(cause, msg+subject).WithReason(endpoint.ReasonPublishDenied)
}
