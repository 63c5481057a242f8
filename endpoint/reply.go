package endpoint

import (
	"fmt"
	"reflect"
	"slices"

	"postbus.example/codec"
)

// The reply of a call: on the client's side as it arrived, and decoded; on the server's side what the chain returned, encoded within
// it, and the error that is told in its place.

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
