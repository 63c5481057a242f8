// Command postbus offers the services on a NATS bus over HTTP, and lists, describes and calls them from a shell.
//
//	postbus bridge --expose 'math.*' --listen :8080
//	postbus ls
//	postbus info math
//	postbus call math.add '{"a":1,"b":2}'
//	postbus gather inventory.stock '{}'
//
// postbus --help is its manual.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"postbus.example/cmd/postbus/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	return cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ())
}
