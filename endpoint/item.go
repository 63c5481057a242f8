package endpoint

import (
	"io"

	"postbus.example/codec"
)

// The items of a call that streams: how they are encoded and decoded, and the functions that take and bring them.

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
