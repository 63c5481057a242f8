package peer

import (
	"context"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"postbus.example/bench/harness"
	"postbus.example/bench/pb"
)

// Gateway is grpc-gateway in front of gRPC-Go, both in one process, with a connection between them.
func Gateway() harness.System {
	return harness.System{
		Name: "grpc-gateway",
		Serve: func(string) (string, error) {
			addr, err := GRPC().Serve("")
			if err != nil {
				return "", err
			}
			mux := runtime.NewServeMux()
			opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
			if err := pb.RegisterBenchHandlerFromEndpoint(context.Background(), mux, addr, opts); err != nil {
				return "", err
			}
			return serveHTTP(mux)
		},
		Dial: dialHTTP("/bench/add"),
	}
}
