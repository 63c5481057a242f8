package middleware_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

type greeting struct{ Text string }

// together lets users be greeted all at once: no greeting is ready before each of the calls waits for one. It returns the
// greetings, in order, and how many were made.
func together(coalesce endpoint.Middleware, users ...string) (texts []string, made int64) {
	var waiting sync.WaitGroup
	waiting.Add(len(users))
	var count atomic.Int64
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.greet", endpoint.New(func(ctx context.Context, _ *addRequest) (*greeting, error) {
		count.Add(1)
		waiting.Wait()
		return &greeting{Text: "hello " + endpoint.FromContext(ctx).Header.Get("user")}, nil
	}))
	call := endpoint.Caller[*addRequest, *greeting](mux, "svc.greet", endpoint.ReadOnly(), coalesce)

	texts = make([]string, len(users))
	var wg sync.WaitGroup
	for i, user := range users {
		wg.Go(func() {
			ctx := endpoint.WithHeader(context.Background(), "user", user)
			if resp, err := call(&awaited{Context: ctx, begins: waiting.Done}, &addRequest{}); err == nil {
				texts[i] = resp.Text
			}
		})
	}
	wg.Wait()
	return texts, count.Load()
}

// awaited is a context that tells when somebody begins to wait for its end, as calls do that wait for a flight.
type awaited struct {
	context.Context

	begins func()
	once   sync.Once
}

func (a *awaited) Done() <-chan struct{} {
	a.once.Do(a.begins)
	return a.Context.Done()
}

func ExampleCoalesce() {
	texts, made := together(middleware.Coalesce(nil), "alice", "bob", "alice", "alice")
	fmt.Println(texts, "made:", made)
	// Output: [hello alice hello bob hello alice hello alice] made: 2
}

// A key that leaves out who asks shows one caller what is meant for another.
func ExampleCoalesce_incorrect() {
	requestAlone := func(_ context.Context, c *endpoint.Call) string { return string(c.Body()) }
	texts, made := together(middleware.Coalesce(requestAlone), "alice", "bob")
	fmt.Println("the same for alice and bob:", texts[0] == texts[1], "made:", made)
	// Output: the same for alice and bob: true made: 1
}
