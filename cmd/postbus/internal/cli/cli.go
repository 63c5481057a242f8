// Package cli is the command postbus as a function: arguments, streams and environment go in, an exit code comes out.
//
//	arguments ┐
//	environment ├─► settings, every fault at once ─► a command's run ─► exit code
//	file      ┘
//
// Nothing in it ends the process, listens to signals or reads the environment by itself, so tests run it many times over in
// one process.
package cli

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
)

// Run runs one command until it is done or ctx ends, and returns the process's exit code. Env is as os.Environ has it.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	p := &process{in: stdin, out: stdout, err: stderr, env: environment(env)}
	err := p.run(ctx, args)
	p.opts.JSON = p.opts.JSON || slices.Contains(args, "--json") // what can't be read as a whole may have said so
	return p.conclude(ctx, err)
}

// process is one run of the command.
type process struct {
	in       io.Reader
	out, err io.Writer
	env      map[string]string
	opts     app
	nats     []nats.Option // what the settings make of a connection
}

// command is what stands behind a word of the command line.
type command interface {
	// check notes what is wrong with the settings, before anything happens.
	check(p *process, f *faults)

	run(ctx context.Context, p *process) error
}

var _ = []command{
	(*bridgeCmd)(nil), (*lsCmd)(nil), (*infoCmd)(nil), (*callCmd)(nil), (*gatherCmd)(nil), (*keyCmd)(nil), (*completionCmd)(nil),
	(*completeCmd)(nil), (*versionCmd)(nil),
}

// app is the command line: what each command shares, and the commands.
type app struct {
	Common

	Bridge     bridgeCmd     `cmd:"" help:"Offer services over HTTP."`
	Ls         lsCmd         `cmd:"" help:"List the services on the bus."`
	Info       infoCmd       `cmd:"" help:"Describe a service: instances, endpoints, schemas, counters."`
	Call       callCmd       `cmd:"" help:"Call an endpoint, unary or a stream."`
	Gather     gatherCmd     `cmd:"" help:"Ask every instance of a service at once."`
	Key        keyCmd        `cmd:"" help:"Make an API key for the bridge."`
	Completion completionCmd `cmd:"" help:"Write a completion script for a shell."`
	Version    versionCmd    `cmd:"" help:"Tell the version."`
	Complete   completeCmd   `cmd:"" name:"__complete" hidden:""`
}

func (p *process) run(ctx context.Context, args []string) error {
	var faults faults
	shown := false
	parser, err := newParser(p, &faults, func(int) { shown = true })
	if err != nil {
		return err
	}
	chosen, err := parser.Parse(args)
	switch {
	case shown: // help was asked for, whatever else is wrong
		return nil
	case err != nil:
		faults.add("", err)
		return faults.join()
	}
	c, ok := reflect.TypeAssert[command](chosen.Selected().Target.Addr())
	if !ok {
		return usage(fmt.Errorf("no command %q", chosen.Command()))
	}
	p.nats = p.opts.natsOptions(&faults)
	c.check(p, &faults)
	if err := faults.join(); err != nil {
		return err
	}
	return c.run(ctx, p)
}

func newParser(p *process, f *faults, exit func(int)) (*kong.Kong, error) {
	origins := &sources{env: p.env, faults: f}
	options := []kong.Option{
		kong.Name("postbus"),
		kong.Description(aboutAll),
		kong.Writers(p.out, p.err),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 110}),
		kong.ExplicitGroups(groups),
		kong.ValueFormatter(withDefault),
		kong.Help(showHelp),
		kong.Resolvers(origins),
	}
	return kong.New(&p.opts, append(options, gentle(f, origins)...)...)
}

func environment(env []string) map[string]string {
	m := map[string]string{}
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			m[k] = v
		}
	}
	return m
}
