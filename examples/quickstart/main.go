// Quickstart runs a service, a typed caller, an embedded NATS server and the HTTP bridge in one process.
package main

import (
	"context"
	"flag"
	"fmt"
	"os/signal"
	"syscall"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

type AddRequest struct{ A, B int }

type AddResponse struct {
	Sum int `json:"sum"`
}

func add(_ context.Context, r *AddRequest) (*AddResponse, error) { return &AddResponse{r.A + r.B}, nil }

func main() {
	addr := flag.String("http", ":8080", "where the HTTP bridge listens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	server := must(embedded.Start())                                // a NATS server in this process
	b := must(bus.Connect(server.URL()))                            // a connection to it
	must(0, b.Serve("svc.add", endpoint.New(add)))                  // the whole service
	sum := endpoint.Caller[*AddRequest, *AddResponse](b, "svc.add") // the whole client: a function like add
	fmt.Println("1 + 2 =", must(sum(ctx, &AddRequest{A: 1, B: 2})).Sum)

	must(0, httpbridge.New(b, httpbridge.Expose("svc.add")).ListenAndServe(ctx, *addr)) // until SIGTERM
	must(0, b.Drain(context.Background()))
	server.Shutdown()
}
