package bus_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// keeper keeps what its handlers were given, beyond their return.
type keeper struct {
	mu       sync.Mutex
	calls    map[string]*endpoint.Call
	contexts map[string]context.Context
}

// handle keeps the call of each second request, and the context of all.
func (k *keeper) handle(ctx context.Context, r []byte) ([]byte, error) {
	n, err := strconv.Atoi(string(r))
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.contexts[string(r)] = ctx //nolint:fatcontext // to be kept is the point
	if n%2 == 0 {
		k.calls[string(r)] = endpoint.FromContext(ctx)
	}
	return r, nil
}

// Memory of calls serves others, but not that of a call which its handler has kept.
func TestWhatAHandlerKeepsStaysItsOwn(t *testing.T) {
	s := bustest.Server(t, embedded.WithoutListener())
	service, client := bustest.Connect(t, s), bustest.Connect(t, s)
	k := &keeper{calls: map[string]*endpoint.Call{}, contexts: map[string]context.Context{}}
	serve(t, service, "svc.keep", rawEndpoint(k.handle))
	call := endpoint.Caller[[]byte, []byte](client, "svc.keep", endpoint.Codec(codec.Raw))
	const callers, each = 8, 200
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range each {
				name := strconv.Itoa(i*each + n)
				got, err := call(endpoint.WithHeader(t.Context(), "number", name), []byte(name))
				assert.NoError(t, err)
				assert.Equal(t, string(got), name)
			}
		})
	}
	wg.Wait()
	assert.Eventually(t, func() bool { return service.Stats()[0].InFlight == 0 })
	assert.Equal(t, len(k.calls), callers*each/2)
	for name, c := range k.calls {
		assert.Equal(t, c.Subject, "svc.keep")
		assert.Equal(t, c.Header.Get("number"), name)
	}
	for name, ctx := range k.contexts {
		assert.ErrorIs(t, ctx.Err(), context.Canceled)
		if c := endpoint.FromContext(ctx); c != nil { // its own call, or none any more
			assert.Equal(t, c.Header.Get("number"), name)
		}
	}
}

// Who is canceled is the call that the cancel was for, whatever became of the memory of others.
func TestCancelsMeetTheirOwnCalls(t *testing.T) {
	s := bustest.Server(t, embedded.WithoutListener())
	service, client := bustest.Connect(t, s), bustest.Connect(t, s)
	serve(t, service, "svc.wait", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		switch string(r) {
		case "canceled":
			<-ctx.Done()
		case "slow":
			time.Sleep(15 * time.Millisecond)
		}
		return r, context.Cause(ctx)
	}))
	call := endpoint.Caller[[]byte, []byte](client, "svc.wait", endpoint.Codec(codec.Raw))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 8 {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(15*time.Millisecond, cancel)
				_, err := call(ctx, []byte("canceled"))
				assert.ErrorIs(t, err, context.Canceled)
			}
		})
		for text, times := range map[string]int{"slow": 16, "quick": 400} {
			wg.Go(func() {
				for range times {
					_, err := call(t.Context(), []byte(text))
					assert.NoError(t, err)
				}
			})
		}
	}
	wg.Wait()
}
