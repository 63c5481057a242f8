package bus

import (
	"context"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// Fed is a caller's end of a stream of the server's that is fed by hand, with a bus beneath it but no broker between.
type Fed struct {
	x     *clientStream
	token string
}

// Feed begins one.
func (b *Bus) Feed(subject string) *Fed {
	s := &endpoint.Spec{Kind: endpoint.ServerStreamKind}
	x := &clientStream{p: &proxy{bus: b, subject: subject}, c: endpoint.NewCall(s, subject, endpoint.ClientSide), subj: subject, opened: make(chan struct{})}
	x.prepare(b, endpoint.Internal, x.tellService)
	x.in = stream.NewReceiver(wire.DefaultGrant())
	x.slot, x.secret = b.mux.open(request{subject, time.Now(), b.up.Epoch()}, x.deliver)
	return &Fed{x, string(wire.AppendID(nil, x.slot.index, x.secret))}
}

// Take gives it a message.
func (f *Fed) Take(m *nats.Msg) { f.x.bus.mux.hand(nil, f.token, m) }

// Next is the consumer's next step; not ok if there is nothing to be taken.
func (f *Fed) Next() (body []byte, code endpoint.Code, end, ok bool) {
	it, err, ok := f.x.poll(context.Background())
	switch {
	case !ok:
		return nil, 0, false, false
	case err == io.EOF: //nolint:errorlint // itself: the end
		f.x.mu.Lock()
		defer f.x.mu.Unlock()
		return nil, endpoint.CodeOf(f.x.final), true, true
	case err != nil:
		return nil, endpoint.CodeOf(err), false, true
	}
	f.x.used(it)
	return it.body, endpoint.OK, false, true
}

// End gives back what it holds.
func (f *Fed) End() {
	f.x.until = time.Now() // no longer than that waits for an open
	f.x.close(context.Background(), nil)
}

// Control has the bus take a message about a call of which it is the service.
func (b *Bus) Control(call string, m *nats.Msg) { b.controlled(call, m) }
