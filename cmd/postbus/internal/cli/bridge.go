package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/bus"
	"postbus.example/httpbridge"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
)

// bridgeCmd offers what is on the bus over HTTP.
type bridgeCmd struct {
	surface
	admission

	Listen      string `group:"http" default:"127.0.0.1:8080" placeholder:"ADDR" help:"Where HTTP is served; :8080 is every address of this machine."`
	TLSCert     string `name:"tls-cert" group:"http" placeholder:"FILE" help:"The server's certificate, with the chain. It may be renewed while the bridge runs."`
	TLSKey      string `name:"tls-key" group:"http" placeholder:"FILE" help:"Its key."`
	TLSClientCA string `name:"tls-client-ca" group:"http" placeholder:"FILE" help:"Take only clients with a certificate of one of these authorities."`

	Expose    []string `group:"expose" placeholder:"SUBJECT" help:"A subject or pattern that may be called: svc.add, math.*, acme.>. Repeat for more."`
	Route     []string `group:"expose" sep:"none" placeholder:"ROUTE" help:"A path of its own, as REST has it, for a subject: 'GET /v1/users/{id}=users.get'. Path and query are fields of the request. Needs no --expose."`
	HeaderIn  []string `group:"expose" placeholder:"NAME" help:"A header of requests that passes to the endpoint; X-Acme-* is all of these, !baggage takes one back. By default traceparent, tracestate and baggage."`
	HeaderOut []string `group:"expose" placeholder:"NAME" help:"A header of replies that passes to the client. By default none."`

	MaxBody               size          `group:"limits" default:"1MiB" placeholder:"SIZE" help:"The largest body of a request, decompressed."`
	MaxHeader             size          `group:"limits" default:"8KiB" placeholder:"SIZE" help:"What the headers of a request may weigh in all."`
	MaxCalls              int           `group:"limits" default:"1024" placeholder:"N" help:"How many calls run at once."`
	MaxCallsPerConnection int           `group:"limits" default:"100" placeholder:"N" help:"How many of them on one connection of HTTP/2."`
	MaxBatch              int           `group:"limits" default:"100" placeholder:"N" help:"How many calls a batch of JSON-RPC may have."`
	CallTimeout           time.Duration `group:"limits" default:"10s" placeholder:"TIME" help:"How long a call takes at most that does not say (Connect-Timeout-Ms)."`
	MaxCallTimeout        time.Duration `group:"limits" default:"1m" placeholder:"TIME" help:"The longest that it may say. Streams end when they end."`
	HeaderTimeout         time.Duration `group:"limits" default:"10s" placeholder:"TIME" help:"How long a client may take to send its headers."`
	BodyTimeout           time.Duration `group:"limits" default:"30s" placeholder:"TIME" help:"How long to send its body."`
	WriteTimeout          time.Duration `group:"limits" default:"30s" placeholder:"TIME" help:"How long to take its reply."`
	Heartbeat             time.Duration `group:"limits" default:"15s" placeholder:"TIME" help:"How long a stream of events is silent before it says that it lives."`
	IdleTimeout           time.Duration `group:"limits" default:"2m" placeholder:"TIME" help:"How long a connection waits for its next request."`

	Check           bool          `group:"ops" help:"Judge the settings and end, without connecting to anything."`
	AccessLog       bool          `group:"ops" help:"Log each call, and not failures alone."`
	ShutdownTimeout time.Duration `group:"ops" default:"20s" placeholder:"TIME" help:"How long the end waits for what runs, at most 29s. What is left then is canceled, and told so."`
	MetricsListen   string        `group:"ops" placeholder:"ADDR" help:"Where metrics are served for Prometheus, at /metrics. By default nowhere."`

	options []httpbridge.Option // what the settings make of a bridge
}

// Help is for kong.
func (*bridgeCmd) Help() string {
	return `Turns NATS micro services, whatever they are written in, into an HTTP API: JSON, streams as Server-Sent Events and lines of JSON,
Connect, gRPC, gRPC-Web, and a description of it all (OpenAPI). /math/add is the subject math.add; what is not exposed can't be
reached.

    postbus bridge --expose 'math.*'
    curl -H 'Content-Type: application/json' -d '{"a":1,"b":2}' localhost:8080/math/add
    curl localhost:8080/openapi.json

    postbus bridge --route 'GET /v1/users/{id}=users.get' --route 'PUT /v1/users/{id}=users.put'
    curl localhost:8080/v1/users/7

    postbus bridge --config bridge.yaml --listen :443 --tls-cert tls.pem --tls-key tls.key

/healthz tells that the bridge runs, /readyz that it can call. SIGTERM ends it: new calls are refused, what runs is finished,
streams that go on after --shutdown-timeout get their end, then it leaves the bus, with exit code 0.`
}

func (c *bridgeCmd) run(ctx context.Context, p *process) error {
	if c.Check { // what is wrong was told before
		return p.write([]byte("the settings are in order\n"))
	}
	b, err := p.connect()
	if err != nil {
		return err
	}
	return errors.Join(c.serve(ctx, p, b), finish(b))
}

// finish drains the bus, which has a service's answers still on their way.
func finish(b *bus.Bus) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	return b.Drain(ctx)
}

func (c *bridgeCmd) serve(ctx context.Context, p *process, b *bus.Bus) error {
	log := p.logger()
	registry := prometheus.NewRegistry()
	if c.MetricsListen != "" {
		b.Use(metrics.New(registry))
		registry.MustRegister(metrics.Collector(b))
	}
	if c.AccessLog {
		b.Use(middleware.Log(log))
	}
	bridge := httpbridge.New(b, append(c.options, httpbridge.WithLogger(log))...)
	server := bridge.Server(c.Listen)
	server.TLSConfig = c.tls(log)
	stop, err := c.measure(ctx, registry, log)
	if err != nil {
		return err
	}
	defer stop()
	c.warn(log)
	done := make(chan struct{})
	over := context.AfterFunc(ctx, func() {
		defer close(done)
		c.drain(bridge, log)
	})
	err = listening(bridge.Run(ctx, server))
	if !over() {
		<-done
	}
	return err
}

// drain gives what runs less time than Run does, which drains at the same time and sees the end of it. Streams may go on
// for good, so that they are cut is no fault.
func (c *bridgeCmd) drain(bridge *httpbridge.Bridge, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
	defer cancel()
	if err := bridge.Drain(ctx); err != nil {
		log.Warn("what ran was canceled", slog.Any("error", err))
	}
}

// warn says what nobody may overlook.
func (c *bridgeCmd) warn(log *slog.Logger) {
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err == nil && (ip.IsLoopback() || host == "localhost") {
		return
	}
	if c.TLSClientCA == "" && !c.some() {
		log.Warn("whoever reaches this address may call all that is exposed", slog.String("addr", c.Listen))
	}
}

// listening marks an address that can't be had as what it is.
func listening(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "listen" {
		return &ioError{err}
	}
	return err
}
