package peer

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	"postbus.example/bench/harness"
	"postbus.example/bench/pb"
	"postbus.example/bench/pb/pbconnect"
)

// Connect is connect-go with its own protocol in protobuf, over net/http's HTTP/2 without TLS.
func Connect() harness.System {
	return harness.System{
		Name: "connect",
		Serve: func(string) (string, error) {
			mux := http.NewServeMux()
			mux.Handle(pbconnect.NewBenchHandler(connectServer{}))
			return serveHTTP(mux)
		},
		Dial: func(addr string) (func(int) harness.Call, error) {
			client := pbconnect.NewBenchClient(client2(), "http://"+addr)
			return func(size int) harness.Call {
				r := requestProto(size)
				return func(ctx context.Context) error {
					p, err := client.Add(ctx, connect.NewRequest(r))
					if err != nil {
						return err
					}
					return right(p.Msg.GetSum(), p.Msg.GetData(), r)
				}
			}, nil
		},
	}
}

type connectServer struct{}

// Add is the contract's one method.
func (connectServer) Add(_ context.Context, r *connect.Request[pb.AddRequest]) (*connect.Response[pb.AddResponse], error) {
	return connect.NewResponse(addProto(r.Msg)), nil
}
