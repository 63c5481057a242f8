package peer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"postbus.example/bench/harness"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

// A call of a stream is one stream from open to end. It has Items items, fewer of large ones, so that opening it costs nothing
// worth mentioning.
const (
	Items     = 10_000
	streamMax = 10 << 20 // bytes
)

func items(size int) int { return min(Items, max(1, streamMax/size)) }

// PostbusStream is ours with server streams of bytes.
func PostbusStream() harness.System {
	return harness.System{
		Name: "postbus-stream", Broker: true,
		Serve: serve("stream.bytes", endpoint.NewServerStream(tail), codec.Raw),
		Dial: func(url string) (func(int) harness.Call, error) {
			b, err := calling.attach(url, codec.Raw)
			if err != nil {
				return nil, err
			}
			tail := endpoint.ServerStreamCaller[[]byte, []byte](b, "stream.bytes")
			return func(size int) harness.Call {
				order := []byte(strconv.Itoa(size))
				return func(ctx context.Context) error {
					n := 0
					for item, err := range tail(ctx, order) {
						if err != nil {
							return err
						}
						if len(item) != size {
							return errWrong
						}
						n++
					}
					return whole(n, size)
				}
			}, nil
		},
	}
}

func whole(n, size int) error {
	if n != items(size) {
		return fmt.Errorf("%d of %d items came", n, items(size))
	}
	return nil
}

// tail yields the items of a size.
func tail(_ context.Context, order []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		size, err := strconv.Atoi(string(order))
		if err != nil {
			yield(nil, endpoint.InvalidArgument.New("no size"))
			return
		}
		item := body(size)
		for range items(size) {
			if !yield(item, nil) {
				return
			}
		}
	}
}

// RawStream is what nats.go carries by hand: one publishes as fast as it can, the other's callback counts. Nothing holds back who
// publishes, and nobody would notice a gap.
func RawStream() harness.System {
	return harness.System{
		Name: "raw-stream", Broker: true,
		Serve: func(url string) (string, error) {
			nc, err := serving.connect(url)
			if err != nil {
				return "", err
			}
			_, err = nc.QueueSubscribe("hand.stream", "q", func(m *nats.Msg) {
				size, err := strconv.Atoi(string(m.Data))
				if err != nil {
					return
				}
				item := body(size)
				for range items(size) {
					_ = nc.Publish(m.Reply, item)
				}
			})
			return url, errors.Join(err, nc.Flush())
		},
		Dial: func(url string) (func(int) harness.Call, error) {
			nc, err := calling.connect(url)
			if err != nil {
				return nil, err
			}
			return func(size int) harness.Call {
				return func(ctx context.Context) error { return countByHand(ctx, nc, size) }
			}, nil
		},
	}
}

// countByHand asks for items and waits until they are there.
func countByHand(ctx context.Context, nc *nats.Conn, size int) error {
	var n atomic.Int64
	done := make(chan struct{})
	inbox := nc.NewRespInbox()
	sub, err := nc.Subscribe(inbox, func(m *nats.Msg) {
		if len(m.Data) == size && n.Add(1) == int64(items(size)) {
			close(done)
		}
	})
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	if err := nc.PublishRequest("hand.stream", inbox, []byte(strconv.Itoa(size))); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return whole(int(n.Load()), size)
	}
}
