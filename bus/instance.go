package bus

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// features is what an instance with a root can do.
const features = "ack,direct"

const (
	featureDirect  = "direct"
	featureStreams = "streams"
	featureFrames  = "frames"
	featureChunks  = "chunks"
)

func (c *config) featuresOf(k endpoint.Kind) string {
	if k != endpoint.UnaryKind {
		return features + "," + featureStreams
	}
	has := features
	if c.maxMessage > 0 {
		has += "," + featureChunks
	}
	if !c.frameless && !c.curbed.Load() {
		has += "," + featureFrames
	}
	return has
}

// root is where one instance of a service is addressed: one plain subscription, for direct calls and for what is to be said
// about a single call. It stays until the last handler of the service has come to its end, which may be asked for until then.
type root struct {
	subject string // without the wildcard
	sub     *nats.Subscription
	left    chan struct{} // closed when the subscription delivered its last message
	denied  bool          // the broker does not let us; there is no sub
}

// openRoots makes the roots of the operations' services, and lets the operations ack where there is one. It comes last in
// Serve and never fails it: a service without a root is called all the same. It takes a round trip for a service that is new.
func (b *Bus) openRoots(ops []*operation) {
	for _, op := range ops {
		b.mu.Lock()
		r := b.roots[op.spec.Service]
		b.mu.Unlock()
		if r == nil {
			r = b.openRoot(op.spec.Service)
		}
		if r == nil {
			continue
		}
		switch {
		case r.denied:
			b.rootless(op)
		case op.spec.Kind == endpoint.UnaryKind:
			op.jobs.acks(op.ack)
		}
		if !r.denied && op.ready != nil {
			op.control = r.subject + ".c."
		}
	}
	for _, op := range ops {
		if op.ready != nil {
			close(op.ready)
		}
	}
}

// openRoot subscribes and asks the broker whether it let us. It is called by one Serve at a time.
func (b *Bus) openRoot(service string) *root {
	r := &root{subject: wire.InstanceRoot(b.rpcRoot, service, b.id), left: make(chan struct{})}
	h := b.listen(`"` + r.subject)
	defer h.end()
	sub, err := b.nc.Subscribe(r.subject+".>", func(m *nats.Msg) { b.addressed(r, m) })
	if err != nil {
		return nil // the connection is gone, and everything with it
	}
	sub.SetClosedHandler(func(string) { close(r.left) })
	_ = bounded(sub)
	flushed := b.nc.FlushTimeout(5*time.Second) == nil
	if r.denied = flushed && len(h.complaints(context.Background())) > 0; r.denied {
		_ = sub.Unsubscribe()
		b.report(slog.LevelWarn, "no acks, direct calls and cancellation: the broker denies the instance's subject",
			slog.String("subject", r.subject+".>"))
	} else {
		r.sub = sub
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roots[service] = r
	if b.state == closed && r.sub != nil {
		_ = r.sub.Unsubscribe()
	}
	return r
}

// rootless takes back what an operation publishes of its instance's abilities.
func (b *Bus) rootless(op *operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	md := maps.Clone(op.info.Metadata) // a reader may have the old one
	delete(md, keyFeatures)
	op.info.Metadata = md
}

// unframed takes back that an operation takes batch frames.
func (b *Bus) unframed(op *operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if less, found := strings.CutSuffix(op.info.Metadata[keyFeatures], ","+featureFrames); found {
		md := maps.Clone(op.info.Metadata) // a reader may have the old one
		md[keyFeatures] = less
		op.info.Metadata = md
	}
}

// dropRoots ends the roots of services that nothing is left of.
func (b *Bus) dropRoots(ctx context.Context, ops []*operation) {
	b.mu.Lock()
	busy := map[string]bool{}
	for op := range b.leaving {
		busy[op.spec.Service] = true
	}
	var idle []*root
	for _, op := range ops {
		name := op.spec.Service
		if r := b.roots[name]; r != nil && b.services[name] == nil && !busy[name] {
			delete(b.roots, name)
			idle = append(idle, r)
		}
	}
	b.mu.Unlock()
	b.leaveRoots(ctx, idle)
}

// closeRoots ends them all.
func (b *Bus) closeRoots(ctx context.Context) {
	b.mu.Lock()
	all := slices.Collect(maps.Values(b.roots))
	b.roots = map[string]*root{}
	b.mu.Unlock()
	b.leaveRoots(ctx, all)
}

// leaveRoots drains, so that what arrived already is still answered.
func (b *Bus) leaveRoots(ctx context.Context, roots []*root) {
	var lefts []<-chan struct{}
	for _, r := range roots {
		switch {
		case r.denied:
		case b.connected() && r.sub.Drain() == nil:
			lefts = append(lefts, r.left)
		default:
			_ = r.sub.Unsubscribe()
		}
	}
	if len(lefts) == 0 {
		return
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime(ctx))
	defer cancel()
	waitAll(late.Done(), lefts)
}

// addressed is the callback of a root: a direct call, or a frame about one call. It never blocks.
func (b *Bus) addressed(r *root, m *nats.Msg) {
	rest := strings.TrimPrefix(m.Subject, r.subject+".")
	if subject, ok := strings.CutPrefix(rest, "e."); ok {
		b.directed(subject, m)
	} else if call, ok := strings.CutPrefix(rest, "c."); ok {
		b.controlled(call, m)
	}
}

// directed admits a direct call as if it had come by the queue group.
func (b *Bus) directed(subject string, m *nats.Msg) {
	if op := (*b.taken.Load())[subject]; op != nil {
		op.receive(m)
		return
	}
	if b.hostileReply(m.Reply) {
		b.malformed.Add(1)
		return
	}
	b.replyError(b.sender(arrival{msg: m}), errNotHere, nil)
}

// errNotHere is for direct calls to what this instance does not serve, or not any more.
var errNotHere = endpoint.Unavailable.New("this instance does not serve the subject").
	WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)
