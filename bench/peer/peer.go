// Package peer has what is measured: Postbus in its configurations, and others who carry calls. Each stands in a file of its
// own, as a harness.System.
//
// All answer the same two calls. Those of bytes return what they were given; those that are typed add two numbers and return
// the text that came with them. The payload's size is that of the bytes, or of the text.
package peer

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/bench/pb"
)

// All returns every system, ours first.
func All() []harness.System {
	return slices.Concat(
		[]harness.System{Postbus(), PostbusProto(), PostbusBatch(), PostbusJSON(), Slow(), Embedded(), Bridge()},
		[]harness.System{Chain(), Flight("flight", "bare", 100_000), Flight("flight-stacks", "whole", 100_000), RawFlight("flight-raw", 100_000), Transfer("transfer", 32<<20, 5*time.Second)},
		Stacks(),
		[]harness.System{PostbusStream(), RawStream()},
		[]harness.System{Raw(), Micro(), GoKit(), GRPC(), Connect(), NetRPC(), DRPC(), Twirp(), HTTPJSON(), Gateway()},
	)
}

// AddRequest and AddResponse are the typed call where no contract in protobuf is.
type AddRequest struct {
	A    int64  `json:"a"`
	B    int64  `json:"b"`
	Data string `json:"data,omitempty"`
}

// AddResponse is its reply.
type AddResponse struct {
	Sum  int64  `json:"sum"`
	Data string `json:"data,omitempty"`
}

func add(r *AddRequest) *AddResponse { return &AddResponse{Sum: r.A + r.B, Data: r.Data} }

func addProto(r *pb.AddRequest) *pb.AddResponse {
	return &pb.AddResponse{Sum: r.GetA() + r.GetB(), Data: r.GetData()}
}

func request(size int) *AddRequest { return &AddRequest{A: 1, B: 2, Data: text(size)} }

func requestProto(size int) *pb.AddRequest { return &pb.AddRequest{A: 1, B: 2, Data: text(size)} }

// small is a payload that needs no text: the two numbers are all of it.
const small = 20

func text(size int) string {
	if size <= small {
		return ""
	}
	return strings.Repeat("0123456789abcdef", size/16+1)[:size]
}

func body(size int) []byte { return []byte(strings.Repeat("0123456789abcdef", size/16+1)[:size]) }

var errWrong = errors.New("a wrong reply")

// right checks a reply to a typed call.
func right(sum int64, data string, r interface{ GetData() string }) error {
	if sum != 3 || len(data) != len(r.GetData()) {
		return errWrong
	}
	return nil
}

// GetData is what the request's namesake in protobuf has, too.
func (r *AddRequest) GetData() string { return r.Data }

// listen opens a port of the system's choice on the loopback interface.
func listen() (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(context.Background(), "tcp", "127.0.0.1:0")
}

// Compared are the systems that have tables of their own, by name: one configuration of each.
func Compared() []string {
	return []string{
		"raw", "postbus", "micro", "postbus-proto", "postbus-batch", "grpc", "connect", "drpc", "twirp", "netrpc",
		"postbus-json", "gokit", "http-json", "bridge", "grpc-gateway",
	}
}
