// Package telemetry is what the example programs share: their flags, a logger, metrics and traces, and the defaults of both
// stacks of middleware made of them.
package telemetry

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/exporters/zipkin" //nolint:staticcheck // Zipkin is asked for; collectors take OTLP, whose exporter brings 60 modules
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"golang.org/x/time/rate"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/httpbridge"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// Program is one running example.
type Program struct {
	Bus      *bus.Bus
	Defaults middleware.Defaults
	Limiter  *rate.Limiter // of -rate and -burst

	nats, http, traces string
	metrics            http.Handler
}

// Run reads the flags, connects to the broker, runs f until it returns or a signal ends its context, drains, and ends the
// process if something went wrong. Other flags are defined before it.
func Run(name, addr string, f func(ctx context.Context, p *Program) error) {
	p := &Program{}
	flag.StringVar(&p.nats, "nats", "nats://127.0.0.1:4222", `the NATS server; "embedded" starts one on port 4222`)
	flag.StringVar(&p.http, "http", addr, "where HTTP listens")
	flag.StringVar(&p.traces, "trace", "", `where traces go: "stdout", or the URL of a Zipkin collector`)
	perSecond := flag.Float64("rate", 0, "calls a second, 0 for no limit")
	burst := flag.Int("burst", 1, "calls at once within the rate")
	flag.Parse()
	p.Limiter = rate.NewLimiter(rate.Limit(*perSecond), *burst)
	if *perSecond == 0 {
		p.Limiter.SetLimit(rate.Inf)
	}
	if err := p.run(name, f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (p *Program) run(name string, f func(context.Context, *Program) error) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	end := context.WithoutCancel(ctx)
	if p.nats == "embedded" {
		server, err := embedded.Start(embedded.WithAddr("127.0.0.1:4222"))
		if err != nil {
			return err
		}
		defer server.Shutdown()
		p.nats = server.URL()
	}
	tracer, err := tracer(name, p.traces)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tracer.Shutdown(end)) }()
	registry := prometheus.NewRegistry()
	p.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	p.Defaults = middleware.Defaults{
		Log: slog.New(handler(os.Stderr)), Metrics: metrics.New(registry), Tracing: tracing.New(tracer, nil),
		Retry:   &middleware.RetryPolicy{AttemptTimeout: time.Second},
		Breaker: &middleware.BreakerPolicy{Report: metrics.Gauges(registry)},
	}
	if p.Bus, err = bus.Connect(p.nats, bus.WithLogger(p.Defaults.Log), bus.WithNATS(nats.Name(name))); err != nil {
		return err
	}
	registry.MustRegister(metrics.Collector(p.Bus))
	return errors.Join(f(ctx, p), p.Bus.Drain(end))
}

// Serve offers over HTTP what the options of the bridge expose, and /metrics, until ctx ends.
func (p *Program) Serve(ctx context.Context, opts ...httpbridge.Option) error {
	bridge := httpbridge.New(p.Bus, append(opts, httpbridge.WithLogger(p.Defaults.Log))...)
	mux := http.NewServeMux()
	mux.Handle("/", bridge)
	mux.Handle("GET /metrics", p.metrics)
	server := bridge.Server(p.http)
	server.Handler = mux
	return bridge.Run(ctx, server)
}

// handler writes for people where there is a terminal, colored unless NO_COLOR is set, and JSON for machines.
func handler(f *os.File) slog.Handler {
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return slog.NewJSONHandler(f, nil)
	}
	return tint.NewTextHandler(f, &tint.Options{TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != ""})
}

func tracer(name, to string) (*trace.TracerProvider, error) {
	opts := []trace.TracerProviderOption{trace.WithResource(resource.NewSchemaless(semconv.ServiceName(name)))}
	var exporter trace.SpanExporter
	var err error
	switch to {
	case "": // spans are not recorded, and their context still travels
		return trace.NewTracerProvider(append(opts, trace.WithSampler(trace.NeverSample()))...), nil
	case "stdout":
		exporter, err = stdouttrace.New()
	default:
		exporter, err = zipkin.New(to)
	}
	return trace.NewTracerProvider(append(opts, trace.WithBatcher(exporter))...), err
}
