// Bench measures Postbus and its peers in one run: client, service and nats-server are processes of their own on the loopback
// interface, all systems take turns in shuffled rounds, and ratios are taken within a round. It prints the table of figures
// that Postbus has to reach, and then every system's own.
//
//	go -C bench run .                                   # all, about a quarter of an hour
//	go -C bench run . -quick                            # a first impression, under a minute
//	go -C bench run . -only 'against raw' -rounds 25    # figures by name
//	go -C bench run . -only '^(postbus|raw|grpc)$' -callers 1,64 -payloads 1024
//	go -C bench run . -growth ../docs/growth.svg        # the curves, and their picture
//
// docs/benchmarks.md says how to read what it prints.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"

	"postbus.example/bench/harness"
	"postbus.example/bench/peer"
)

func main() {
	played, err := harness.Role(os.Args, systems(), peer.Broker)
	if !played {
		err = run(os.Args[1:], os.Stdout)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// systems are all that a process may be asked to play.
func systems() []harness.System { return slices.Concat(peer.All(), peer.Growth()) }
