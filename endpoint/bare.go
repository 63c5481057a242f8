package endpoint

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A call with no middleware around it is seen by its transport and by the edge that knows its types, and by nobody else. When
// both have let go of it, its memory serves another call:
//
//	BareCall ──► the chain ──► Release ──► End ──► another BareCall
//	                 └──► FromContext: a handler has it, and it is left to the collector
//
// What a handler may keep is not part of that memory: its context, the messages, their bytes.

// bareCall is the memory of a call without middleware.
type bareCall struct {
	Call
	begun    *callContext // of a server's call, which its handler may keep
	asked    []byte       // the messages that the edge has by value, of codec Raw
	boxed    []byte
	released bool
}

var bareCalls = sync.Pool{New: func() any { return new(bareCall) }}

// BareCall is NewCall for a chain without middleware, see [Endpoint.Bare]. After End the transport must not use the call
// if it has released it. It is for transports.
func BareCall(s *Spec, subject string, side Side) *Call {
	p := bareCalls.Get().(*bareCall)
	c := &p.Call
	c.Spec, c.Subject, c.Side, c.root, c.pooled = s, subject, side, c, p
	return c
}

// Release tells that nothing of the transport holds the call after its handler returned (client side), or after End
// (server side). Of a call that middleware may have, it changes nothing. It is for transports.
func (c *Call) Release() {
	if p := c.pooled; p != nil {
		p.released = true
	}
}

// recycle gives the memory of a call that has ended to another, if nobody can have kept it.
func (p *bareCall) recycle() {
	if p.released && (p.begun == nil || p.begun.nature.CompareAndSwap(unasked, over)) {
		*p = bareCall{}
		bareCalls.Put(p)
	}
}

// nature is what a context is of, and for one of a bare call, whether the call may be another's.
type nature struct{ atomic.Uint32 }

const (
	unasked uint32 = iota // of a call that nobody had from it
	asked                 // somebody has the call for good
	over                  // it was a bare call, which is another's now
	derived               // made by WithDeadline
)

// ask reports whether the call may be had.
func (n *nature) ask() bool { return n.CompareAndSwap(unasked, asked) || n.Load() != over }

// request is Message at the edge. Without middleware nobody else has the call yet.
func (c *Call) request() (any, error) {
	if c.pooled == nil {
		return c.Message()
	}
	return c.decoded()
}

// own returns the call's own context, begun or not.
func (c *Call) own() *callContext {
	if p := c.pooled; p != nil && p.begun != nil {
		return p.begun
	}
	return &c.ctx
}

// begin fills in the context of a call.
func (c *Call) begin(parent context.Context, deadline time.Time) *callContext {
	x := &c.ctx
	if c.Side == ServerSide && c.pooled != nil {
		x = &callContext{}
		c.pooled.begun = x
	}
	x.parent, x.deadline = parent, deadline
	if c.Side == ServerSide {
		x.call = c
	}
	return x
}

// box makes a message of bytes, a client's request or a server's reply, in the memory of the call: where a call has bytes of its
// own, the message is what travels.
func (c *Call) box(b []byte) any {
	at := &c.body
	switch {
	case c.pooled != nil:
		at = &c.pooled.boxed
	case c.Side == ServerSide:
		at = &c.reply
	}
	*at = b
	return at
}
