package interop_test

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natsext"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type (
	countRequest struct {
		To int `json:"to"`
	}
	number struct {
		N int `json:"n"`
	}
)

// countUp yields the numbers up to the request's, and fails for 13.
func countUp(_ context.Context, r *countRequest) iter.Seq2[*number, error] {
	return func(yield func(*number, error) bool) {
		for i := range r.To {
			if !yield(&number{i + 1}, nil) {
				return
			}
		}
		if r.To == 13 {
			yield(nil, endpoint.NotFound.New("there is no 13"))
		}
	}
}

// streams serves svc.count, and svc.endless, which yields until its context ends and says why that was.
func streams(t testing.TB, url string) (b *bus.Bus, causes <-chan error) {
	t.Helper()
	b, ends := connect(t, url), make(chan error, 10)
	serve(t, b, "svc.count", endpoint.NewServerStream(countUp))
	serve(t, b, "svc.endless", endpoint.NewServerStream(func(ctx context.Context, _ *none) iter.Seq2[*number, error] {
		return func(yield func(*number, error) bool) {
			for i := 1; yield(&number{i}, nil); i++ {
			}
			<-ctx.Done()
			ends <- context.Cause(ctx)
		}
	}))
	return b, ends
}

// canceled waits until the handler of svc.endless has ended for its caller's sake.
func canceled(t *testing.T, causes <-chan error) {
	t.Helper()
	select {
	case err := <-causes:
		assert.ErrorIs(t, err, endpoint.Canceled)
	case <-time.After(5 * time.Second):
		t.Fatal("the handler goes on")
	}
}

// upTo is what countUp says, as JSON.
func upTo(n int) (out []string) {
	for i := range n {
		out = append(out, `{"n":`+strconv.Itoa(i+1)+`}`)
	}
	return out
}

// A client that knows no streams takes one with RequestMany: items until an empty message, as nats request --wait-for-empty.
func TestRequestMany_takesAStream(t *testing.T) {
	t.Parallel()
	url := broker(t)
	streams(t, url)
	nc := plain(t, url)
	for _, n := range []int{0, 1, 13, 1000} {
		var last *nats.Msg
		msgs, err := natsext.RequestMany(t.Context(), nc, "svc.count", encodeJSON(t, countRequest{n}), natsext.RequestManySentinel(func(m *nats.Msg) bool {
			last = m
			return natsext.DefaultSentinel(m)
		}))
		assert.NoError(t, err)
		var got []string
		for m, err := range msgs {
			assert.NoError(t, err)
			got = append(got, string(m.Data))
		}
		assert.Equal(t, got, upTo(n))
		assert.Equal(t, last.Header.Get("Rpc-End"), strconv.Itoa(n))
		assert.Equal(t, last.Header.Get("Nats-Service-Error") != "", n == 13)
	}
}

// One that says that it takes a stream gets where to say more: it grants credit, and cancels.
func TestRequestMany_cancelsAStream(t *testing.T) {
	t.Parallel()
	url := broker(t)
	_, causes := streams(t, url)
	nc := plain(t, url)
	m := &nats.Msg{Subject: "svc.endless", Header: nats.Header{"Rpc-Stream": {"server"}, "Rpc-Window": {"10;65536"}}, Data: []byte("{}")}
	end := func(m *nats.Msg) bool { return m.Header.Get("Rpc-End") != "" }
	msgs, err := natsext.RequestManyMsg(t.Context(), nc, m, natsext.RequestManySentinel(end))
	assert.NoError(t, err)
	var control string
	var got []string
	say := func(kv ...string) {
		m := nats.NewMsg(control)
		for i := 0; i < len(kv); i += 2 {
			m.Header.Set(kv[i], kv[i+1])
		}
		assert.NoError(t, nc.PublishMsg(m))
	}
	for m, err := range msgs {
		assert.NoError(t, err)
		if m.Header.Get("Rpc-Open") != "" {
			control = m.Reply
			continue
		}
		if got = append(got, string(m.Data)); len(got) == 10 {
			say("Rpc-Ctl", "window", "Rpc-Window", "20;65536")
		}
		if len(got) == 20 {
			say("Rpc-Ctl", "cancel")
			break
		}
	}
	assert.Equal(t, got, upTo(20))
	canceled(t, causes)
}

func TestJS_takesStreams(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := broker(t)
			_, causes := streams(t, url)
			client, found := startScript(t, "stream.mjs", kind, url), steps{}
			for line := (step{}); client.next(t, &line); line = (step{}) {
				found[line.Step] = line.Value
			}
			client.stop(t)
			for step, n := range map[string]int{"three": 3, "none": 0, "thirteen": 13} {
				var items []string
				found.read(t, step, &items)
				assert.True(t, slices.Equal(items, upTo(n)), step)
			}
			var taken struct {
				Items []string `json:"items"`
				Code  string   `json:"code"`
			}
			found.read(t, "canceled", &taken)
			assert.Equal(t, taken.Items, upTo(20))
			assert.Equal(t, taken.Code, "canceled", "the end says so")
			canceled(t, causes)
		})
	}
}
