package endpoint

import "time"

// TakeRetries is asked by middleware that makes more than one attempt of a call, such as retry and hedge, before its first
// one. It reports true once for each call and all of its attempts: the outermost such middleware takes charge, the
// others pass through, so that attempts never multiply. It is safe for concurrent use.
func (c *Call) TakeRetries() bool { return !c.root.taken.Swap(true) }

// Beside is Retry for an attempt that is to run beside c, which has been handed to its own handler already: header and
// trace are what c had before, since what it has now is that handler's. The header becomes the attempt's, and is not copied.
func (c *Call) Beside(header Header, trace string) *Call {
	r := c.root
	a := &Call{
		Spec: c.Spec, Subject: c.Subject, Side: c.Side, Attempt: int(r.attempts.Add(1)), Header: header,
		root: r, trace: trace, received: time.Now(), codec: c.codec, recv: r.recv, send: r.send, maxReply: c.maxReply,
	}
	if c.Side == ServerSide { // a client's are set by its reply
		a.codecs = c.codecs
	}
	return a
}
