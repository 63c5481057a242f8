package endpoint

import (
	"fmt"
	"io"
	"reflect"
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

// ReplyBody returns the reply as it travelled, valid until the Handler returned; nil before there is one.
func (c *Call) ReplyBody() []byte { return c.reply }

// SetReply gives a client's call the reply as it arrived and returns it decoded. An empty media type means the request's.
// Bytes or a type that can't be decoded are internal, Executed. The body must stay unchanged. It is for transports.
func (c *Call) SetReply(body []byte, mediaType string, set codec.Set) (any, error) {
	mediaType = c.replyMedia(mediaType)
	c.reply, c.replyType, c.codecs = body, mediaType, set
	m, err := c.DecodeItem(body, mediaType, set)
	c.replyMsg = m
	return m, err
}

// SetReplyAt is SetReply of bytes that stay where they are: with codec Raw, body itself becomes the reply. It is for
// transports.
func (c *Call) SetReplyAt(body *[]byte, mediaType string, set codec.Set) (any, error) {
	if c.root.codec != codec.Raw || !isRaw(c.Spec.Response) || mediaType != "" && mediaType != codec.Raw.Name() {
		return c.SetReply(*body, mediaType, set)
	}
	*body = slices.Clip(*body)
	c.reply, c.replyType, c.codecs, c.replyMsg = *body, codec.Raw.Name(), set, body
	return body, nil
}

func isRaw(t reflect.Type) bool {
	return t == reflect.TypeFor[*[]byte]() || t == reflect.TypeFor[[]byte]()
}

func (c *Call) replyMedia(mediaType string) string {
	switch {
	case mediaType != "":
		return mediaType
	case c.root.codec != nil && !c.Spec.reqPay: // what Encoded says, without its lock
		return c.root.codec.Name()
	}
	_, mediaType, _ = c.Encoded()
	return mediaType
}

// DecodeItem decodes one message of the reply on the client's side, by its media type; an empty one means the request's.
// It is for transports.
func (c *Call) DecodeItem(body []byte, mediaType string, set codec.Set) (any, error) {
	m := c.Spec.NewResponse()
	mediaType = c.replyMedia(mediaType)
	with := c.root.codec
	if !c.Spec.respPay && (with == nil || with.Name() != mediaType && with.Name() != codec.MediaType(mediaType)) {
		var ok bool
		if with, ok = set.Lookup(mediaType); !ok {
			return nil, Internal.Errorf("the reply is of type %.80q, which this caller can't decode", mediaType).
				WithReason(ReasonMediaType).WithOutcome(Executed)
		}
	}
	if err := decode(with, mediaType, body, m); err != nil {
		return nil, Internal.Wrap(fmt.Errorf("the reply can't be decoded as %v: %w", c.Spec.Response, err), "").
			WithReason(panicOr(err, ReasonDecode)).WithOutcome(Executed)
	}
	return m, nil
}

// SetMaxReply bounds the encoded reply in bytes; a larger one is resource_exhausted, told inside the chain. 0 means no
// bound. It is for transports.
func (c *Call) SetMaxReply(n int) { c.maxReply = n }

// answer encodes the handler's reply inside the chain, so that metrics and logs see an encode failure.
func (c *Call) answer(reply any) (any, error) {
	if isNil(reply) {
		return nil, Internal.Errorf("the handler returned a nil %v without an error", c.Spec.Response).WithOutcome(Executed)
	}
	if err := c.encodeReply(reply); err != nil {
		return nil, err
	}
	return reply, nil
}

func (c *Call) encodeReply(reply any) error {
	c.free()
	var err error
	c.reply, c.replyType, c.buf, err = encode(c.codec, reply)
	switch {
	case err != nil:
		c.reply, c.replyMsg = nil, nil
		return encodeFault(Internal, err, "reply", reply).WithOutcome(Executed)
	case c.maxReply > 0 && len(c.reply) > c.maxReply:
		n := len(c.reply)
		c.reply, c.replyMsg = nil, nil
		return replyTooLarge(n, c.maxReply)
	}
	c.replyMsg = reply
	return nil
}

func replyTooLarge(n, most int) *Error {
	return ResourceExhausted.Errorf("the reply has %d bytes, at most %d can be sent", n, most).
		WithReason(ReasonReplyTooLarge).WithOutcome(Executed)
}

// EncodedReply returns what a server's chain returned as bytes and media type. It encodes again only if a middleware
// replaced the value. The bytes are valid until End. It is for transports.
func (c *Call) EncodedReply(reply any) (body []byte, mediaType string, err error) {
	if reply == c.replyMsg && reply != nil { // answer made it, so it is of the type
		return c.reply, c.replyType, nil
	}
	if err := c.checkReply(reply); err != nil {
		return nil, "", err.WithOutcome(c.outcome())
	}
	if err := c.encodeReply(reply); err != nil {
		return nil, "", err
	}
	return c.reply, c.replyType, nil
}

// checkReply refuses what is not a message of the reply's type: a middleware may have put in its own.
func (c *Call) checkReply(m any) *Error {
	if want := messageType(c.Spec.Response); !isMessage(m, want) {
		return Internal.Errorf("a middleware replied with %T, want %v", m, want)
	}
	return nil
}

// isMessage reports whether m is of the wanted pointer type, and points to something.
func isMessage(m any, want reflect.Type) bool { return reflect.TypeOf(m) == want && !isNil(m) }

// EncodeItem encodes one message of a stream with the codec of this side. The bytes are the caller's. It is for transports.
func (c *Call) EncodeItem(m any) (body []byte, mediaType string, err error) {
	body, mediaType, _, err = encode(c.root.codec, m)
	switch {
	case err == nil:
		return body, mediaType, nil
	case c.Side == ClientSide:
		return nil, "", encodeFault(InvalidArgument, err, "item", m)
	}
	return nil, "", encodeFault(Internal, err, "item", m)
}

// SetCodecs gives a server's call the codecs that its request items may come in besides the codec of SetBody. It is for
// transports.
func (c *Call) SetCodecs(set codec.Set) { c.codecs = set }

// DecodeRequestItem decodes one message of a request stream on the server's side, by its media type; an empty one means
// that of the call. It is for transports.
func (c *Call) DecodeRequestItem(body []byte, mediaType string) (any, error) {
	m := c.Spec.NewRequest()
	with := c.codec
	if mediaType == "" {
		mediaType = c.root.bodyType
	} else if !c.Spec.reqPay && (with == nil || with.Name() != mediaType && with.Name() != codec.MediaType(mediaType)) {
		var ok bool
		if with, ok = c.codecs.Lookup(mediaType); !ok {
			return nil, InvalidArgument.Errorf("an item is of type %.80q, which is not accepted", mediaType).WithReason(ReasonMediaType)
		}
	}
	if err := decode(with, mediaType, body, m); err != nil {
		return nil, decodeFault(err, mediaType)
	}
	return m, nil
}

// Verdict turns what a server's chain returned into the error to send: what may cross (see [Crossing]), with the outcome
// Executed if the user's function was entered and NotExecuted if it certainly was not. It is for transports.
func (c *Call) Verdict(err error) *Error {
	e := Crossing(err)
	if e == nil {
		return nil
	}
	return e.WithOutcome(c.outcome())
}

func (c *Call) outcome() Outcome {
	for r := c.root; r != nil; r = r.follows.Load() {
		if r.entered.Load() {
			return Executed
		}
	}
	return NotExecuted
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

// SetStream gives a call its stream functions. On the server's side recv returns decoded requests, io.EOF at the end,
// and send takes replies; on the client's side a caller sets them: recv pulls the items to send, send delivers replies.
// It is for transports.
func (c *Call) SetStream(recv func() (any, error), send func(any) error) { c.recv, c.send = recv, send }

// Send passes an item on: to the peer on the server's side, to the consumer on the client's side. It blocks while the
// other end is not ready, and returns an error when it has left. It is not for concurrent use.
func (c *Call) Send(m any) error {
	if c.send == nil {
		return Internal.New("this call does not stream out")
	}
	if c.Spec.Kind != GatherKind && c.Spec.Response != nil {
		if err := c.checkReply(m); err != nil {
			return err
		}
	}
	c.root.committed.Store(true)
	return c.send(m)
}

// Recv returns the next item of the request stream, io.EOF at its end. It is not for concurrent use. It commits the call
// as soon as it asks: an item that a forsaken attempt still waits for would be lost to the next one.
func (c *Call) Recv() (any, error) {
	if c.recv == nil {
		return nil, io.EOF
	}
	c.root.committed.Store(true)
	return c.recv()
}

// Committed reports whether output was delivered or an input item taken, in any attempt: such a call must not be retried.
func (c *Call) Committed() bool { return c.root.committed.Load() }

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
