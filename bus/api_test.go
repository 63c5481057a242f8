package bus_test

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

// The public names, with the types that programs outside rely on: if this compiles, they do.
var (
	_ func(url string, opts ...bus.Option) (*bus.Bus, error)    = bus.Connect
	_ func(nc *nats.Conn, opts ...bus.Option) (*bus.Bus, error) = bus.New

	_ func(*bus.Bus, string, endpoint.Servable) error                                                = (*bus.Bus).Serve
	_ func(*bus.Bus, string, *endpoint.Spec) endpoint.Handler                                        = (*bus.Bus).Handler
	_ func(*bus.Bus, ...endpoint.Middleware)                                                         = (*bus.Bus).Use
	_ func(*bus.Bus, context.Context, string) error                                                  = (*bus.Bus).Stop
	_ func(*bus.Bus, context.Context) error                                                          = (*bus.Bus).Drain
	_ func(*bus.Bus) error                                                                           = (*bus.Bus).Close
	_ func(*bus.Bus) *nats.Conn                                                                      = (*bus.Bus).Conn
	_ func(*bus.Bus, context.Context, string) ([]endpoint.Instance, error)                           = (*bus.Bus).Discover
	_ func(*bus.Bus) []endpoint.Stats                                                                = (*bus.Bus).Stats
	_ func(*bus.Bus, context.Context) error                                                          = (*bus.Bus).Ready
	_ func(*bus.Bus) string                                                                          = (*bus.Bus).ID
	_ func(*bus.Bus) codec.Codec                                                                     = (*bus.Bus).Codec
	_ func(*bus.Bus) endpoint.Middleware                                                             = (*bus.Bus).Middleware
	_ func(*bus.Bus) time.Duration                                                                   = (*bus.Bus).DefaultTimeout
	_ interface{ Ready(context.Context) error }                                                      = (*bus.Bus)(nil)
	_ func(endpoint.Transport, string, ...endpoint.Option) endpoint.Unary[*AddRequest, *AddResponse] = endpoint.Caller[*AddRequest, *AddResponse]

	_ bus.Instance = endpoint.Instance{} // one type by two names

	_ func(string) bus.Option            = bus.WithName
	_ func(string) bus.Option            = bus.WithVersion
	_ func(string) bus.Option            = bus.WithDescription
	_ func(map[string]string) bus.Option = bus.WithMetadata
	_ func(codec.Codec) bus.Option       = bus.WithCodec
	_ func(...codec.Codec) bus.Option    = bus.WithCodecs
	_ func(*slog.Logger) bus.Option      = bus.WithLogger
	_ func(int) bus.Option               = bus.WithConcurrency
	_ func(time.Duration) bus.Option     = bus.WithDefaultTimeout
	_ func(string) bus.Option            = bus.WithInboxPrefix
	_ func(time.Duration) bus.Option     = bus.WithClockSkew
	_ func(time.Duration) bus.Option     = bus.WithHeartbeat
	_ func(rpc, srv string) bus.Option   = bus.WithRoots
	_ func() bus.Option                  = bus.WithHeaderMetadata
	_ func(...nats.Option) bus.Option    = bus.WithNATS

	_ endpoint.Transport     = (*bus.Bus)(nil)
	_ endpoint.Server        = (*bus.Bus)(nil)
	_ endpoint.Directory     = (*bus.Bus)(nil)
	_ endpoint.StatsReporter = (*bus.Bus)(nil)
)
