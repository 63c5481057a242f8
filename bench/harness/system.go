package harness

import (
	"context"
	"time"
)

// Call makes one call and checks its reply. The context is the caller's own and has a deadline.
type Call func(ctx context.Context) error

// System is what is measured, ours or a peer, in one configuration.
type System struct {
	Name string

	// Broker says that Serve wants the URL of a nats-server.
	Broker bool

	// Serve starts the service and returns the address that Dial wants. Without it, all there is lives in the client's process.
	Serve func(url string) (addr string, err error)

	// Dial connects a client, and returns what makes calls with payloads of a size.
	Dial func(addr string) (func(size int) Call, error)

	// Probe is instead of Dial for what is no load: it measures itself, once in processes of its own.
	Probe func(addr string) (map[string]float64, error)
}

// Load is how a system is driven.
type Load struct {
	Callers int           `json:"callers"`
	Size    int           `json:"size"`           // of the payload, in bytes
	Rate    float64       `json:"rate,omitempty"` // calls a second of all callers; 0 is as fast as replies come
	Hogs    int           `json:"hogs,omitempty"` // goroutines that burn the client's processors
	Warm    time.Duration `json:"warm"`
	Window  time.Duration `json:"window"`
}

// Point is one system under one load.
type Point struct {
	System string `json:"system"`
	Load   Load   `json:"load"`
}

// Result is what was measured at a point in one round.
type Result struct {
	Calls   uint64  `json:"calls"` // in the window
	All     uint64  `json:"all"`   // with those before and after, which cost processors and memory as well
	Errors  uint64  `json:"errors,omitempty"`
	Error   string  `json:"error,omitempty"` // the first
	Seconds float64 `json:"seconds"`

	P50  time.Duration `json:"p50"`
	P99  time.Duration `json:"p99"`
	P999 time.Duration `json:"p999"`

	Client  Usage `json:"client"`
	Service Usage `json:"service"`
	Broker  Usage `json:"broker"`

	Foreign float64            `json:"foreign"` // share of all processors that others took meanwhile
	Values  map[string]float64 `json:"values,omitempty"`
}

// Rate is calls a second.
func (r *Result) Rate() float64 { return float64(r.Calls) / r.Seconds }

// CPU is processor time for each call, of all processes.
func (r *Result) CPU() time.Duration {
	return (r.Client.CPU + r.Service.CPU + r.Broker.CPU) / time.Duration(max(r.All, 1))
}

// ClientAllocs is the client's heap allocations for each call.
func (r *Result) ClientAllocs() float64 { return float64(r.Client.Allocs) / float64(max(r.All, 1)) }

// ServiceAllocs is the service's heap allocations for each call.
func (r *Result) ServiceAllocs() float64 { return float64(r.Service.Allocs) / float64(max(r.All, 1)) }
