package peer

import (
	"context"

	"postbus.example/bench/harness"
	"postbus.example/bench/pb"
)

// Twirp is Twitch's twirp in protobuf, over HTTP/1.1.
func Twirp() harness.System {
	return harness.System{
		Name:  "twirp",
		Serve: func(string) (string, error) { return serveHTTP(pb.NewBenchServer(drpcServer{})) },
		Dial: func(addr string) (func(int) harness.Call, error) {
			client := pb.NewBenchProtobufClient("http://"+addr, client1())
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
