package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// A message above the broker's max_payload is a parcel: it is announced, and comes in chunks once its receiver has said where to.
// Its two ends are a clientParcel and a serverParcel; either may send, receive, or do one after the other.
//
//	caller                                          service
//
//	request, Rpc-Size ──► announced ──────────────► waits, then runs: there is room ──► open
//	                          │ ◄─────── open ──────────────────────────────────────────┤
//	                          ▼                                                         ▼
//	   nothing was executed   ├ ◄─── credit ──── chunks ──────────────────────────► put together
//	   before the last chunk  ▼                                                         ▼
//	                        waits                                                    handler
//	                          │ ◄─── reply, Rpc-Size: announced ────────────────────────┤
//	      there is room ──►   ├──── credit ───────────────────────────────────────────► │
//	                          ▼ ◄─── chunks ────────────────────────────────────────────┤
//	                    put together                                                  ended
//
// Both: a caller that leaves, or refuses, cancels; a service that does answers with an error. The subscriptions' callbacks take
// frames and never wait, the goroutines of the call and of its handler do the rest.

const (
	parcelPause    = time.Second      // without a chunk, credit is granted once more: it may have been lost
	parcelPatience = 15 * time.Second // with a peer that says nothing
	parcelLeast    = 64 << 10         // bytes a second, beside that patience: who is slower would keep room from others for hours

	chunkHeaders = 1 << 10 // bytes of headers of a chunk, at most
	mostDecoded  = 1 << 20 // bytes that a compressed chunk may become
)

// parcel is what both ends have in common.
type parcel struct {
	bus   *Bus
	blame endpoint.Code // of a peer at fault
	news  chan struct{} // has an element when something changed

	in    stream.Assembly // of the message that comes, for who puts it together
	coded bool            // its chunks are

	mu    sync.Mutex
	to    string          // where the peer listens, "" as long as that is not known
	out   stream.Sender   // credit for chunks that go
	open  stream.Receiver // and for those that come
	queue [][]byte        // chunks that came and were not put together: bounded by credit
	full  bool            // the message is whole: nothing more of it can come
	heard time.Time       // when the peer last said something
	again func()          // announces the message once more, as long as nobody grants credit for it; nil: there is nothing to announce
	broke error           // why nothing comes or goes any more
}

func (x *parcel) prepare(b *Bus, blame endpoint.Code) {
	x.bus, x.blame, x.news, x.heard = b, blame, make(chan struct{}, 1), time.Now()
}

var (
	errStill = endpoint.Unavailable.New("the peer is silent in the middle of a message").WithReason(endpoint.ReasonInstanceSilent)
	errSlow  = endpoint.Unavailable.New("the message comes too slowly").WithReason(endpoint.ReasonInstanceSilent)
	errCoded = errors.New("a chunk that can't be decoded")
	errOdd   = errors.New("a frame that must not be")
)

// fail ends the parcel, unless it has ended.
func (x *parcel) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.breaks(err)
}

// breaks is fail with the lock held.
func (x *parcel) breaks(err error) {
	if x.broke == nil {
		x.broke = err
	}
	signal(x.news)
}

// fault is the error of a frame that must not be.
func (x *parcel) fault(err error) *endpoint.Error {
	if stream.Lost(err) {
		return endpoint.DataLoss.Wrap(err, "chunks of the message were lost: "+err.Error())
	}
	x.bus.malformed.Add(1)
	return x.blame.Wrap(err, "the peer broke the protocol of messages in chunks: "+err.Error()).WithReason(endpoint.ReasonProtocol)
}

// expect lets chunks come of a message that was announced.
func (x *parcel) expect(size uint64, encoding string) {
	x.in, x.coded = stream.NewAssembly(int(size)), encoding == wire.S2
	x.mu.Lock()
	x.open = stream.NewReceiver(wire.ChunkGrant())
	x.heard = time.Now()
	x.mu.Unlock()
}

// chunk takes one that came (lock held). Its headers are kept with it, and there is no credit for those.
func (x *parcel) chunk(seq uint64, m *nats.Msg) {
	if x.full {
		x.bus.malformed.Add(1)
		return
	}
	body := m.Data
	err := x.open.Item(seq, len(body))
	switch {
	case err != nil:
	case len(body) == 0:
		err = stream.ErrEmpty
	case wire.Size(wire.Headers(m.Header)) > chunkHeaders:
		err = errOdd
	}
	if err != nil {
		x.breaks(x.fault(err))
		return
	}
	x.queue = append(x.queue, body)
	signal(x.news)
}

// collect puts the message together.
func (x *parcel) collect(ctx context.Context, self string) ([]byte, error) {
	tick := time.NewTicker(parcelPause)
	defer tick.Stop()
	limit := time.Now().Add(parcelPatience + time.Duration(x.in.Total())*time.Second/parcelLeast)
	for {
		x.mu.Lock()
		chunks, broke := x.queue, x.broke
		x.queue = nil
		x.mu.Unlock()
		for _, c := range chunks {
			if err := x.put(c); err != nil {
				return nil, err
			}
		}
		switch whole := x.in.Whole(); {
		case whole != nil:
			x.mu.Lock()
			x.full, x.queue = true, nil
			x.mu.Unlock()
			return whole, nil
		case broke != nil:
			return nil, broke
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case time.Now().After(limit):
			return nil, errSlow
		}
		select {
		case <-x.news:
		case <-ctx.Done():
		case <-tick.C:
			if err := x.still(self); err != nil {
				return nil, err
			}
		}
	}
}

// put puts a chunk where it belongs, and tops up the credit when it is time.
func (x *parcel) put(chunk []byte) error {
	n := len(chunk)
	if x.coded {
		var err error
		if n, err = s2.DecodedLen(chunk); err != nil || n > mostDecoded {
			return x.fault(errCoded) // before there is memory for what it says
		}
	}
	room, err := x.in.Room(n)
	if err != nil {
		return x.fault(err)
	}
	if !x.coded {
		copy(room, chunk)
	} else if _, err := s2.Decode(room, chunk); err != nil {
		return x.fault(errCoded)
	}
	x.mu.Lock()
	due, to := x.open.Use(len(chunk)), x.to
	var g wire.Grant
	if due {
		g = x.open.TopUp(time.Now())
	}
	x.mu.Unlock()
	if due && x.in.Whole() == nil {
		x.grant(to, "", g)
	}
	return nil
}

// still is for a while in which nothing may have come: what was granted may be lost, or the peer.
func (x *parcel) still(self string) error {
	x.mu.Lock()
	silent, g, to := time.Since(x.heard), x.open.Granted(), x.to
	x.mu.Unlock()
	switch {
	case silent >= parcelPatience:
		return errStill
	case silent >= parcelPause:
		x.grant(to, self, g)
	}
	return nil
}

// grant sends credit, which may get lost.
func (x *parcel) grant(to, self string, g wire.Grant) {
	if !x.bus.connected() {
		return // to publish would be to wait where a connection is being made
	}
	_ = x.bus.nc.PublishMsg(&nats.Msg{Subject: to, Reply: self, Header: nats.Header(wire.WriteWindow(g))})
}

// granted takes credit (lock held).
func (x *parcel) granted(g wire.Grant) {
	if err := x.out.Grant(g); err != nil {
		x.breaks(x.fault(err))
	}
	signal(x.news)
}

// send sends a message in chunks.
func (x *parcel) send(ctx context.Context, body []byte, coded bool, last func()) error {
	tick := time.NewTicker(parcelPause)
	defer tick.Stop()
	size := wire.ChunkSize(x.bus.maxPayload.Load())
	var room []byte
	if coded {
		room = make([]byte, s2.MaxEncodedLen(size))
	}
	for len(body) > 0 {
		seq, to, err := x.turn(ctx, tick.C)
		if err != nil {
			return err
		}
		chunk := body[:min(size, len(body))]
		if body = body[len(chunk):]; len(body) == 0 {
			last()
		}
		if coded {
			chunk = s2.Encode(room, chunk)
		}
		if err := x.publish(ctx, to, "", wire.WriteItem(seq, ""), chunk); err != nil {
			return err
		}
		x.mu.Lock()
		x.out.Sent(len(chunk))
		x.mu.Unlock()
	}
	return nil
}

// turn waits until one more chunk may be sent.
func (x *parcel) turn(ctx context.Context, tick <-chan time.Time) (seq uint64, to string, err error) {
	for {
		x.mu.Lock()
		broke, ready, silent := x.broke, x.to != "" && x.out.Ready(), time.Since(x.heard)
		seq, to = x.out.Next(), x.to
		x.mu.Unlock()
		switch {
		case broke != nil:
			return 0, "", broke
		case ctx.Err() != nil:
			return 0, "", ctx.Err()
		case ready:
			return seq, to, nil
		case silent >= parcelPatience:
			return 0, "", errStill
		}
		select {
		case <-x.news:
		case <-tick:
			if to == "" && x.again != nil {
				x.again()
			}
		case <-ctx.Done():
		}
	}
}

// publish sends what must not get lost. While the connection has no room it waits.
func (x *parcel) publish(ctx context.Context, to, reply string, h wire.Headers, body []byte) error {
	limit, ok := ctx.Deadline()
	if !ok {
		limit = time.Now().Add(parcelPatience)
	}
	size := len(body) + wire.Size(h)
	place, _, err := x.bus.up.Admit(size, limit, ctx.Done())
	if err != nil {
		return x.bus.noPlace(ctx, err)
	}
	defer place.Release(size)
	if err := x.bus.nc.PublishMsg(&nats.Msg{Subject: to, Reply: reply, Header: nats.Header(h), Data: body}); err != nil {
		return x.bus.sendError(err, size)
	}
	return nil
}
