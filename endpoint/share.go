package endpoint

import (
	"bytes"
	"reflect"

	"postbus.example/codec"
)

// Detach returns a call of its own with the same request, as bytes, and a copy of the headers. It may outlive c: it is what
// middleware hands to next when one execution serves several calls. It is begun by [Call.Begin] and not ended; its
// results go to one call by [Call.Adopt] and to any number by [Call.Result] and [Call.Replay]. From then on c counts as
// executed when the detached call is, see [Call.Follow]. The error is that of encoding the request: invalid_argument,
// NotSent.
func (c *Call) Detach() (*Call, error) {
	body, mediaType, err := c.Encoded()
	if err != nil {
		return nil, err
	}
	r := c.root
	d := &Call{
		Spec: c.Spec, Subject: c.Subject, Side: c.Side, Attempt: c.Attempt, Header: c.Header.Clone(),
		instance: c.instance, trace: c.trace, received: c.received, codec: r.codec, codecs: c.codecs,
		encoded: true, body: bytes.Clone(body), bodyType: mediaType, maxReply: c.maxReply, observer: r.observer,
	}
	d.root = d
	d.taken.Store(r.taken.Load())
	c.Follow(d)
	return d, nil
}

// Follow tells that a detached call is executed on behalf of c as well: once the function was entered for it, the
// errors of c are Executed, too. It is for middleware.
func (c *Call) Follow(detached *Call) {
	if c.outcome() == Executed { // by what it followed until now
		c.root.entered.Store(true)
	}
	c.root.follows.Store(detached.root)
}

// Result is the reply of a unary call as it travelled: bytes, headers, and who served it. It is immutable, and safe for
// concurrent use.
type Result struct {
	body            []byte
	mediaType       string
	header, trailer Header
	instance        string
	codec           codec.Codec // of the server's side
	codecs          codec.Set   // of the client's side
}

// Size returns how many bytes the reply and its headers take, about.
func (r *Result) Size() int { return len(r.body) + r.header.weight() + r.trailer.weight() }

func (h *Header) weight() int {
	const field = 32 // two strings
	return h.size() + field*len(h.fields)
}

// Result copies the reply that next returned, for calls that get the same one by [Call.Replay]. A reply that a middleware
// put in place of what travelled is encoded. It is for middleware, on both sides.
func (c *Call) Result(reply any) (*Result, error) {
	body, mediaType, err := c.travelled(reply)
	if err != nil {
		return nil, err
	}
	return &Result{
		body: bytes.Clone(body), mediaType: mediaType, header: c.Reply.Clone(), trailer: c.Trailer.Clone(),
		instance: c.instance, codec: c.codec, codecs: c.codecs,
	}, nil
}

func (c *Call) travelled(reply any) (body []byte, mediaType string, err error) {
	if c.Side == ServerSide {
		return c.EncodedReply(reply)
	}
	if err := c.checkReply(reply); err != nil {
		return nil, "", err
	}
	if reply == c.replyMsg {
		return c.reply, c.replyType, nil
	}
	body, mediaType, _, err = encode(c.root.codec, reply)
	if err != nil {
		return nil, "", encodeFault(Internal, err, "reply", reply)
	}
	return body, mediaType, nil
}

// Replay gives c a reply that another call of the same operation got, and returns it decoded: each call has a message of its
// own. On the server's side the bytes are sent as they are. It is for middleware, in place of next.
func (c *Call) Replay(r *Result) (any, error) {
	body := r.body
	if c.Spec.respPay || messageType(c.Spec.Response) == reflect.TypeFor[*[]byte]() {
		body = bytes.Clone(body) // the message is this memory, and its owner may change it
	}
	c.Reply, c.Trailer = r.header.Clone(), r.trailer.Clone()
	if c.Side == ServerSide {
		return c.replayServer(r, body)
	}
	c.instance, c.reply, c.replyType = r.instance, body, r.mediaType
	m, err := c.DecodeItem(body, r.mediaType, r.codecs)
	c.replyMsg = m
	return m, err
}

func (c *Call) replayServer(r *Result, body []byte) (any, error) {
	m := c.Spec.NewResponse()
	if err := decode(r.codec, r.mediaType, body, m); err != nil {
		return nil, Internal.Wrap(err, "").WithReason(panicOr(err, ReasonDecode))
	}
	c.free()
	if c.maxReply > 0 && len(body) > c.maxReply {
		return nil, replyTooLarge(len(body), c.maxReply)
	}
	if c.Spec.respPay || c.codec != nil && c.codec.Name() == r.mediaType { // else it is encoded as this call asks for
		c.reply, c.replyType, c.replyMsg = body, r.mediaType, m
	}
	return m, nil
}

// WrapRecv puts wrap around what [Call.Recv] gives: request items, before the handler gets them on the server's side, before
// they are sent on the client's. It does nothing where the request is no stream. It is for middleware, before it calls next.
func (c *Call) WrapRecv(wrap func(recv func() (any, error)) func() (any, error)) {
	if c.recv != nil {
		c.recv = wrap(c.recv)
	}
}
