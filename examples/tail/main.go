// Tail follows a log over the bus: the server streams lines for as long as somebody listens, and ends when the consumer leaves
// its loop. One process plays both parts.
package main

import (
	"context"
	"fmt"
	"iter"
	"log"
	"time"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
)

// TailRequest says where to begin.
type TailRequest struct {
	From int `json:"from"`
}

// Line is one line of the log.
type Line struct {
	Number int    `json:"number"`
	Text   string `json:"text"`
}

// tail is the service: it writes a line every now and then, for good, and tells ended why it stopped.
func tail(every time.Duration, ended chan<- error) endpoint.ServerStream[*TailRequest, *Line] {
	return func(ctx context.Context, r *TailRequest) iter.Seq2[*Line, error] {
		return func(yield func(*Line, error) bool) {
			defer func() { ended <- context.Cause(ctx) }()
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := r.From; yield(&Line{Number: n, Text: "all is well"}, nil); n++ {
				select {
				case <-tick.C:
				case <-ctx.Done(): // nobody listens any more
					return
				}
			}
		}
	}
}

func main() {
	server := must(embedded.Start())
	service, client := must(bus.Connect(server.URL())), must(bus.Connect(server.URL()))
	ended := make(chan error, 1)
	must(0, service.Serve("log.tail", endpoint.NewServerStream(tail(10*time.Millisecond, ended))))

	follow := endpoint.ServerStreamCaller[*TailRequest, *Line](client, "log.tail")
	for line, err := range follow(context.Background(), &TailRequest{From: 7}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(line.Number, line.Text)
		if line.Number == 9 {
			break // which ends the handler's context, wherever it runs
		}
	}
	fmt.Println("the handler ended:", <-ended)
	must(0, client.Close())
	must(0, service.Close())
	server.Shutdown()
}

// must returns v, or ends the program with the error.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
