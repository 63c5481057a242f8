package peer

import (
	"context"
	"net/rpc"

	"postbus.example/bench/harness"
)

// NetRPC is net/rpc with gob. It knows no deadlines: the client waits for them beside the call.
func NetRPC() harness.System {
	return harness.System{
		Name: "netrpc",
		Serve: func(string) (string, error) {
			l, err := listen()
			if err != nil {
				return "", err
			}
			s := rpc.NewServer()
			if err := s.RegisterName("Bench", RPCServer{}); err != nil {
				return "", err
			}
			go s.Accept(l)
			return l.Addr().String(), nil
		},
		Dial: func(addr string) (func(int) harness.Call, error) {
			client, err := rpc.Dial("tcp", addr)
			if err != nil {
				return nil, err
			}
			return func(size int) harness.Call {
				r := request(size)
				return func(ctx context.Context) error {
					var p AddResponse
					call := client.Go("Bench.Add", r, &p, make(chan *rpc.Call, 1))
					select {
					case <-call.Done:
					case <-ctx.Done():
						return ctx.Err()
					}
					if call.Error != nil {
						return call.Error
					}
					return right(p.Sum, p.Data, r)
				}
			}, nil
		},
	}
}

// RPCServer has the method that net/rpc finds by reflection.
type RPCServer struct{}

// Add is that method.
func (RPCServer) Add(r *AddRequest, p *AddResponse) error {
	*p = *add(r)
	return nil
}
