package grpcbridge_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/grpcbridge"
)

func Example() {
	bus := endpoint.NewMux(endpoint.MuxCodecs(protobuf.Binary, protobuf.JSON)) // or a *bus.Bus
	_ = bus.Serve("acme.Words.Upper", endpoint.New(func(_ context.Context, r *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String(strings.ToUpper(r.GetValue())), nil
	}))
	bridge := httpbridge.New(bus, httpbridge.Expose("acme.Words.*"), grpcbridge.Enable())
	server := httptest.NewServer(bridge) // gRPC-Web does with HTTP/1.1; for gRPC, bridge.ListenAndServe speaks HTTP/2
	defer server.Close()

	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](server.Client(), server.URL+"/acme.Words/Upper", connect.WithGRPCWeb())
	reply, err := client.CallUnary(context.Background(), connect.NewRequest(wrapperspb.String("word")))
	fmt.Println(reply.Msg.GetValue(), err)
	// Output:
	// WORD <nil>
}
