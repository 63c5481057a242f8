package endpoint_test

import (
	"context"
	"io"
	"testing"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// twice is middleware that answers the second call, and those that follow, with what the first one got.
func twice(outcome *endpoint.Outcome) endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		var kept *endpoint.Result
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if kept != nil {
				return c.Replay(kept)
			}
			d, err := c.Detach()
			if err != nil {
				return nil, err
			}
			deadline, _ := ctx.Deadline()
			own := d.Begin(context.WithoutCancel(ctx), deadline)
			reply, err := next(own, d)
			if *outcome = c.Verdict(endpoint.Aborted).Outcome(); err != nil {
				return nil, err
			}
			if kept, err = d.Result(reply); err != nil {
				return nil, err
			}
			c.Adopt(d)
			return reply, nil
		}
	}
}

func TestReplay(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		t.Run(side.String(), func(t *testing.T) {
			calls := 0
			var outcome endpoint.Outcome
			var seen []any
			watch := func(next endpoint.Handler) endpoint.Handler {
				return func(ctx context.Context, c *endpoint.Call) (any, error) {
					reply, err := next(ctx, c)
					_, n := c.Sizes()
					assert.Equal(t, n, len(`{"Sum":3}`))
					assert.Equal(t, string(c.ReplyBody()), `{"Sum":3}`)
					seen = append(seen, reply)
					return reply, err
				}
			}
			both := endpoint.With(watch, twice(&outcome))
			tagged := func(ctx context.Context, r *addRequest) (*addResponse, error) {
				calls++
				endpoint.FromContext(ctx).Reply.Set("x-tag", "a")
				return add(ctx, r)
			}
			var server, client []endpoint.Option
			if side == endpoint.ServerSide {
				server = append(server, both)
			} else {
				client = append(client, both)
			}
			call := caller(serve(t, endpoint.New(tagged, server...)), client...)
			for range 3 {
				ctx, report := endpoint.Observe(t.Context())
				resp, err := call(ctx, &addRequest{A: 1, B: 2})
				assert.NoError(t, err)
				assert.Equal(t, resp.Sum, 3)
				assert.Equal(t, report.Reply.Get("X-Tag"), "a")
				assert.True(t, report.Instance != "", "who served it")
				resp.Sum = 99 // its own
			}
			assert.Equal(t, calls, 1)
			assert.True(t, seen[1] != seen[0] && seen[2] != seen[1], "a message for each call")
			if side == endpoint.ServerSide {
				assert.Equal(t, outcome, endpoint.Executed, "what was executed for the detached call was for the call")
			}
		})
	}
}

func TestReplayKeepsPayloadsApart(t *testing.T) {
	for name, tc := range map[string]struct {
		call func(endpoint.Transport, endpoint.Middleware) func() []byte
		ep   endpoint.Servable
	}{
		"payload": {
			ep: endpoint.New(func(_ context.Context, p *codec.Payload) (*codec.Payload, error) { return p, nil }),
			call: func(tr endpoint.Transport, mw endpoint.Middleware) func() []byte {
				f := endpoint.Caller[*codec.Payload, *codec.Payload](tr, "svc.op", mw)
				return func() []byte {
					p, err := f(t.Context(), &codec.Payload{MediaType: "text/plain", Data: []byte("abc")})
					assert.NoError(t, err)
					assert.Equal(t, p.MediaType, "text/plain")
					return p.Data
				}
			},
		},
		"raw": {
			ep: endpoint.New(func(_ context.Context, p *[]byte) (*[]byte, error) { return p, nil }, endpoint.Codec(codec.Raw)),
			call: func(tr endpoint.Transport, mw endpoint.Middleware) func() []byte {
				f := endpoint.Caller[*[]byte, *[]byte](tr, "svc.op", endpoint.Codec(codec.Raw), mw)
				return func() []byte {
					p, err := f(t.Context(), new([]byte("abc")))
					assert.NoError(t, err)
					return *p
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var outcome endpoint.Outcome
			call := tc.call(serve(t, tc.ep), twice(&outcome))
			for range 3 {
				data := call()
				assert.Equal(t, string(data), "abc")
				data[0] = 'x' // its owner may
			}
		})
	}
}

// A reply that a middleware put in place of what travelled is what is kept.
func TestResultOfAReplacedReply(t *testing.T) {
	var outcome endpoint.Outcome
	call := caller(serve(t, endpoint.New(add)), twice(&outcome), reply(&addResponse{Sum: 42}))
	for range 2 {
		resp, err := call(t.Context(), &addRequest{A: 1})
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, 42)
	}
	_, err := caller(serve(t, endpoint.New(add)), twice(&outcome), reply("text"))(t.Context(), &addRequest{})
	asError(t, err, endpoint.Internal, endpoint.MaybeExecuted)
}

func TestReplayTooLarge(t *testing.T) {
	c := endpoint.NewCall(endpoint.New(add).Spec(), "svc.op", endpoint.ServerSide)
	c.SetBody([]byte("{}"), "application/json", codec.JSON)
	r, err := c.Result(&addResponse{Sum: 3})
	assert.NoError(t, err)
	c = endpoint.NewCall(endpoint.New(add).Spec(), "svc.op", endpoint.ServerSide)
	c.SetBody([]byte("{}"), "application/json", codec.JSON)
	c.SetMaxReply(3)
	_, err = c.Replay(r)
	assert.Equal(t, asError(t, err, endpoint.ResourceExhausted, endpoint.Executed).Reason(), endpoint.ReasonReplyTooLarge)
}

// A detached call has its request after its origin has ended, and is charged to whoever takes charge of attempts.
func TestDetach(t *testing.T) {
	var kept *endpoint.Call
	detach := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			assert.True(t, c.TakeRetries())
			d, err := c.Detach()
			assert.NoError(t, err)
			assert.True(t, !d.TakeRetries(), "it is taken already")
			d.Header.Set("b", "2")
			assert.Equal(t, c.Header.Get("b"), "")
			kept = d
			return next(ctx, c)
		}
	}
	req := &addRequest{A: 1, B: 2}
	_, err := caller(serve(t, endpoint.New(add)), endpoint.Middleware(detach))(endpoint.WithHeader(t.Context(), "a", "1"), req)
	assert.NoError(t, err)
	req.A = 77 // the caller's again
	for range 100 {
		_, _ = caller(serve(t, endpoint.New(add)))(t.Context(), &addRequest{A: 5, B: 5}) // would reuse pooled memory
	}
	assert.Equal(t, string(kept.Body()), `{"A":1,"B":2}`)
	m, err := kept.Message()
	assert.NoError(t, err)
	assert.Equal(t, m.(*addRequest).A, 1)
	assert.Equal(t, kept.Header.Get("A"), "1")
}

func TestFollow(t *testing.T) {
	s := endpoint.New(add).Spec()
	entered := func() *endpoint.Call { // a call whose function ran
		c := endpoint.NewCall(s, "svc.op", endpoint.ServerSide)
		c.SetBody([]byte(`{}`), "application/json", codec.JSON)
		_, err := endpoint.New(add).Handler()(t.Context(), c)
		assert.NoError(t, err)
		return c
	}
	fresh := func() *endpoint.Call { return endpoint.NewCall(s, "svc.op", endpoint.ServerSide) }
	c := fresh()
	outcome := func() endpoint.Outcome { return c.Verdict(endpoint.Aborted).Outcome() }
	c.Follow(fresh())
	assert.Equal(t, outcome(), endpoint.NotExecuted)
	c.Follow(entered())
	assert.Equal(t, outcome(), endpoint.Executed)
	c.Follow(fresh())
	assert.Equal(t, outcome(), endpoint.Executed, "once it was, it was")

	c = fresh()
	between := fresh()
	c.Follow(between)
	between.Follow(entered())
	assert.Equal(t, outcome(), endpoint.Executed, "a detached call of a detached call")
}

func TestWrapRecv(t *testing.T) {
	add100 := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			c.WrapRecv(func(recv func() (any, error)) func() (any, error) {
				return func() (any, error) {
					m, err := recv()
					if err != nil {
						assert.ErrorIs(t, err, io.EOF)
						return nil, err
					}
					return &addRequest{A: m.(*addRequest).A + 100}, nil
				}
			})
			return next(ctx, c)
		}
	}
	m := serve(t, endpoint.NewClientStream(total, endpoint.Middleware(add100)))
	sum := endpoint.ClientStreamCaller[*addRequest, *addResponse](m, "svc.op", endpoint.Middleware(add100))
	resp, err := sum(t.Context(), inputs(2))
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 1+2+400)

	_, err = caller(serve(t, endpoint.New(add)), endpoint.Middleware(add100))(t.Context(), &addRequest{})
	assert.NoError(t, err, "unary calls have nothing to wrap")
}
