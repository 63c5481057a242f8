package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

const (
	reasonBacklogFull = endpoint.ReasonBacklogFull
	reasonBacklogWait = endpoint.ReasonBacklogWait
	reasonDraining    = endpoint.ReasonDraining
)

// What is garbled says something, and nobody knows what.
var (
	errGarbledRequest = endpoint.InvalidArgument.New("the headers of the request can't be read").WithReason(endpoint.ReasonMalformedHeader)
	errGarbledReply   = endpoint.Internal.New("the headers of the reply can't be read").WithReason(endpoint.ReasonProtocol)
	errMisunderstood  = endpoint.Internal.New("who answered takes no batch frames").WithReason(endpoint.ReasonProtocol)
)

var errNoEndpoint = endpoint.NotFound.New("the service has no endpoint on this subject").WithOutcome(endpoint.NotExecuted)

// offline tells a connection that is away for now from one that is gone.
func (b *Bus) offline() *endpoint.Error {
	if b.nc.IsClosed() {
		return b.sendError(nats.ErrConnectionClosed, 0)
	}
	return b.sendError(nats.ErrDisconnected, 0)
}

// ended is for calls that nobody receives a reply to any more: the bus has come to its end, or its connection.
func (b *Bus) ended() *endpoint.Error {
	if b.nc.IsClosed() {
		return b.sendError(nats.ErrConnectionClosed, 0)
	}
	return endpoint.Unavailable.New("the bus is closed").WithReason(endpoint.ReasonConnectionClosed).WithOutcome(endpoint.NotSent)
}

// oversize refuses headers of a request that are too many, or too much, with ours on top of the application's: a service counts
// all of them. Of a reply those of the application count alone.
func oversize(h wire.Headers) *endpoint.Error {
	e := func(format string, n, most int) *endpoint.Error {
		return endpoint.InvalidArgument.Errorf(format, n, most).WithReason(endpoint.ReasonHeaderTooLarge).WithOutcome(endpoint.NotSent)
	}
	if n := wire.Size(h); n > endpoint.MaxHeaderBytes {
		return e("headers of %d bytes, at most %d are sent", n, endpoint.MaxHeaderBytes)
	}
	if n := wire.Lines(h); n > endpoint.MaxHeaderLines {
		return e("%d headers, at most %d are sent", n, endpoint.MaxHeaderLines)
	}
	return nil
}

// noPlace turns what the uplink refuses into an error of the call: nothing was sent.
func (b *Bus) noPlace(ctx context.Context, err error) *endpoint.Error {
	switch {
	case errors.Is(err, uplink.ErrStuck):
		return endpoint.ResourceExhausted.Wrap(err, err.Error()).WithReason(endpoint.ReasonWriteBacklog).
			WithRetryAfter(uplink.StuckAfter).WithOutcome(endpoint.NotSent)
	case errors.Is(err, nats.ErrDisconnected):
		return b.sendError(err, 0)
	default: // the caller's own end
		return endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
	}
}

// sendError turns the failure of a publish into an error of the call: nothing was sent.
func (b *Bus) sendError(err error, size int) *endpoint.Error {
	e := func(code endpoint.Code, reason, format string, a ...any) *endpoint.Error {
		return code.Wrap(err, fmt.Sprintf(format, a...)).WithReason(reason).WithOutcome(endpoint.NotSent)
	}
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return e(endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge,
			"the request has %d bytes with its headers, the broker takes %d", size, b.nc.MaxPayload())
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrDisconnected):
		return b.away(e(endpoint.Unavailable, endpoint.ReasonDisconnected, "no connection to the broker"))
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrInvalidConnection):
		return b.away(e(endpoint.Unavailable, endpoint.ReasonConnectionClosed, "the connection to the broker is closed"))
	case errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg), errors.Is(err, nats.ErrHeadersNotSupported):
		return e(endpoint.InvalidArgument, endpoint.ReasonProtocol, "the broker's client refuses the message: %v", err)
	default: // a write failed half-way: a part of it may be on its way
		return e(endpoint.Unavailable, endpoint.ReasonConnectionLost, "the request could not be written").
			WithOutcome(endpoint.MaybeExecuted)
	}
}

// away returns e, or that the broker does not let this client back in, where that is why there is no connection.
func (b *Bus) away(e *endpoint.Error) *endpoint.Error {
	if refusal := b.refusal(); refusal != nil {
		return endpoint.Unauthenticated.Wrap(refusal, "the broker refuses this client").WithOutcome(endpoint.NotSent)
	}
	return e
}
