package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

// streamWords are what stands in Rpc-Stream.
var streamWords = map[endpoint.Kind]string{
	endpoint.ServerStreamKind: wire.StreamServer, endpoint.ClientStreamKind: wire.StreamClient, endpoint.BidiStreamKind: wire.StreamBidi,
}

// open takes a slot and sends the request of a stream.
func (x *clientStream) open(ctx context.Context, body []byte, mediaType string) error {
	b := x.bus
	now := time.Now()
	if gate := b.gate.Load(); gate != nil {
		limit := x.until
		if limit.IsZero() {
			limit = now.Add(b.timeout)
		}
		hold(*gate, limit, ctx.Done())
		now = time.Now()
	}
	if ctx.Err() != nil {
		return endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
	}
	epoch := b.up.Epoch()
	slot, secret := b.mux.open(request{x.subj, now, epoch}, x.deliver)
	if slot == nil {
		return b.ended()
	}
	x.mu.Lock()
	x.slot, x.secret = slot, secret
	x.mu.Unlock()
	slot.mu.Lock()
	slot.stream = x
	slot.mu.Unlock()
	token, h, err := x.compose(now, mediaType)
	if err == nil {
		x.mu.Lock()
		x.self = token
		x.mu.Unlock()
		x.start(stream.NewWatch(now, b.heartbeat, x.c.Spec.IdleTimeout))
		err = x.request(ctx, token, h, body, epoch)
	}
	if err != nil {
		x.stop()
		b.mux.close(slot)
	}
	return err
}

// compose makes the reply subject and the headers of the request.
func (x *clientStream) compose(now time.Time, mediaType string) (token string, h wire.Headers, err error) {
	b, c := x.bus, x.c
	meta := wire.Request{
		HasSent: true, Sent: now.UnixMilli(), MediaType: mediaType, Attempt: c.Attempt, Trace: c.Trace(),
		Stream: streamWords[c.Spec.Kind], Window: wire.DefaultGrant(), Heartbeat: b.heartbeat,
	}
	if !x.until.IsZero() {
		meta.HasTimeout, meta.Timeout = true, x.until.Sub(now)
	}
	to := wire.AppendID([]byte(b.mux.prefix), x.slot.index, x.secret)
	if b.headerMetadata {
		h = wire.Headers{}
		wire.WriteRequest(h, &meta)
	} else {
		if h = rest(&meta, c.Header.Get(wire.TraceParent) != ""); h == nil {
			h = wire.Headers{}
		}
		wire.WriteRest(h, &meta)
		to = wire.AppendToken(to, &meta)
	}
	if c.Header.Len() > 0 {
		if h, err = compound(h, &c.Header); err != nil {
			return "", nil, err
		}
	}
	if err := oversize(h); err != nil {
		return "", nil, err
	}
	return string(to), h, nil
}

// request publishes it.
func (x *clientStream) request(ctx context.Context, token string, h wire.Headers, body []byte, epoch uint64) error {
	b := x.bus
	limit := x.until
	if limit.IsZero() {
		limit = time.Now().Add(b.timeout)
	}
	size := len(body) + wire.Size(h) + len(token)
	place, _, err := b.up.Admit(size, limit, ctx.Done())
	if err != nil {
		return b.noPlace(ctx, err)
	}
	defer place.Release(size)
	if b.up.Lost(epoch) { // what is sent from now on nobody would call lost
		return b.sendError(nats.ErrDisconnected, 0)
	}
	if err := b.nc.PublishMsg(&nats.Msg{Subject: x.subj, Reply: token, Header: nats.Header(h), Data: body}); err != nil {
		return b.sendError(err, size)
	}
	return nil
}

// noPlaceOr tells what has no room from what can't be written.
func (b *Bus) noPlaceOr(ctx context.Context, err error) *endpoint.Error {
	if errors.Is(err, uplink.ErrStuck) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return b.noPlace(ctx, err)
	}
	return b.sendError(err, 0)
}
