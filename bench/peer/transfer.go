package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

const (
	transferMost  = 64 << 20
	transferPause = time.Millisecond // between two small calls
	transferPut   = "transfer.put"
	transferGet   = "transfer.get"
	transferSmall = "transfer.small"
)

// Transfer is requests of a size one after the other, far above what the broker takes in one message, and small calls on the same
// connection beside them; then replies of that size. Rates are megabytes a second, p99 that of the small calls, in milliseconds.
func Transfer(name string, size int, lasts time.Duration) harness.System {
	return harness.System{
		Name: name, Broker: true,
		Serve: serveTransfer,
		Probe: func(url string) (map[string]float64, error) {
			b, err := calling.bus(url, []bus.Option{bus.WithCodec(codec.Raw), bus.WithMaxMessage(transferMost)})
			if err != nil {
				return nil, err
			}
			call := func(subject string) endpoint.Unary[[]byte, []byte] {
				return endpoint.Caller[[]byte, []byte](b, subject)
			}
			t := transfer{size: size, lasts: lasts, small: call(transferSmall)}
			put, get := call(transferPut), call(transferGet)
			big, wanted := bytes.Repeat([]byte{7}, size), binary.BigEndian.AppendUint64(nil, uint64(size))
			up, p99, err := t.run(func(ctx context.Context) (int, error) {
				got, err := put(ctx, big)
				if err != nil {
					return 0, err
				}
				return int(binary.BigEndian.Uint64(got)), nil //nolint:gosec // what we sent
			})
			if err != nil {
				return nil, err
			}
			down, p99down, err := t.run(func(ctx context.Context) (int, error) {
				got, err := get(ctx, wanted)
				return len(got), err
			})
			return map[string]float64{"rate": up, "p99": p99, "down": down, "p99down": p99down}, err
		},
	}
}

func serveTransfer(url string) (string, error) {
	b, err := serving.bus(url, []bus.Option{bus.WithCodec(codec.Raw), bus.WithMaxMessage(transferMost)})
	if err != nil {
		return "", err
	}
	count := func(_ context.Context, r []byte) ([]byte, error) {
		return binary.BigEndian.AppendUint64(nil, uint64(len(r))), nil
	}
	made := bytes.Repeat([]byte{7}, transferMost)
	give := func(_ context.Context, r []byte) ([]byte, error) { return made[:binary.BigEndian.Uint64(r)], nil }
	for subject, f := range map[string]func(context.Context, []byte) ([]byte, error){transferPut: count, transferGet: give, transferSmall: echo} {
		if err := b.Serve(subject, endpoint.New(f)); err != nil {
			return "", err
		}
	}
	return url, nil
}

// transfer is what is the same both ways.
type transfer struct {
	size  int
	lasts time.Duration
	small endpoint.Unary[[]byte, []byte]
}

// run moves messages for a while, and returns the rate, and the p99 of small calls beside them.
func (t transfer) run(move func(context.Context) (int, error)) (rate, p99 float64, err error) {
	if _, err := move(context.Background()); err != nil { // warm
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.lasts)
	defer cancel()
	var times harness.Histogram
	ended := make(chan error, 1)
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			begin := time.Now()
			_, err = t.small(context.Background(), []byte("a small call"))
			times.Add(time.Since(begin))
			time.Sleep(transferPause)
		}
		ended <- err
	}()
	begin, moved := time.Now(), 0
	for ctx.Err() == nil && err == nil {
		var n int
		if n, err = move(context.Background()); err == nil && n != t.size {
			err = errWrong
		}
		moved += n
	}
	rate = float64(moved) / time.Since(begin).Seconds() / megabyte
	cancel()
	if failed := <-ended; err == nil {
		err = failed
	}
	return rate, float64(times.Quantile(0.99)) / float64(time.Millisecond), err
}
