package peer

import (
	"context"
	"net"
	"time"

	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcpool"
	"storj.io/drpc/drpcserver"

	"postbus.example/bench/harness"
	"postbus.example/bench/pb"
)

// DRPC is Storj's drpc. A connection of it carries one call at a time, so the client has a pool of them.
func DRPC() harness.System {
	return harness.System{
		Name: "drpc",
		Serve: func(string) (string, error) {
			l, err := listen()
			if err != nil {
				return "", err
			}
			mux := drpcmux.New()
			if err := pb.DRPCRegisterBench(mux, drpcServer{}); err != nil {
				return "", err
			}
			go func() { _ = drpcserver.New(mux).Serve(context.Background(), l) }()
			return l.Addr().String(), nil
		},
		Dial: func(addr string) (func(int) harness.Call, error) {
			pool := drpcpool.New[string, drpcpool.Conn](drpcpool.Options{Expiration: time.Minute})
			client := pb.NewDRPCBenchClient(pool.Get(context.Background(), addr, dialDRPC))
			return func(size int) harness.Call {
				r := requestProto(size)
				return func(ctx context.Context) error {
					p, err := client.Add(ctx, r)
					if err != nil {
						return err
					}
					return right(p.GetSum(), p.GetData(), r)
				}
			}, nil
		},
	}
}

func dialDRPC(ctx context.Context, addr string) (drpcpool.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return drpcconn.New(c), nil
}

type drpcServer struct{}

// Add is the contract's one method.
func (drpcServer) Add(_ context.Context, r *pb.AddRequest) (*pb.AddResponse, error) {
	return addProto(r), nil
}
