package interop_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type (
	addRequest struct {
		A int `json:"a"`
		B int `json:"b"`
	}
	addResponse struct {
		Sum int `json:"sum"`
	}
	who struct {
		Who string `json:"who"`
	}
	none struct{}
)

// add is the calculator that everybody calls. It fails for 13.
func add(ctx context.Context, r *addRequest) (*addResponse, error) {
	if r.B == 13 {
		return nil, endpoint.NotFound.New("there is no 13")
	}
	if c := endpoint.FromContext(ctx); c.Header.Get("X-Tenant") != "" {
		c.Reply.Set("X-Tenant", c.Header.Get("X-Tenant"))
	}
	return &addResponse{r.A + r.B}, nil
}

// slow ends with its deadline only.
func slow(ctx context.Context, _ *none) (*none, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// broker starts a NATS server on a TCP port of the loopback interface.
func broker(t testing.TB) (url string) {
	t.Helper()
	return bustest.Server(t).URL()
}

func connect(t testing.TB, url string, opts ...bus.Option) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(url, opts...)
	assert.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.Drain(context.Background()), "drain") })
	return b
}

// plain is a connection without Postbus.
func plain(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	assert.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func serve(t testing.TB, b *bus.Bus, subject string, s endpoint.Servable) {
	t.Helper()
	assert.NoError(t, b.Serve(subject, s))
}

// discover finds the n instances that a service has; a machine that is busy may need a second look.
func discover(t testing.TB, b *bus.Bus, name string, n int) (found []bus.Instance) {
	t.Helper()
	assert.Eventually(t, func() bool {
		var err error
		found, err = b.Discover(t.Context(), name)
		return err == nil && len(found) == n
	}, "discovery of "+name)
	return found
}

// shares calls the subject n times and counts who answered.
func shares(t testing.TB, b *bus.Bus, subject string, n int) map[string]int {
	t.Helper()
	call := endpoint.Caller[*none, *who](b, subject)
	count := map[string]int{}
	for range n {
		r, err := call(t.Context(), &none{})
		assert.NoError(t, err)
		count[r.Who]++
	}
	return count
}

// executed checks that err is a verdict of a service that did run: its code and text.
func executed(t testing.TB, err error, code endpoint.Code, text string) {
	t.Helper()
	assert.ErrorIs(t, err, code)
	assert.Contains(t, err.Error(), text)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.Executed)
}

func encodeJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	assert.NoError(t, err)
	return data
}

func decodeJSON[T any](t testing.TB, data []byte) (v T) {
	t.Helper()
	assert.NoError(t, json.Unmarshal(data, &v))
	return v
}
