package peer

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"postbus.example/bench/harness"
	"postbus.example/bench/pb"
)

// GRPC is gRPC-Go, one connection, without TLS.
func GRPC() harness.System {
	return harness.System{
		Name: "grpc",
		Serve: func(string) (string, error) {
			l, err := listen()
			if err != nil {
				return "", err
			}
			s := grpc.NewServer()
			pb.RegisterBenchServer(s, grpcServer{})
			go func() { _ = s.Serve(l) }()
			return l.Addr().String(), nil
		},
		Dial: func(addr string) (func(int) harness.Call, error) {
			conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return nil, err
			}
			client := pb.NewBenchClient(conn)
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

type grpcServer struct{ pb.UnimplementedBenchServer }

// Add is the contract's one method.
func (grpcServer) Add(_ context.Context, r *pb.AddRequest) (*pb.AddResponse, error) {
	return addProto(r), nil
}
