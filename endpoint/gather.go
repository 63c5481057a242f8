package endpoint

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Reply is what one instance said to a gather.
type Reply[Resp any] struct {
	Value    Resp
	Instance string // its id, "" if it does not say: it is of another make
	Err      error  // this instance's failure; unavailable, with a [MissingError], for one that is known and did not answer
}

// MissingError names the instances that a gather knows of and that did not answer. Each of them has a [Reply] at the end of the
// gather, whose Err has this error in its chain: errors.As finds it.
type MissingError struct {
	Instances []string // the ids of all that are missing, in order; not to be changed
}

// Error names them.
func (e *MissingError) Error() string {
	return "no answer from " + strings.Join(e.Instances, ", ")
}

// Gathered is how a transport hands the reply of one instance to a gather: by [Call.Send].
type Gathered struct {
	Message  any // a pointer, nil with an error
	Instance string
	Err      error
}

// Missing makes what a gather says at its end of the instances, by id, that it knows of and that did not answer: in the order
// of their ids, all named in one [MissingError]. Of each there may be known why; nil if it was silent. It is for transports.
func Missing(why map[string]*Error) []*Gathered {
	all := &MissingError{Instances: slices.Sorted(maps.Keys(why))}
	out := make([]*Gathered, 0, len(why))
	for _, id := range all.Instances {
		e := Unavailable.Wrap(all, fmt.Sprintf("the instance %s did not answer", id)).WithReason(ReasonNoAnswer)
		if known := why[id]; known != nil {
			e.Message += ": " + known.Message
			e = e.WithReason(known.reason).WithOutcome(known.outcome)
		}
		out = append(out, &Gathered{Instance: id, Err: e})
	}
	return out
}

// Member returns the call of one instance within a gather: it shares the request and its encoding, and has a copy of the
// headers and results of its own. It is for transports: it is begun and ended with the gather's own call, which is not ended
// before all its members are done.
func (c *Call) Member() *Call {
	return &Call{
		Spec: c.Spec, Subject: c.Subject, Side: c.Side, Attempt: c.Attempt, Header: c.Header.Clone(),
		root: c.root, trace: c.trace, received: c.received, codec: c.codec,
	}
}

// Gather asks every instance at once and ranges over their replies as they come. It ends when all known instances have
// answered, or as [Quorum], [First] and [Stall] say, at the latest by the deadline. Then those that are known and did not
// answer are named, see [MissingError]; not so where a quorum was enough. The iterator's own error is a failure of the gather
// as a whole; that of one instance stands in its Reply. Each range is a new call; to leave the loop cancels the calls that are
// still under way. Middleware surrounds the gather as one call at the caller, and the call of each instance at its service.
func Gather[Req, Resp any](t Transport, subject string, opts ...Option) func(context.Context, Req) iter.Seq2[Reply[Resp], error] {
	k := newCaller(t, subject, GatherKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return func(ctx context.Context, req Req) iter.Seq2[Reply[Resp], error] {
		return func(yield func(Reply[Resp], error) bool) {
			k.gather(ctx, box(req, k.spec.reqPtr), func(g *Gathered, err error) bool {
				if err != nil {
					return yield(Reply[Resp]{}, asReceived(err))
				}
				r := Reply[Resp]{Instance: g.Instance}
				r.Value, r.Err = result[Resp](k, g.Message, k.spec.revive(g.Err))
				return yield(r, nil)
			})
		}
	}
}

func (k *caller) gather(ctx context.Context, msg any, yield func(*Gathered, error) bool) {
	c, ctx, err := k.start(ctx, msg, nil)
	if err != nil {
		yield(nil, err)
		return
	}
	defer c.finish()
	s := sink{call: c}
	good := 0
	c.send = func(m any) error {
		g, ok := m.(*Gathered)
		if !ok {
			return Internal.Errorf("a gather's item is %T, want %T", m, g)
		}
		if g.Err == nil {
			good++
		}
		if err := s.put(func() bool { return yield(g, nil) }); err != nil {
			return err
		}
		if k.spec.Quorum > 0 && good >= k.spec.Quorum {
			s.left = true
			c.Cancel(errLeft)
			return errLeft
		}
		return nil
	}
	_, err = k.run(ctx, c)
	if s.panicked {
		panic(s.panicValue)
	}
	if err != nil && !s.left {
		yield(nil, err)
	}
}
