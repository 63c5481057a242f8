package middleware

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// throttleParts is the number of slots of a window.
const throttleParts = 10

// throttleStep is a change worth a report.
const throttleStep = 0.01

// throttleCount is what is known of one service.
type throttleCount struct {
	throttle *throttle
	service  string

	mu       sync.Mutex
	now      int64 // number of the current slot
	slots    [throttleParts]throttleSlot
	window   throttleSlot // the sum of all slots
	reported float64
}

// throttleSlot counts the calls of a part of the window.
type throttleSlot struct{ requests, accepted, sent int }

func (s *throttleSlot) add(requests, accepted, sent int) {
	s.requests += requests
	s.accepted += accepted
	s.sent += sent
}

// enter counts a call and decides whether it goes out. The slot is where it was counted.
func (n *throttleCount) enter() (slot int64, ok bool) {
	now := int64(time.Since(n.throttle.begin) / n.throttle.slot)
	n.mu.Lock()
	n.advance(now)
	slot = n.now
	share := n.share()
	if ok = share == 0 || float64(n.window.sent) < n.throttle.floor || rand.Float64() >= share; ok {
		n.add(slot, 1, 1, 1)
	} else {
		n.add(slot, 1, 0, 0)
	}
	changed := math.Abs(share-n.reported) >= throttleStep || share == 0 && n.reported > 0
	if changed {
		n.reported = share
	}
	n.mu.Unlock()
	if changed && n.throttle.policy.Report != nil {
		n.throttle.policy.Report("throttle", n.service, share)
	}
	return slot, ok
}

// share is the part of the calls to hold back.
func (n *throttleCount) share() float64 {
	excess := float64(n.window.requests) - n.throttle.policy.K*float64(n.window.accepted)
	return min(max(excess/float64(n.window.requests+1), 0), n.throttle.policy.Most)
}

// failed takes back what enter assumed of a call that went out.
func (n *throttleCount) failed(slot int64, err error) {
	verdict := throttleLaw(err)
	if verdict == throttleAccepted {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case slot <= n.now-throttleParts: // its slot has gone, and all that was counted in it
	case verdict == throttleRefused:
		n.add(slot, 0, -1, 0)
	default:
		n.add(slot, -1, -1, -1)
	}
}

// add counts in a slot of the window (lock held).
func (n *throttleCount) add(slot int64, requests, accepted, sent int) {
	n.slots[slot%throttleParts].add(requests, accepted, sent)
	n.window.add(requests, accepted, sent)
}

// advance empties the slots that have left the window (lock held).
func (n *throttleCount) advance(now int64) {
	for gone := min(now-n.now, throttleParts); gone > 0; gone-- {
		s := &n.slots[(now-gone+1)%throttleParts]
		n.window.add(-s.requests, -s.accepted, -s.sent)
		*s = throttleSlot{}
	}
	n.now = max(n.now, now)
}

type throttleVerdict uint8

const (
	throttleAccepted throttleVerdict = iota // the service took the call, whatever became of it
	throttleRefused                         // for overload
	throttleUnknown                         // the call met nobody, or nobody knows
)

// throttleLaw is the table of Throttle.
func throttleLaw(err error) throttleVerdict {
	e, ok := find(err)
	switch {
	case !ok:
		return throttleUnknown
	case e.Outcome() == endpoint.Executed:
		return throttleAccepted
	case !e.Remote() || e.Code == endpoint.DeadlineExceeded || e.Code == endpoint.Canceled:
		return throttleUnknown
	case e.Outcome() != endpoint.NotExecuted || e.Code != endpoint.ResourceExhausted && e.Code != endpoint.Unavailable:
		return throttleAccepted
	}
	switch e.Reason() {
	case endpoint.ReasonRateLimited, endpoint.ReasonRequestTooLarge, endpoint.ReasonHeaderTooLarge:
		return throttleAccepted
	}
	return throttleRefused
}
