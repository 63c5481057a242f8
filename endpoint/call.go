package endpoint

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/codec"
)

// Call is one RPC in flight, as one side sees it. Middleware reads and changes the exported fields before it calls next
// and reads the results after; the fields are not for concurrent use. A Call is not used after its Handler returned.
type Call struct {
	Spec    *Spec
	Subject string
	Side    Side
	encoded bool   // of the request: body is what msg became
	place   place  // in the chain, see guard
	Attempt int    // 0 for the first
	Header  Header // request metadata: read by servers, written by clients
	Reply   Header // reply metadata: the other way round (for streams: sent with the open)
	Trailer Header // sent with the end of a stream, or beside Reply

	root     *Call // the first attempt, which holds what attempts share; itself in the first
	instance string
	trace    string
	received time.Time
	since    time.Duration // from then to the time that is handed on, see Now
	codec    codec.Codec   // how this side encodes, and decodes what is of its media type
	codecs   codec.Set     // what else a server's request items may come in
	recv     func() (any, error)
	send     func(any) error

	// The request: the message, and its encoding. mu guards both of the root: attempts may run at once.
	mu       sync.Mutex
	msg      any
	body     []byte
	bodyType string
	bodyErr  *Error

	// The reply as it travelled.
	replyMsg  any
	reply     []byte
	replyType string
	maxReply  int

	buf       *[]byte // pooled memory of body (client) or reply (server)
	attempts  atomic.Int32
	entered   atomic.Bool          // of the root: the user's function was entered, in any attempt
	follows   atomic.Pointer[Call] // of the root: see Follow
	committed atomic.Bool
	taken     atomic.Bool // see TakeRetries
	ctx       callContext
	observer  *observer
	fault     *Error    // what a middleware did that it must not, see guard
	pooled    *bareCall // what it is part of, nil for a call of its own
}

// NewCall makes the call of one request. It is for transports; see SetBody, SetStream, SetInstance, SetReceived, Begin
// and End.
func NewCall(s *Spec, subject string, side Side) *Call {
	c := &Call{Spec: s, Subject: subject, Side: side}
	c.root = c
	return c
}

// Message returns the request message, a pointer. On the server's side it is decoded on first use, so that middleware
// which refuses by header or size pays nothing; bad bytes are invalid_argument. It is nil, with an error, for calls whose
// request is a stream.
func (c *Call) Message() (any, error) {
	r := c.root
	if c.Spec.Kind.StreamsIn() {
		return nil, Internal.New("a stream of requests has no single message")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.decoded()
}

// decoded is the request of the first attempt, which all share (lock held, or nobody else has the call yet).
func (c *Call) decoded() (any, error) {
	if c.msg == nil {
		m := c.Spec.NewRequest()
		if err := decode(c.codec, c.bodyType, c.body, m); err != nil {
			return nil, decodeFault(err, c.bodyType).WithOutcome(NotExecuted)
		}
		c.msg = m
	}
	return c.msg, nil
}

// Body returns the request as it travels; on the client's side it is encoded at first use, once for all attempts. The
// slice must not be changed, and not used after the Handler returned. It is nil when encoding fails: see Encoded.
func (c *Call) Body() []byte {
	b, _, _ := c.Encoded()
	return b
}

// Encoded is Body with its media type and the error of encoding: invalid_argument, NotSent. It is for transports.
func (c *Call) Encoded() (body []byte, mediaType string, err error) {
	r := c.root
	r.mu.Lock()
	if r.encoded {
		r.mu.Unlock()
	} else if r.encodeRequest(); r.buf != nil {
		c.hush() // a large message takes a while
	}
	if r.bodyErr != nil { // from now on it stays as it is
		return nil, r.bodyType, r.bodyErr
	}
	return r.body, r.bodyType, nil
}

// encodeRequest makes the body of the first attempt, which all share (lock held, which it gives back). A codec may need a lot of
// the stack, where all of a caller's middleware stands already: so encode is called only where nothing is written.
func (c *Call) encodeRequest() {
	defer c.mu.Unlock()
	c.encoded = true
	var err error
	switch {
	case c.msg == nil:
		if c.codec != nil {
			c.bodyType = c.codec.Name()
		}
	case written(c.codec, c.msg):
		c.buf = buffers.Get().(*[]byte)
		if err = write(c.buf, c.codec, c.msg); err == nil {
			c.body, c.bodyType = *c.buf, c.codec.Name()
		}
	default:
		c.body, c.bodyType, c.buf, err = encode(c.codec, c.msg)
	}
	if err != nil {
		c.unencoded(err)
	}
}

// unencoded notes why there is no body.
func (c *Call) unencoded(err error) {
	c.body, c.bodyType, c.buf = nil, "", nil
	c.bodyErr = encodeFault(InvalidArgument, err, "request", c.msg).WithOutcome(NotSent)
}

// SetBody gives a server's call its request as it arrived, with its media type and the codec for it (nil if the message
// is a Payload). The reply is encoded with the same codec. The body must stay unchanged until the call ended, and for
// good when the codec is Raw or the message a Payload. It is for transports.
func (c *Call) SetBody(body []byte, mediaType string, with codec.Codec) {
	c.body, c.bodyType, c.codec, c.encoded = body, mediaType, with, true
	if c.pooled != nil && with == codec.Raw && !c.Spec.reqPtr && isRaw(c.Spec.Request) {
		c.pooled.asked = slices.Clip(body)
		c.msg = &c.pooled.asked
	}
}

// SetBodyAt is SetBody of bytes that stay where they are: with codec Raw, body itself becomes the message. It is for transports.
func (c *Call) SetBodyAt(body *[]byte, mediaType string, with codec.Codec) {
	c.body, c.bodyType, c.codec, c.encoded = *body, mediaType, with, true
	if with == codec.Raw && isRaw(c.Spec.Request) {
		*body = slices.Clip(*body)
		c.msg = body
	}
}

// Trace returns the W3C traceparent of the call, "" if it has none: what SetTrace set, else the header's.
func (c *Call) Trace() string {
	if c.trace != "" {
		return c.trace
	}
	return c.Header.Get("traceparent")
}

// SetTrace sets the traceparent. It is for tracing middleware and transports.
func (c *Call) SetTrace(traceparent string) { c.trace = traceparent }

// Received returns when the request arrived at this side; on the client's side, when the call was made.
func (c *Call) Received() time.Time { return c.received }

// SetReceived is for transports.
func (c *Call) SetReceived(t time.Time) { c.received = t }

// Instance returns the id of the instance that served the call (client side, "" if unknown), or that we are (server side).
func (c *Call) Instance() string { return c.instance }

// SetInstance is for transports.
func (c *Call) SetInstance(id string) { c.instance = id }

// Sizes returns the encoded sizes of request and reply in bytes, 0 for what is not known (yet).
func (c *Call) Sizes() (request, reply int) {
	c.root.mu.Lock()
	defer c.root.mu.Unlock()
	if c.root.encoded { // before, its bytes may be those of the message
		request = len(c.root.body)
	}
	return request, len(c.reply)
}

// Retry returns a fresh attempt of the same call: its own copy of Header, empty Reply and Trailer, the next Attempt
// number; the message, its encoding and the commitment are shared. Attempts may run at once; to make one while c runs,
// see Beside.
func (c *Call) Retry() *Call { return c.Beside(c.Header.Clone(), c.trace) }

// Adopt takes over the results of an attempt that won, or of a detached call: its reply, metadata and instance. Only one
// call may: the message is shared.
func (c *Call) Adopt(attempt *Call) {
	if attempt == c {
		return
	}
	c.Reply, c.Trailer, c.instance = attempt.Reply, attempt.Trailer, attempt.instance
	c.reply, c.replyType, c.replyMsg, c.codecs = attempt.reply, attempt.replyType, attempt.replyMsg, attempt.codecs
	if c.fault == nil {
		c.fault = attempt.fault
	}
}

// End releases what the call holds: its context and its pooled memory. Bodies are not to be used afterwards. It is for
// transports, once, after the reply was sent.
func (c *Call) End() {
	if x := c.own(); x.parent != nil {
		x.end()
	}
	if c.root.attempts.Load() == 0 { // another attempt may still be sending the body: leave it to the collector
		c.free()
	}
	if c.pooled != nil {
		c.pooled.recycle()
	}
}

func (c *Call) free() {
	if c.buf != nil {
		putBuffer(c.buf)
		c.buf = nil
		if c.Side == ClientSide {
			c.body = nil
		} else {
			c.reply = nil
		}
	}
}
