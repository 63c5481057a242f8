package peer

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"postbus.example/bench/harness"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

// How many there are of what grows.
func endpoints() []int   { return []int{1, 10, 100, 1000, 10_000} }
func instances() []int   { return []int{1, 3, 10, 30, 100} }
func connections() []int { return []int{1, 2, 4, 16, 64} }

// Crowd is how many of what grows, of ours and of nats.go by hand: a point of a curve. The names are of systems.
type Crowd struct {
	N             int
	Postbus, Hand string
}

// Endpoints are many of them on one bus, called in turns.
func Endpoints() []Crowd { return crowds("endpoints", endpoints()) }

// Instances are many of them in one queue group, each with a connection of its own.
func Instances() []Crowd { return crowds("instances", instances()) }

// Connections are many of the client's, calling in turns.
func Connections() []Crowd { return crowds("connections", connections()) }

// Flights is one endpoint that takes any number of calls at once.
func Flights() Crowd { return crowd("any", 1) }

func crowds(of string, ns []int) []Crowd {
	var cs []Crowd
	for _, n := range ns {
		cs = append(cs, crowd(of, n))
	}
	return cs
}

func crowd(of string, n int) Crowd {
	name := of + "-" + strconv.Itoa(n)
	return Crowd{N: n, Postbus: "postbus-" + name, Hand: "raw-" + name}
}

// Growth returns the systems of all crowds.
func Growth() []harness.System {
	var systems []harness.System
	for _, c := range Endpoints() {
		systems = append(systems, grown(c.Postbus, c.N, 1, 1), grownByHand(c.Hand, c.N, 1, 1))
	}
	for _, c := range Instances() {
		systems = append(systems, grown(c.Postbus, 1, c.N, 1), grownByHand(c.Hand, 1, c.N, 1))
	}
	for _, c := range Connections() {
		systems = append(systems, grown(c.Postbus, 1, 1, c.N), grownByHand(c.Hand, 1, 1, c.N))
	}
	c := Flights()
	return append(systems, grown(c.Postbus, 1, 1, 1), grownByHand(c.Hand, 1, 1, 1))
}

// numbered makes subjects of a hundred endpoints to a service: what a service publishes about itself has to fit into one message.
func numbered(subject string, n int) []string {
	subjects := make([]string, n)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("%s.%d.%d", subject, i/100, i%100)
	}
	return subjects
}

// inTurns spreads calls over many ways to make them.
func inTurns(calls []harness.Call) harness.Call {
	var next atomic.Uint64
	return func(ctx context.Context) error { return calls[next.Add(1)%uint64(len(calls))](ctx) }
}

func grown(name string, endpoints, instances, connections int) harness.System {
	subjects := numbered(name, endpoints)
	return harness.System{
		Name: name, Broker: true,
		Serve: func(url string) (string, error) {
			for range instances {
				b, err := serving.attach(url, codec.Raw)
				if err != nil {
					return "", err
				}
				for _, subject := range subjects {
					if err := b.Serve(subject, endpoint.New(echo, endpoint.Concurrency(unlimited))); err != nil {
						return "", err
					}
				}
			}
			return url, nil
		},
		Dial: func(url string) (func(int) harness.Call, error) {
			var ways []func(int) harness.Call
			for range connections {
				b, err := calling.attach(url, codec.Raw)
				if err != nil {
					return nil, err
				}
				for _, subject := range subjects {
					ways = append(ways, callBytes(b, subject))
				}
			}
			return spread(ways), nil
		},
	}
}

func grownByHand(name string, endpoints, instances, connections int) harness.System {
	subjects := numbered(name, endpoints)
	return harness.System{
		Name: name, Broker: true,
		Serve: func(url string) (string, error) {
			for range instances {
				nc, err := serving.connect(url)
				if err != nil {
					return "", err
				}
				for _, subject := range subjects {
					if _, err := nc.QueueSubscribe(subject, "q", func(m *nats.Msg) { _ = nc.Publish(m.Reply, m.Data) }); err != nil {
						return "", err
					}
				}
				if err := nc.Flush(); err != nil {
					return "", err
				}
			}
			return url, nil
		},
		Dial: func(url string) (func(int) harness.Call, error) {
			var ways []func(int) harness.Call
			for range connections {
				nc, err := calling.connect(url)
				if err != nil {
					return nil, err
				}
				for _, subject := range subjects {
					ways = append(ways, requestBytes(nc, subject))
				}
			}
			return spread(ways), nil
		},
	}
}

func spread(ways []func(int) harness.Call) func(int) harness.Call {
	return func(size int) harness.Call {
		calls := make([]harness.Call, len(ways))
		for i, way := range ways {
			calls[i] = way(size)
		}
		return inTurns(calls)
	}
}
