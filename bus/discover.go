package bus

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

const (
	discoverTime  = 2 * time.Second        // for contexts without a deadline
	discoverStall = 250 * time.Millisecond // silence that ends it
)

const infoVerb = ".INFO"

// Discover finds the instances that answer now: of one service, or of all for an empty name, whatever they are made with.
// Without a deadline it takes at most two seconds; it ends early when no more answers come. Answers that can't be read,
// answers of one instance but the first, and endpoints on subjects that can't be are left out, and counted. Nobody there is
// no error; that this client may not ask is one, permission_denied, at once.
//
// Schemas too long for the listing are fetched when one service is asked for, which takes a question for each, two seconds
// at most; who must have them for all asks for one after the other. Their hashes stand in the endpoints' metadata.
func (b *Bus) Discover(ctx context.Context, name string) ([]Instance, error) {
	subject := b.srvRoot + infoVerb
	if name != "" {
		if err := endpoint.ValidateServiceName(name); err != nil {
			return nil, endpoint.InvalidArgument.Wrap(err, err.Error()).WithOutcome(endpoint.NotSent)
		}
		subject += "." + name
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, discoverTime)
		defer cancel()
	}
	var out []Instance
	err := b.survey(ctx, subject, func(i Instance) { out = append(out, i) })
	if err != nil && (len(out) == 0 || !errors.Is(err, context.DeadlineExceeded)) {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Instance) int {
		return strings.Compare(a.Service+" "+a.ID, b.Service+" "+b.ID)
	})
	if name != "" {
		b.fetchSchemas(ctx, out)
	}
	return out, nil
}

// survey asks for who is there, and hands over each as it answers. Nobody there is no error.
func (b *Bus) survey(ctx context.Context, subject string, found func(Instance)) error {
	seen := map[[2]string]bool{}
	err := b.ask(ctx, subject, nil, func(m *nats.Msg) bool {
		var info micro.Info
		if json.Unmarshal(m.Data, &info) != nil || !identified(&info) || seen[[2]string{info.Name, info.ID}] {
			b.malformed.Add(1)
			return true
		}
		seen[[2]string{info.Name, info.ID}] = true
		found(b.instanceOf(&info))
		return true
	})
	if noResponders(err) {
		return nil
	}
	return err
}

// identified reports whether an answer says who gave it, in words that may end in a subject or a label.
func identified(info *micro.Info) bool {
	return info.Type == micro.InfoResponseType && endpoint.ValidateServiceName(info.Name) == nil && endpoint.ValidateServiceName(info.ID) == nil
}

// instanceOf leaves out endpoints on subjects that can't be; other makes may serve patterns.
func (b *Bus) instanceOf(info *micro.Info) Instance {
	b.names.learn(info.ID, info.Name)
	i := Instance{Service: info.Name, ID: info.ID, Version: info.Version, Description: info.Description, Metadata: info.Metadata}
	for _, e := range info.Endpoints {
		if endpoint.ValidatePattern(e.Subject) != nil {
			b.malformed.Add(1)
			continue
		}
		i.Endpoints = append(i.Endpoints, unpublish(e.Name, e.Subject, e.QueueGroup, e.Metadata))
	}
	return i
}

// ask sends a request that many may answer, and hands the answers over until more returns false, silence or ctx's end.
func (b *Bus) ask(ctx context.Context, subject string, body []byte, more func(*nats.Msg) bool) error {
	answers := make(chan *nats.Msg, 1024)
	slot, secret := b.mux.open(request{epoch: b.up.Epoch()}, func(m *nats.Msg) {
		select {
		case answers <- m:
		default:
			b.mux.late.Add(1)
		}
	})
	if slot == nil {
		return b.ended()
	}
	defer b.mux.close(slot)
	if !b.connected() {
		return b.offline()
	}
	reply := string(wire.AppendID([]byte(b.mux.prefix), slot.index, secret))
	h := b.listen(quoted(subject))
	defer h.end()
	if err := b.nc.PublishRequest(subject, reply, body); err != nil {
		return b.sendError(err, 0)
	}
	if err := b.allowed(ctx, subject, h); err != nil {
		return err
	}
	stall := time.NewTimer(discoverTime) // until the first: the broker may be far
	defer stall.Stop()
	for {
		select {
		case m := <-answers:
			switch {
			case m == nil:
				return b.ended()
			case verdict(m):
				return lost(m)
			case garbled(m): // one peer's trouble is not everybody's
				b.malformed.Add(1)
				continue
			}
			var app endpoint.Header
			if r := wire.ReadReply(wire.Headers(m.Header), m.Data, &app); noResponders(r.Err) {
				return r.Err
			} else if r.Err != nil {
				b.malformed.Add(1)
				continue
			}
			if !more(m) {
				return nil
			}
			stall.Reset(discoverStall)
		case <-stall.C:
			return nil
		case <-ctx.Done():
			return endpoint.ContextError(ctx)
		}
	}
}

// allowed makes sure, by a round trip, that the broker took what was published: it says no at once and to the connection,
// while a call that nobody answers says nothing.
func (b *Bus) allowed(ctx context.Context, subject string, h *hearing) error {
	if err := b.nc.FlushWithContext(ctx); err != nil && ctx.Err() == nil {
		return b.offline().WithOutcome(endpoint.MaybeExecuted)
	}
	if said := h.complaints(ctx); len(said) > 0 {
		return publishDenied(subject, said[0]).WithOutcome(endpoint.NotExecuted)
	}
	return nil
}

func noResponders(err error) bool {
	e, ok := errors.AsType[*endpoint.Error](err)
	return ok && e != nil && e.Reason() == endpoint.ReasonNoResponders
}

// pingSelf asks for our own service by way of the broker. Where the broker does not let us, it is not asked again on this
// connection.
func (b *Bus) pingSelf(ctx context.Context, s *service) error {
	epoch := b.up.Epoch()
	if s.unasked.Load() == epoch {
		return nil
	}
	answered := false
	err := b.ask(ctx, b.srvRoot+".PING."+s.name+"."+b.id, nil, func(*nats.Msg) bool {
		answered = true
		return false
	})
	switch {
	case answered:
		return nil
	case errors.Is(err, endpoint.PermissionDenied):
		s.unasked.Store(epoch)
		return nil
	case err == nil:
		err = context.DeadlineExceeded
	}
	return endpoint.Unavailable.Wrap(err, "service "+s.name+" does not answer").WithOutcome(endpoint.NotExecuted)
}
