package peer

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

const (
	unlimited     = 1_000_000 // calls at once
	flightRuns    = 1         // handlers at once
	flightLasts   = time.Minute
	flightFills   = 45 * time.Second
	flightSettles = time.Second // for acks, and first probes
	megabyte      = 1e6
	flightHold    = "flight.hold"
	flightStatus  = "flight.status"
)

// flightState is what the service says about the calls that it holds.
type flightState struct {
	Waiting int64  `json:"waiting"`
	Memory  uint64 `json:"memory"`
}

// flightOrder has the service weighed, or lets its calls go.
type flightOrder struct {
	Weigh bool `json:"weigh"`
	Land  bool `json:"land"`
}

// weight is what the runtime holds of the system's memory once garbage is collected and given back.
func weight() uint64 {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // what pools hold goes with the second
	return harness.OwnUsage().Memory
}

// Flight is what n calls weigh that all wait, each with a goroutine and a context of its own, and what the service weighs in
// whose backlog they wait. The client has a stack of middleware around it, if part names one.
func Flight(name, part string, n int) harness.System {
	return harness.System{
		Name: name, Broker: true,
		Serve: serveFlight,
		Probe: func(url string) (map[string]float64, error) {
			b, err := calling.attach(url, codec.JSON, stack(part, flightLasts)...)
			if err != nil {
				return nil, err
			}
			hold := endpoint.Caller[*AddRequest, *AddResponse](b, flightHold)
			status := endpoint.Caller[*flightOrder, *flightState](b, flightStatus)
			return fly(n, hold, status)
		},
	}
}

func serveFlight(url string) (string, error) {
	b, err := serving.attach(url, codec.JSON)
	if err != nil {
		return "", err
	}
	land := make(chan struct{})
	hold := endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		select {
		case <-land:
			return add(r), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, endpoint.Concurrency(flightRuns), endpoint.Backlog(unlimited, flightLasts))
	status := endpoint.New(func(_ context.Context, o *flightOrder) (*flightState, error) {
		if o.Land {
			close(land)
		}
		if o.Weigh {
			return &flightState{Memory: weight()}, nil
		}
		s := &flightState{}
		for _, of := range b.Stats() {
			if of.Subject == flightHold {
				s.Waiting = of.Waiting
			}
		}
		return s, nil
	})
	if err := b.Serve(flightHold, hold); err != nil {
		return "", err
	}
	return url, b.Serve(flightStatus, status)
}

// fly starts all calls, weighs both sides while they wait, and lets them land.
func fly(n int, hold endpoint.Unary[*AddRequest, *AddResponse], status endpoint.Unary[*flightOrder, *flightState]) (map[string]float64, error) {
	ended := make(chan error, n)
	in := request(small)
	for range n {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), flightLasts)
			defer cancel()
			_, err := hold(ctx, in)
			ended <- err
		}()
	}
	ctx, cancel := context.WithTimeout(context.Background(), flightFills)
	defer cancel()
	var s *flightState
	var err error
	for s == nil || s.Waiting < int64(n-flightRuns) {
		time.Sleep(50 * time.Millisecond)
		if s, err = status(ctx, &flightOrder{}); err != nil {
			return nil, err
		}
		if len(ended) > 0 {
			return nil, fmt.Errorf("calls ended while %d waited, one of them with %w", s.Waiting, <-ended)
		}
	}
	time.Sleep(flightSettles)
	client := weight()
	if s, err = status(ctx, &flightOrder{Weigh: true}); err != nil {
		return nil, err
	}
	if _, err := status(ctx, &flightOrder{Land: true}); err != nil {
		return nil, err
	}
	for range n {
		if err := <-ended; err != nil {
			return nil, err
		}
	}
	return map[string]float64{"client": float64(client) / megabyte, "service": float64(s.Memory) / megabyte}, nil
}
