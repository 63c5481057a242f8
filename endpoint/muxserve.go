package endpoint

import (
	"bytes"
	"context"
	"io"
	"time"
)

// serve runs the handler in a goroutine of its own.
func (x *muxCall) serve(ctx context.Context) {
	defer x.op.running.Done()
	defer close(x.done)
	defer x.server.End()
	if err := x.admit(ctx); err != nil {
		x.result.err = x.server.Verdict(err).AsRemote()
		return
	}
	defer func() { <-x.op.slots }()
	x.server.SetStream(x.recv(ctx), x.send(ctx))
	start := x.server.received
	x.op.meter.Run(1)
	ended := false
	defer func() {
		p := recover()
		switch {
		case p != nil: // a middleware's; the function's own is an error already
			x.result.err = Recovered(p).WithOutcome(x.server.outcome())
		case !ended: // runtime.Goexit
			x.result.err = Internal.New("").WithReason(ReasonPanic).WithOutcome(x.server.outcome())
		}
		if e := x.result.err; e != nil {
			x.result.err = x.server.Verdict(e).AsRemote()
		}
		x.op.meter.Run(-1)
		x.op.meter.Done(time.Since(start), x.result.err) // counted as what the caller is told
		x.result.header, x.result.trailer = sendable(x.server.Reply), sendable(x.server.Trailer)
	}()
	x.result.reply, x.result.err = x.run(ctx)
	ended = true
}

func (x *muxCall) run(ctx context.Context) (muxItem, *Error) {
	reply, err := x.op.handler(ctx, x.server)
	if err != nil {
		return muxItem{}, asError(err)
	}
	var it muxItem
	if !x.op.spec.Kind.StreamsOut() {
		body, mediaType, err := x.server.EncodedReply(reply)
		if err != nil {
			return it, asError(err)
		}
		it.body, it.mediaType = bytes.Clone(body), mediaType
	}
	if !x.sent {
		if err := x.server.Reply.Fault(Internal); err != nil {
			return it, err
		}
	}
	return it, x.server.Trailer.Fault(Internal)
}

// sendable leaves out what must not travel beside an error: the error stays what it is.
func sendable(h Header) Header {
	if h.Validate() != nil {
		return Header{}
	}
	return h
}

// asError makes an *Error of any error without losing what it is.
func asError(err error) *Error {
	if e, ok := err.(*Error); ok && e != nil { //nolint:errorlint // what wraps one is kept as the cause
		return e
	}
	e := Crossing(err)
	return e.WithCause(err)
}

// admit waits for room to run, as the bus does.
func (x *muxCall) admit(ctx context.Context) *Error {
	op := x.op
	select {
	case op.slots <- struct{}{}:
	default:
		if op.waiting.Add(1) > op.backlog {
			op.waiting.Add(-1)
			op.meter.Refuse()
			return refused(op.maxWait, ReasonBacklogFull)
		}
		op.meter.Wait(1)
		err := op.queue(ctx)
		op.meter.Wait(-1)
		op.waiting.Add(-1)
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil || !x.state.CompareAndSwap(muxQueued, muxRunning) {
		<-op.slots
		op.meter.Expire()
		return neverRan(ContextError(ctx))
	}
	return nil
}

func (op *muxOp) queue(ctx context.Context) *Error {
	timer := time.NewTimer(op.maxWait)
	defer timer.Stop()
	select {
	case op.slots <- struct{}{}:
		return nil
	case <-timer.C:
		op.meter.Refuse()
		return refused(op.maxWait, ReasonBacklogWait)
	case <-ctx.Done():
		op.meter.Expire()
		return neverRan(ContextError(ctx))
	}
}

// neverRan is the error of a call that ended while it waited to run.
func neverRan(e *Error) *Error {
	if e.Code == DeadlineExceeded {
		e = e.WithReason(ReasonExpired)
	}
	return e.WithOutcome(NotExecuted)
}

// refused is the answer to a call that found no room; half the longest wait is a fair guess when there will be some.
func refused(wait time.Duration, reason string) *Error {
	e := ResourceExhausted.New("the service is at its limit").WithReason(reason).WithOutcome(NotExecuted)
	return e.WithRetryAfter(wait / 2)
}

func (x *muxCall) send(ctx context.Context) func(any) error {
	return func(m any) error {
		body, mediaType, err := x.server.EncodeItem(m)
		if err != nil {
			return err
		}
		it := muxItem{body: bytes.Clone(body), mediaType: mediaType} // a Payload's bytes are still the handler's
		if !x.sent {
			if err := x.server.Reply.Fault(Internal); err != nil {
				return err
			}
			it.first, it.header = true, x.server.Reply.Clone()
		}
		select {
		case x.out <- it:
			x.sent = true
			return nil
		case <-ctx.Done():
			return ContextError(ctx)
		}
	}
}

func (x *muxCall) recv(ctx context.Context) func() (any, error) {
	return func() (any, error) {
		x.feed.Do(func() { go x.upload(ctx) })
		select {
		case it, ok := <-x.in:
			if !ok {
				return nil, io.EOF
			}
			x.touch()
			return x.server.DecodeRequestItem(it.body, it.mediaType)
		case <-ctx.Done():
			return nil, ContextError(ctx)
		}
	}
}

// upload pulls the caller's items and carries them over. It ends with the input, or when the handler has ended. Only a true
// end closes the channel: to a handler a stream that broke off must never look complete.
func (x *muxCall) upload(ctx context.Context) {
	for {
		m, err := x.client.Recv()
		if err == io.EOF { //nolint:errorlint // itself: what wraps one is a stream that broke off
			close(x.in)
			return
		}
		var it muxItem
		if err == nil {
			it.body, it.mediaType, err = x.client.EncodeItem(m)
		}
		if err != nil {
			x.fault = err
			close(x.broken)
			return
		}
		it.body = bytes.Clone(it.body)
		select {
		case x.in <- it:
		case <-x.done:
			return
		case <-ctx.Done():
			return
		}
	}
}
