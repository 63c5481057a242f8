package peer

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

const (
	inFlight     = 100_000
	flightLasts  = time.Minute
	flightFills  = 45 * time.Second
	megabyte     = 1e6
	flightHold   = "flight.hold"
	flightStatus = "flight.status"
)

// flightState is what the service says about the calls that it holds.
type flightState struct {
	Waiting int64  `json:"waiting"`
	Memory  uint64 `json:"memory"`
}

// flightOrder lets the service's calls go.
type flightOrder struct {
	Land bool `json:"land"`
}

// Flight is what 100,000 calls weigh that all wait for their handlers, each with a goroutine and a context of its own, and what
// the service weighs whose handlers they wait for. The client has a stack of middleware around it, if part names one.
func Flight(name, part string) harness.System {
	return harness.System{
		Name: name, Broker: true,
		Serve: serveFlight,
		Probe: func(url string) (map[string]float64, error) {
			b, err := attach(url, codec.JSON, stack(part, flightLasts)...)
			if err != nil {
				return nil, err
			}
			hold := endpoint.Caller[*AddRequest, *AddResponse](b, flightHold)
			status := endpoint.Caller[*flightOrder, *flightState](b, flightStatus)
			return fly(hold, status)
		},
	}
}

func serveFlight(url string) (string, error) {
	var waiting atomic.Int64
	land := make(chan struct{})
	hold := endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		waiting.Add(1)
		select {
		case <-land:
			return add(r), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, endpoint.Concurrency(2*inFlight))
	status := endpoint.New(func(_ context.Context, o *flightOrder) (*flightState, error) {
		if o.Land {
			close(land)
		}
		return &flightState{Waiting: waiting.Load(), Memory: harness.OwnUsage().Memory}, nil
	})
	b, err := attach(url, codec.JSON)
	if err != nil {
		return "", err
	}
	if err := b.Serve(flightHold, hold); err != nil {
		return "", err
	}
	return url, b.Serve(flightStatus, status)
}

// fly starts all calls, weighs both sides while they wait, and lets them land.
func fly(hold endpoint.Unary[*AddRequest, *AddResponse], status endpoint.Unary[*flightOrder, *flightState]) (map[string]float64, error) {
	ended := make(chan error, inFlight)
	in := request(small)
	for range inFlight {
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
	for s == nil || s.Waiting < inFlight {
		time.Sleep(50 * time.Millisecond)
		var err error
		if s, err = status(ctx, &flightOrder{}); err != nil {
			return nil, err
		}
		if n := len(ended); n > 0 {
			return nil, fmt.Errorf("%d calls ended, one of them with %w, while %d waited", n, <-ended, s.Waiting)
		}
	}
	client := harness.OwnUsage().Memory
	if _, err := status(ctx, &flightOrder{Land: true}); err != nil {
		return nil, err
	}
	for range inFlight {
		if err := <-ended; err != nil {
			return nil, err
		}
	}
	return map[string]float64{"client": float64(client) / megabyte, "service": float64(s.Memory) / megabyte}, nil
}
