// Upload sends 64 MiB to a service in two ways: as one message, which the bus cuts into chunks since the broker takes 1 MiB, and as a
// stream, whose length nobody has to know. One process plays both parts.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"log"
	"math/rand/v2"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
)

const (
	size = 64 << 20 // of the file
	part = 64 << 10 // of what a stream carries at once
)

// keep stores a file that comes as one message, and replies with its length and hash.
func keep(_ context.Context, file []byte) ([]byte, error) {
	return fmt.Appendf(nil, "%d bytes, %.4x", len(file), sha256.Sum256(file)), nil
}

// take stores a file that comes in parts, of which it never has more than a few.
func take(_ context.Context, parts iter.Seq2[[]byte, error]) ([]byte, error) {
	hash, n := sha256.New(), 0
	for p, err := range parts {
		if err != nil {
			return nil, err // it broke off: what came is no file
		}
		hash.Write(p)
		n += len(p)
	}
	return fmt.Appendf(nil, "%d bytes, %.4x", n, hash.Sum(nil)), nil
}

// read returns the parts of a file. An error of its own ends the upload, and the service is told.
func read(file io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			p := make([]byte, part)
			n, err := io.ReadFull(file, p)
			if n > 0 && !yield(p[:n], nil) || err == io.EOF || err == io.ErrUnexpectedEOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

func main() {
	server := must(embedded.Start())
	opts := []bus.Option{bus.WithCodec(codec.Raw), bus.WithMaxMessage(size)} // both sides say how large a message may be
	service, client := must(bus.Connect(server.URL(), opts...)), must(bus.Connect(server.URL(), opts...))
	must(0, service.Serve("files.keep", endpoint.New(keep)))
	must(0, service.Serve("files.take", endpoint.NewClientStream(take)))

	ctx, file := context.Background(), rand.NewChaCha8([32]byte{})
	message := make([]byte, size)
	must(file.Read(message))
	send := endpoint.Caller[[]byte, []byte](client, "files.keep")
	fmt.Printf("a message: %s\n", must(send(ctx, message)))

	file.Seed([32]byte{}) // the same once more
	stream := endpoint.ClientStreamCaller[[]byte, []byte](client, "files.take")
	fmt.Printf("a stream:  %s\n", must(stream(ctx, read(io.LimitReader(file, size)))))

	_, err := send(ctx, make([]byte, size+1))
	fmt.Println("too much: ", err)
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
