package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func gather(tr endpoint.Transport, opts ...endpoint.Option) func(context.Context, *addRequest) ([]string, error) {
	f := endpoint.Gather[*addRequest, *addResponse](tr, "svc.op", opts...)
	return func(ctx context.Context, r *addRequest) (got []string, err error) {
		for reply, e := range f(ctx, r) {
			switch {
			case e != nil:
				err = e
			case reply.Err != nil:
				got = append(got, fmt.Sprint(reply.Instance != "", " ", endpoint.CodeOf(reply.Err)))
			default:
				got = append(got, fmt.Sprint(reply.Instance != "", " ", reply.Value.Sum))
			}
		}
		return got, err
	}
}

func TestGatherOverMux(t *testing.T) {
	m := serve(t, endpoint.New(add, declared()...))
	got, err := gather(m)(t.Context(), request)
	assert.NoError(t, err)
	assert.Equal(t, got, []string{"true 3"})
	got, err = gather(m)(t.Context(), &addRequest{B: 13})
	assert.NoError(t, err, "one instance's failure is not the gather's")
	assert.Equal(t, got, []string{"true failed_precondition"})
	_, err = gather(endpoint.NewMux())(t.Context(), request)
	asError(t, err, endpoint.Unavailable, endpoint.NotExecuted)
	_, err = gather(m)(t.Context(), nil)
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
}

func TestGatherEndsWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		m := serve(t, endpoint.New(g.handle))
		for _, c := range []struct {
			opts []endpoint.Option
			took time.Duration
		}{{nil, 10 * time.Second}, {[]endpoint.Option{endpoint.Stall(time.Second)}, time.Second}} {
			start := time.Now()
			got, err := gather(m, c.opts...)(t.Context(), request)
			assert.NoError(t, err)
			assert.Equal(t, got, []string{"true unavailable"})
			assert.Equal(t, time.Since(start), c.took)
			for r := range endpoint.Gather[*addRequest, *addResponse](m, "svc.op", c.opts...)(t.Context(), request) {
				missing, ok := errors.AsType[*endpoint.MissingError](r.Err)
				assert.True(t, ok && len(missing.Instances) == 1 && missing.Instances[0] == r.Instance)
				e := asError(t, r.Err, endpoint.Unavailable, endpoint.MaybeExecuted)
				assert.Equal(t, e.Reason(), endpoint.ReasonNoAnswer)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := gather(m)(ctx, request)
		assert.ErrorIs(t, err, context.Canceled)
		close(g.leave)
	})
}

// A handler that sees its deadline at the same moment as the gather has not answered.
func TestGatherDeadlineOverMux(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := serve(t, endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		for range 50 {
			got, err := gather(m, endpoint.Timeout(time.Second))(t.Context(), request)
			assert.NoError(t, err)
			assert.Equal(t, got, []string{"true unavailable"})
		}
	})
}

// All that are missing are named in each of their errors, with what is known of each.
func TestMissing(t *testing.T) {
	lost := endpoint.Unavailable.New("it is gone").WithReason(endpoint.ReasonInstanceLost)
	gone := endpoint.Unavailable.New("it is not there").WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)
	all := endpoint.Missing(map[string]*endpoint.Error{"c": nil, "a": lost, "b": gone})
	assert.Equal(t, len(all), 3)
	for i, want := range []struct {
		text    string
		outcome endpoint.Outcome
	}{
		{"unavailable (instance_lost): the instance a did not answer: it is gone", endpoint.MaybeExecuted},
		{"unavailable (no_responders): the instance b did not answer: it is not there", endpoint.NotExecuted},
		{"unavailable (no_answer): the instance c did not answer", endpoint.MaybeExecuted},
	} {
		assert.Equal(t, all[i].Err.Error(), want.text)
		asError(t, all[i].Err, endpoint.Unavailable, want.outcome)
		missing, ok := errors.AsType[*endpoint.MissingError](all[i].Err)
		assert.True(t, ok)
		assert.Equal(t, missing.Error(), "no answer from a, b, c")
	}
	assert.Equal(t, len(endpoint.Missing(nil)), 0)
}

// many is a transport with n instances, of which the odd ones fail.
func many(n int, left *int) endpoint.Transport {
	return transportFunc(func(ctx context.Context, c *endpoint.Call) (any, error) {
		for i := range n {
			g := &endpoint.Gathered{Instance: fmt.Sprint("i", i), Message: &addResponse{Sum: i}}
			if i%2 == 1 {
				g.Message, g.Err = nil, endpoint.Aborted.New("")
			}
			if err := c.Send(g); err != nil {
				*left = i
				return nil, errors.Join(err, ctx.Err())
			}
		}
		return nil, nil
	})
}

func TestGatherQuorum(t *testing.T) {
	for _, c := range []struct {
		opts []endpoint.Option
		want []string
		left int
	}{
		{nil, []string{"true 0", "true aborted", "true 2", "true aborted", "true 4"}, -1},
		{[]endpoint.Option{endpoint.First()}, []string{"true 0"}, 0},
		{[]endpoint.Option{endpoint.Quorum(2)}, []string{"true 0", "true aborted", "true 2"}, 2},
		{[]endpoint.Option{endpoint.Quorum(9)}, []string{"true 0", "true aborted", "true 2", "true aborted", "true 4"}, -1},
	} {
		left := -1
		got, err := gather(many(5, &left), c.opts...)(t.Context(), request)
		assert.NoError(t, err)
		assert.Equal(t, got, c.want)
		assert.Equal(t, left, c.left)
	}
	left := -1
	for range endpoint.Gather[*addRequest, *addResponse](many(5, &left), "svc.op")(t.Context(), request) {
		break
	}
	assert.Equal(t, left, 0)
	func() {
		defer func() { assert.Equal(t, recover(), any("mine")) }()
		for range endpoint.Gather[*addRequest, *addResponse](many(5, &left), "svc.op", endpoint.With(swallow))(t.Context(), request) {
			panic("mine")
		}
	}()
}
