package peer

import (
	"context"
	"log/slog"

	"postbus.example/bench/harness"
	"postbus.example/bench/pb"
	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
)

// Postbus is ours with bytes: nothing is encoded.
func Postbus() harness.System {
	return harness.System{
		Name: "postbus", Broker: true,
		Serve: serve("bench.bytes", endpoint.New(echo), codec.Raw),
		Dial:  dialBytes("bench.bytes"),
	}
}

// PostbusProto is ours with typed calls in protobuf.
func PostbusProto() harness.System { return typed("postbus-proto", "bench.proto", calling.plain) }

// PostbusBatch is the same with batch frames, as ours is unless told otherwise. It has a subject of its own: on the other's they would
// be one queue group, and share the calls of both.
func PostbusBatch() harness.System { return typed("postbus-batch", "bench.batch", calling.attach) }

func typed(name, subject string, attach func(string, codec.Codec, ...endpoint.Middleware) (*bus.Bus, error)) harness.System {
	return harness.System{
		Name: name, Broker: true,
		Serve: serve(subject, endpoint.New(func(_ context.Context, r *pb.AddRequest) (*pb.AddResponse, error) {
			return addProto(r), nil
		}), protobuf.Binary),
		Dial: dialProto(subject, attach),
	}
}

func dialProto(subject string, attach func(string, codec.Codec, ...endpoint.Middleware) (*bus.Bus, error)) func(string) (func(int) harness.Call, error) {
	return func(url string) (func(int) harness.Call, error) {
		b, err := attach(url, protobuf.Binary)
		if err != nil {
			return nil, err
		}
		call := endpoint.Caller[*pb.AddRequest, *pb.AddResponse](b, subject)
		made := func(size int) harness.Call {
			r := requestProto(size)
			return func(ctx context.Context) error {
				p, err := call(ctx, r)
				if err != nil {
					return err
				}
				return right(p.GetSum(), p.GetData(), r)
			}
		}
		return made, nil
	}
}

// PostbusJSON is ours with typed calls in JSON.
func PostbusJSON() harness.System {
	return harness.System{
		Name: "postbus-json", Broker: true,
		Serve: serve("bench.json", endpoint.New(func(_ context.Context, r *AddRequest) (*AddResponse, error) {
			return add(r), nil
		}), codec.JSON),
		Dial: func(url string) (func(int) harness.Call, error) {
			b, err := calling.plain(url, codec.JSON)
			if err != nil {
				return nil, err
			}
			call := endpoint.Caller[*AddRequest, *AddResponse](b, "bench.json")
			return func(size int) harness.Call {
				r := request(size)
				return func(ctx context.Context) error {
					p, err := call(ctx, r)
					if err != nil {
						return err
					}
					return right(p.Sum, p.Data, r)
				}
			}, nil
		},
	}
}

func echo(_ context.Context, r []byte) ([]byte, error) { return r, nil }

// attach connects a bus that is silent: errors are the caller's to tell.
func (s side) attach(url string, cd codec.Codec, mws ...endpoint.Middleware) (*bus.Bus, error) {
	return s.bus(url, []bus.Option{bus.WithCodec(cd)}, mws...)
}

// plain is attach without batch frames.
func (s side) plain(url string, cd codec.Codec, mws ...endpoint.Middleware) (*bus.Bus, error) {
	return s.bus(url, []bus.Option{bus.WithCodec(cd), bus.WithoutFrames()}, mws...)
}

func (s side) bus(url string, more []bus.Option, mws ...endpoint.Middleware) (*bus.Bus, error) {
	url, opts, err := s.options(url)
	if err != nil {
		return nil, err
	}
	b, err := bus.Connect(url, append(more, bus.WithLogger(slog.New(slog.DiscardHandler)), bus.WithNATS(opts...))...)
	if err == nil {
		b.Use(mws...)
	}
	return b, err
}

// serve connects a bus and serves one endpoint on it.
func serve(subject string, ep *endpoint.Endpoint, cd codec.Codec, mws ...endpoint.Middleware) func(string) (string, error) {
	return func(url string) (string, error) {
		b, err := serving.attach(url, cd, mws...)
		if err != nil {
			return "", err
		}
		return url, b.Serve(subject, ep)
	}
}

// dialBytes connects a bus that calls with bytes.
func dialBytes(subject string, mws ...endpoint.Middleware) func(string) (func(int) harness.Call, error) {
	return func(url string) (func(int) harness.Call, error) {
		b, err := calling.plain(url, codec.Raw, mws...)
		if err != nil {
			return nil, err
		}
		return callBytes(b, subject), nil
	}
}

func callBytes(b *bus.Bus, subject string) func(int) harness.Call {
	call := endpoint.Caller[[]byte, []byte](b, subject, endpoint.Idempotent())
	return func(size int) harness.Call {
		r := body(size)
		return func(ctx context.Context) error {
			p, err := call(ctx, r)
			if err == nil && len(p) != len(r) {
				return errWrong
			}
			return err
		}
	}
}
