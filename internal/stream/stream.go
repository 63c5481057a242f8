// Package stream is what one end of a stream must keep in mind, without connections and clocks: what it may send, what must come
// next, and when somebody has been silent for too long. Times and frames are values that are given to it. Nothing here is safe
// for concurrent use.
//
// A stream is two halves, each from a [Sender] to a [Receiver]. In one half, as both of them see it:
//
//	Sender                                         Receiver
//
//	credit ──── Sent ───► item n ────────────────► n is next, and paid for ──► Use ──┐
//	  ▲  │                                         │                                │
//	  │  └─► no credit: waits                      ├─► n is later: Gap              │
//	  │                                            ├─► n was here: Duplicate        │
//	  │                                            └─► unpaid: Overrun              │
//	  └───── Grant ◄────── window, or beat ◄───────────── half of it is used ◄──────┘
//	  │
//	  └─ End ────────────► end of n items ───────► n were here: ended ──► more: AfterEnd
//	  │                                            └─► more: Gap, fewer: Miscounted
//	  └─ Position ───────► beat: n was the last ─► n is not here ──► nor by the next beat: Behind
//
// Who made a fault known is not at fault itself: the stream ends there, and the peer is told.
package stream

import (
	"errors"
	"time"

	"postbus.example/internal/wire"
)

// What is wrong with a frame. The first three mean that something was lost, the others that the peer is at fault.
var (
	ErrGap        = errors.New("items are missing")
	ErrBehind     = errors.New("the last items, or the end, are missing")
	ErrDuplicate  = errors.New("an item came twice")
	ErrOverrun    = errors.New("an item came for which there was no credit")
	ErrAfterEnd   = errors.New("the stream went on after its end")
	ErrMiscounted = errors.New("the end counts fewer items than came")
	ErrGreedy     = errors.New("credit far above what was sent")
)

// Lost reports whether a fault means that something got lost on the way.
func Lost(err error) bool { return errors.Is(err, ErrGap) || errors.Is(err, ErrBehind) }

// Sender is the half that sends. The zero value may send nothing.
type Sender struct {
	sent, granted wire.Grant
	ended         bool
}

// NewSender returns a sender with credit.
func NewSender(credit wire.Grant) Sender { return Sender{granted: credit} }

// Ready reports whether one more item may be sent.
func (s *Sender) Ready() bool {
	return !s.ended && s.sent.Messages < s.granted.Messages && s.sent.Bytes < s.granted.Bytes
}

// Next is the number of the next item.
func (s *Sender) Next() uint64 { return s.sent.Messages + 1 }

// Sent takes the credit of an item that was sent. Not before: a beat must announce nothing that is still here.
func (s *Sender) Sent(size int) {
	s.sent.Messages++
	s.sent.Bytes += uint64(size)
}

// Count is how many items were sent.
func (s *Sender) Count() uint64 { return s.sent.Messages }

// End says that the end was sent.
func (s *Sender) End() { s.ended = true }

// Position is what a beat announces: the items, and the end as one more.
func (s *Sender) Position() uint64 {
	if s.ended {
		return s.sent.Messages + 1
	}
	return s.sent.Messages
}

// Grant takes credit. What was granted is not taken back: a smaller total is an older one.
func (s *Sender) Grant(g wire.Grant) error {
	if g.Messages > s.sent.Messages+wire.MaxAhead || g.Bytes > s.sent.Bytes+wire.MaxAheadBytes {
		return ErrGreedy
	}
	s.granted.Messages = max(s.granted.Messages, g.Messages)
	s.granted.Bytes = max(s.granted.Bytes, g.Bytes)
	return nil
}

// Receiver is the half that receives. The zero value is at its end: who sends to it is at fault.
type Receiver struct {
	open               bool
	least, window      wire.Grant // how far ahead of what was used the sender may be, at first and now
	got, used, granted wire.Grant
	starved            bool      // since credit was granted, all that came was used at some time
	topped             time.Time // when it was
	announced          uint64    // by the last beat, and not here yet; 0: nothing
}

// NewReceiver returns a receiver that grants a window, which the sender knows of.
func NewReceiver(window wire.Grant) Receiver {
	return Receiver{open: true, least: window, window: window, granted: window}
}

// Open reports whether more may come.
func (r *Receiver) Open() bool { return r.open }

// Item takes an item.
func (r *Receiver) Item(seq uint64, size int) error {
	switch {
	case !r.open:
		return ErrAfterEnd
	case seq > r.got.Messages+1:
		return ErrGap
	case seq <= r.got.Messages:
		return ErrDuplicate
	case r.got.Messages >= r.granted.Messages || r.got.Bytes >= r.granted.Bytes:
		return ErrOverrun
	}
	r.got.Messages++
	r.got.Bytes += uint64(size)
	return nil
}

// End takes the end of so many items.
func (r *Receiver) End(count uint64) error {
	switch {
	case !r.open:
		return ErrAfterEnd
	case count > r.got.Messages:
		return ErrGap
	case count < r.got.Messages:
		return ErrMiscounted
	}
	r.open = false
	return nil
}

// Close takes an end that counts whatever came: nothing follows.
func (r *Receiver) Close() { r.open = false }

// Beat takes what the sender says that it sent.
func (r *Receiver) Beat(position uint64) error {
	here := r.got.Messages
	if !r.open {
		here++
	}
	if r.announced > here {
		return ErrBehind
	}
	r.announced = position
	return nil
}

// Use says that an item was consumed, and reports whether half of the window is: then it is time to grant more.
func (r *Receiver) Use(size int) (due bool) {
	r.used.Messages++
	r.used.Bytes += uint64(size)
	r.starved = r.starved || r.used.Messages == r.got.Messages
	left, bytes := r.granted.Messages-r.used.Messages, int64(r.granted.Bytes-r.used.Bytes)
	return r.open && (left <= r.window.Messages/2 || bytes <= int64(r.window.Bytes/2))
}

// Used is how many items were consumed.
func (r *Receiver) Used() uint64 { return r.used.Messages }

// TopUp grants what the window has room for. At the beginning that is nothing new, but says when it was.
func (r *Receiver) TopUp(now time.Time) wire.Grant {
	r.granted.Messages = max(r.granted.Messages, r.used.Messages+r.window.Messages)
	r.granted.Bytes = max(r.granted.Bytes, r.used.Bytes+r.window.Bytes)
	r.starved, r.topped = false, now
	return r.granted
}

// How long half of a window lasts that is worth its memory.
const brisk = time.Second

// MaxWindow is how far a window grows.
func MaxWindow() wire.Grant { return wire.Grant{Messages: 2 << 10, Bytes: 2 << 20} }

// Tight reports whether more would come if the window were larger: it is used fast, and who uses it had to wait. It is asked when
// it is time to grant more.
func (r *Receiver) Tight(now time.Time) bool {
	return r.starved && !r.topped.IsZero() && now.Sub(r.topped) < brisk && r.window.Messages < MaxWindow().Messages
}

// Loose reports whether the window is larger than it has to be.
func (r *Receiver) Loose(now time.Time) bool {
	return r.window != r.least && now.Sub(r.topped) >= brisk
}

// Widen makes the window four times as large, as far as that goes, and returns by how many bytes.
func (r *Receiver) Widen() uint64 {
	before, most := r.window, MaxWindow()
	r.window.Messages = min(4*before.Messages, most.Messages)
	r.window.Bytes = max(before.Bytes, min(4*before.Bytes, most.Bytes))
	return r.window.Bytes - before.Bytes
}

// Narrow makes the window what it was at first, and returns by how many bytes it had grown. What was granted stays so.
func (r *Receiver) Narrow() uint64 {
	more := r.window.Bytes - r.least.Bytes
	r.window = r.least
	return more
}

// Granted is what was granted so far, nothing where nothing is to come.
func (r *Receiver) Granted() wire.Grant {
	if !r.open {
		return wire.Grant{}
	}
	return r.granted
}
