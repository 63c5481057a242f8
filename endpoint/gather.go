package endpoint

import (
	"context"
	"iter"
	"reflect"
)

// Reply is what one instance said to a gather.
type Reply[Resp any] struct {
	Value    Resp
	Instance string
	Err      error // this instance's failure; unavailable for one that is known and did not answer
}

// Gathered is how a transport hands the reply of one instance to a gather: by [Call.Send].
type Gathered struct {
	Message  any // a pointer, nil with an error
	Instance string
	Err      error
}

// Gather asks every instance at once and ranges over their replies as they come. It ends when all known instances have
// answered, or as [Quorum], [First] and [Stall] say, at the latest by the deadline. The iterator's own error is a failure
// of the gather as a whole; that of one instance stands in its Reply. Each range is a new call.
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
