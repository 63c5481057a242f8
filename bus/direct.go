package bus

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// A direct call needs the name of the instance's service, which is in its subject, while its caller has only the id. Without
// WithName the name comes from the endpoint's subject. With it all of an instance's endpoints have one service, which is
// known when Discover found the instance. If not, and nobody is where the subject says, all instances are asked once. An ack
// would tell, too, but whoever answers a call could then draw another instance's direct calls to itself.

const (
	maxNames  = 4096 // instances that are remembered
	askAgain  = time.Second
	lookUpMax = time.Second
)

// names knows services by the ids of their instances.
type names struct {
	mu     sync.Mutex
	known  map[string]string // "" has several services, or none: their names come from their subjects
	missed time.Time         // when an id was last looked up in vain
}

// learn notes a service of an instance.
func (n *names) learn(id, service string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, ok := n.known[id]; ok && old != service {
		service = ""
	}
	if n.known == nil || len(n.known) >= maxNames {
		n.known = map[string]string{} // a peer may have made them up
	}
	n.known[id] = service
}

func (n *names) forget(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, id)
}

// of returns the service of an instance for an endpoint, and whether it is more than a guess.
func (n *names) of(id, subject string) (service string, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if service, known = n.known[id]; service == "" {
		service = endpoint.ServiceName(subject)
	}
	return service, known
}

// mayAsk reports whether the instances may be asked for an id, after one that was not there.
func (n *names) mayAsk() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.missed) >= askAgain
}

func (n *names) miss() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.missed = time.Now()
}

// direct sends the request to one instance.
func (p *proxy) direct(ctx context.Context, c *endpoint.Call, id string) (any, error) {
	if err := endpoint.ValidateServiceName(id); err != nil || len(id) > 64 {
		return nil, endpoint.InvalidArgument.Errorf("%.80q is no instance's id", id).WithOutcome(endpoint.NotSent)
	}
	service, known := p.bus.names.of(id, p.subject)
	reply, err := p.attempt(ctx, c, wire.Direct(p.bus.rpcRoot, service, id, p.subject), nil)
	if !nobodyThere(err) {
		return reply, err
	}
	if known {
		p.bus.names.forget(id)
		return nil, gone(id)
	}
	named := p.bus.lookUp(ctx, id)
	if named == "" || named == service {
		return nil, gone(id)
	}
	reply, err = p.attempt(ctx, c, wire.Direct(p.bus.rpcRoot, named, id, p.subject), nil)
	if nobodyThere(err) {
		return nil, gone(id)
	}
	return reply, err
}

// nobodyThere tells the broker's word from that of an instance which does not serve the subject.
func nobodyThere(err error) bool {
	e, ok := errors.AsType[*endpoint.Error](err)
	return ok && e != nil && e.Reason() == endpoint.ReasonNoResponders && !e.Remote()
}

func gone(id string) *endpoint.Error {
	return endpoint.Unavailable.Errorf("the instance %s is not there", id).
		WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)
}

// lookUp asks all instances for the one with the id. After one that was not there it is silent for a second.
func (b *Bus) lookUp(ctx context.Context, id string) (service string) {
	if !b.names.mayAsk() {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpMax)
	defer cancel()
	_ = b.ask(ctx, b.srvRoot+".PING", nil, func(m *nats.Msg) bool { // what is denied, or silent, is not there
		var p micro.Ping
		if json.Unmarshal(m.Data, &p) != nil || p.ID != id || endpoint.ValidateServiceName(p.Name) != nil {
			return true
		}
		service = p.Name
		return false
	})
	if service == "" {
		b.names.miss()
		return ""
	}
	b.names.learn(id, service)
	return service
}
