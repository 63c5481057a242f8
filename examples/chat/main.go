// Chat is a room where everybody hears everybody: one stream both ways for each member. One process plays all parts.
package main

import (
	"context"
	"fmt"
	"iter"
	"log"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
)

// client is a member's end of its stream.
type client struct {
	say   chan string // close it to leave
	heard chan string // closed at the end
}

// enter joins the room under a name.
func enter(ctx context.Context, chat endpoint.BidiStream[*Line, *Line], name string) *client {
	c := &client{say: make(chan string), heard: make(chan string, patience)}
	var says iter.Seq2[*Line, error] = func(yield func(*Line, error) bool) {
		for text := range c.say {
			if !yield(&Line{Text: text}, nil) {
				return
			}
		}
	}
	go func() {
		defer close(c.heard)
		for line, err := range chat(endpoint.WithHeader(ctx, "Name", name), says) {
			switch {
			case err != nil:
				c.heard <- "! " + err.Error()
			case line.From == "":
				c.heard <- "* " + line.Text
			default:
				c.heard <- line.From + ": " + line.Text
			}
		}
	}()
	return c
}

func main() {
	server := must(embedded.Start())
	service, b := must(bus.Connect(server.URL())), must(bus.Connect(server.URL()))
	must(0, service.Serve("room.chat", endpoint.NewBidiStream(new(room).chat)))
	chat := endpoint.BidiStreamCaller[*Line, *Line](b, "room.chat")

	ada := enter(context.Background(), chat, "ada")
	fmt.Println("ada hears", <-ada.heard)
	bob := enter(context.Background(), chat, "bob")
	fmt.Println("ada hears", <-ada.heard)
	fmt.Println("bob hears", <-bob.heard)
	ada.say <- "hello, bob"
	fmt.Println("ada hears", <-ada.heard)
	fmt.Println("bob hears", <-bob.heard)
	close(bob.say) // the room ends his stream
	fmt.Println("ada hears", <-ada.heard)
	close(ada.say)
	for line := range ada.heard {
		fmt.Println("ada hears", line)
	}
	fmt.Println("all is said")
	must(0, b.Close())
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
