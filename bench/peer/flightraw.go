package peer

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"

	"postbus.example/bench/harness"
)

// RawFlight is Flight of nats.go by hand: RequestWithContext on one side, messages that are kept on the other.
func RawFlight(name string, n int) harness.System {
	return harness.System{
		Name: name, Broker: true,
		Serve: serveRawFlight,
		Probe: func(url string) (map[string]float64, error) {
			nc, err := calling.connect(url)
			if err != nil {
				return nil, err
			}
			return fly(n, holdRaw(nc), statusRaw(nc))
		},
	}
}

// holdRaw calls with bytes that are encoded already.
func holdRaw(nc *nats.Conn) func(context.Context, *AddRequest) (*AddResponse, error) {
	r := []byte(`{"a":1,"b":2}`)
	return func(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
		_, err := nc.RequestWithContext(ctx, flightHold, r)
		return nil, err
	}
}

func statusRaw(nc *nats.Conn) func(context.Context, *flightOrder) (*flightState, error) {
	return func(ctx context.Context, o *flightOrder) (*flightState, error) {
		r, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		m, err := nc.RequestWithContext(ctx, flightStatus, r)
		if err != nil {
			return nil, err
		}
		s := &flightState{}
		return s, json.Unmarshal(m.Data, s)
	}
}

// hangar has the calls that wait.
type hangar struct {
	mu   sync.Mutex
	held []*nats.Msg
}

func serveRawFlight(url string) (string, error) {
	nc, err := serving.connect(url)
	if err != nil {
		return "", err
	}
	h := &hangar{}
	_, err1 := nc.QueueSubscribe(flightHold, "q", func(m *nats.Msg) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held = append(h.held, m)
	})
	_, err2 := nc.Subscribe(flightStatus, h.status)
	return url, errors.Join(err1, err2, nc.Flush())
}

func (h *hangar) status(m *nats.Msg) {
	var o flightOrder
	if json.Unmarshal(m.Data, &o) != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := flightState{Waiting: int64(len(h.held))}
	if o.Weigh {
		s.Memory = weight()
	}
	if o.Land {
		for _, held := range h.held {
			_ = held.Respond(held.Data)
		}
		h.held = nil
	}
	if r, err := json.Marshal(&s); err == nil {
		_ = m.Respond(r)
	}
}
