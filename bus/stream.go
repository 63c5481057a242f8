package bus

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// A stream is a call with many messages one way or both. Its two ends are a clientStream, below a caller's handler, and a
// serverStream, above a served one; what both do is a line. What each half may send is in package stream.
//
//	caller                                                     service
//
//	request, Rpc-Stream ──► opening ─────────────────────────► waits, then runs; or is refused: an error reply
//	                           │ ◄────────── open ────────────────┤
//	                           ▼                                  ▼
//	             ┌─────────► open ◄──────── items, windows, beats ──────► open ◄─────────┐
//	             │             │                                  │             │        │
//	   the consumer's loop     │ input ends: half-close ────────► │   the handler's function
//	                           │                                  │ returns: end, with its error
//	                           │ ◄───────── end, trailers ────────┤
//	                           ▼                                  ▼
//	                         over                              ended
//	                           ▲                                  ▲
//	    leaves the loop, ──────┤ ──── cancel ───────────────────► │ the context ends with that cause
//	    idle, peer at fault    │                                  │
//	    silence, connection ───┘                                  └──── silence, connection, idle, peer at fault, drain
//
// Callbacks of subscriptions take frames, the sieve of the connection takes items, and they never wait. One goroutine reads, one
// writes, a timer beats.

// line is what both ends of a stream have in common.
type line struct {
	bus   *Bus
	blame endpoint.Code   // of a peer at fault
	hurt  func(err error) // is told when the line breaks, once; must not block
	ended chan struct{}   // closed when this end is over
	news  chan struct{}   // has an element when something came
	clear chan struct{}   // has an element when something may be sent

	plainItem wire.Headers // of itemHeaders
	number    []string     // in it
	room      []byte       // of who sends
	library   bool         // something that was sent may be in nats.go's buffer, which must not be overtaken

	mu    sync.Mutex
	out   stream.Sender
	in    stream.Receiver
	watch stream.Watch
	timer *time.Timer
	to    string // where the peer listens, the newest; "" as long as that is not known
	self  string // where this end listens

	detours int // items and ends that go the usual way, see uplink.Taker

	proved bool      // the peer was heard of
	missed time.Time // since when the broker says that it is gone, zero: it does not
	queue  []item    // what came, from head on what was not taken yet: bounded by credit
	head   int
	busy   bool  // the consumer has an item
	eof    bool  // all of the peer's half is here
	quiet  bool  // the stream is over for the peer: nothing is expected of it
	broke  error // why nothing comes or goes any more; what came before counts
	over   bool
}

// item is one message, as it came.
type item struct {
	body      []byte
	mediaType string
}

func (l *line) prepare(b *Bus, blame endpoint.Code, hurt func(error)) {
	l.bus, l.blame, l.hurt, l.library = b, blame, hurt, true
	l.ended, l.news, l.clear = make(chan struct{}), make(chan struct{}, 1), make(chan struct{}, 1)
}

// start begins to look at the clock.
func (l *line) start(w stream.Watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch = w
	now := time.Now()
	l.in.TopUp(now)
	if _, next := w.Look(now); next > 0 {
		l.timer = time.AfterFunc(next, l.tick)
	}
}

// stop ends the line for good. It may be called twice.
func (l *line) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over = true
	l.bus.grown.Add(-int64(l.in.Narrow()))
	if l.timer != nil {
		l.timer.Stop()
	}
	close(l.ended)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail breaks the line, unless it is broken or over, or all that could come is here.
func (l *line) fail(err error) {
	l.mu.Lock()
	ours := !l.quiet && l.breaks(err)
	l.mu.Unlock()
	if ours {
		l.hurt(err)
	}
}

// breaks is fail with the lock held; who gets true tells hurt.
func (l *line) breaks(err error) bool {
	if l.over || l.broke != nil {
		return false
	}
	l.broke = err
	signal(l.news)
	signal(l.clear)
	return true
}

// dead reports whether frames are of no use any more (lock held).
func (l *line) dead() bool { return l.over || l.broke != nil }

// fault is the error of a frame that must not be.
func (l *line) fault(err error) *endpoint.Error {
	if stream.Lost(err) {
		return endpoint.DataLoss.Wrap(err, "the stream has a gap: "+err.Error()).WithOutcome(endpoint.MaybeExecuted)
	}
	return l.blame.Wrap(err, "the peer broke the protocol of streams: "+err.Error()).
		WithReason(endpoint.ReasonProtocol).WithOutcome(endpoint.MaybeExecuted)
}

// faultOf is fault for what may be none.
func (l *line) faultOf(err error) error {
	if err == nil {
		return nil
	}
	return l.fault(err)
}

// take is for frames that both ends know (lock held): items, credit, beats.
func (l *line) take(f *wire.Frame, m *nats.Msg) error {
	switch f.Kind { //nolint:exhaustive // others are no business of both
	case wire.ItemFrame:
		if err := l.in.Item(f.Seq, len(m.Data)); err != nil {
			return err
		}
		l.keep(item{m.Data, f.MediaType})
		signal(l.news)
	case wire.WindowFrame, wire.BeatFrame:
		if f.Kind == wire.BeatFrame {
			if err := l.in.Beat(f.Seq); err != nil {
				return err
			}
		}
		if f.Granted {
			if err := l.out.Grant(f.Grant); err != nil {
				return err
			}
			signal(l.clear)
		}
	}
	return nil
}

// post sends a frame that may get lost: the next one makes it good.
func (l *line) post(to, reply string, h wire.Headers) {
	if !l.bus.connected() {
		return // to publish would be to wait where a connection is being made
	}
	_ = l.bus.nc.PublishMsg(&nats.Msg{Subject: to, Reply: reply, Header: nats.Header(h)})
}
