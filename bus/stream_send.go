package bus

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

var (
	errCapped = errors.New("no more credit")
	errOver   = endpoint.Canceled.New("the stream is over")
)

// turn waits until one more item may be sent, and returns its number and where to.
func (l *line) turn(ctx context.Context, capped bool) (seq uint64, to string, err error) {
	for {
		l.mu.Lock()
		broke, ready := l.broke, l.to != "" && l.out.Ready()
		seq, to = l.out.Next(), l.to
		l.mu.Unlock()
		switch {
		case broke != nil:
			return 0, "", broke
		case ctx.Err() != nil:
			return 0, "", endpoint.ContextError(ctx)
		case ready:
			return seq, to, nil
		case capped:
			return 0, "", errCapped
		}
		l.bus.up.Latest().Flush()
		select {
		case <-l.clear:
		case <-l.ended:
			return 0, "", errOver
		case <-ctx.Done():
		}
	}
}

// sent takes note of an item that was published.
func (l *line) sent(size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out.Sent(size)
	l.active()
}

// publishItem sends an item with a number and perhaps a media type.
func (l *line) publishItem(ctx context.Context, to string, seq uint64, mediaType string, body []byte) error {
	if mediaType == "" {
		if done, err := l.express(ctx, to, seq, body); done {
			return err
		}
	}
	return l.publish(ctx, to, l.itemHeaders(seq, mediaType), body)
}

// itemHeaders makes the headers of an item. Most have a number only: for those one map serves the whole stream, since what is
// published is written at once, and one goroutine sends.
func (l *line) itemHeaders(seq uint64, mediaType string) wire.Headers {
	if mediaType != "" {
		return wire.WriteItem(seq, mediaType)
	}
	if l.plainItem == nil {
		l.number = make([]string, 1)
		l.plainItem = wire.Headers{wire.Seq: l.number}
	}
	l.number[0] = strconv.FormatUint(seq, 10)
	return l.plainItem
}

// express sends an item that has a number and nothing else past nats.go; false where that can't be.
func (l *line) express(ctx context.Context, to string, seq uint64, body []byte) (done bool, err error) {
	b := l.bus
	o := b.up.Latest()
	if len(body) >= straight || !b.puts(o, len(body)+uplink.MaxItemHead) {
		return false, nil
	}
	if l.library && !b.passedOn() {
		return false, nil
	}
	l.library = false
	l.room = uplink.AppendItem(l.room[:0], to, seq, len(body))
	size := len(l.room) + len(body) + len("\r\n")
	place, err := l.place(ctx, size)
	if err == nil && place != o { // the connection is another, and not ready yet
		place.Release(size)
		return false, nil
	}
	if err == nil {
		if err = o.Post(l.room, body); err != nil {
			o.Release(size)
		}
	}
	return true, err
}

// place takes room for a message. While the connection has none it waits: that is how a slow network holds back who sends.
func (l *line) place(ctx context.Context, size int) (*uplink.Outlet, error) {
	if o := l.bus.up.Latest(); o != nil && o.Up() && o.Reserve(size) {
		return o, nil
	}
	o, _, err := l.bus.up.Admit(size, time.Now().Add(time.Minute), ctx.Done())
	return o, err
}

// publish sends what must not get lost.
func (l *line) publish(ctx context.Context, to string, h wire.Headers, body []byte) error {
	size := len(body) + wire.Size(h)
	place, err := l.place(ctx, size)
	if err != nil {
		return err
	}
	defer place.Release(size)
	l.library = true
	return l.bus.nc.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header(h), Data: body})
}
