package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

// bug is a middleware that panics.
func bug(endpoint.Handler) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) { panic("index out of range") }
}

func ExampleRecover() {
	mux := endpoint.NewMux()
	mux.Use(middleware.Recover()) // bus-wide middleware is outermost
	_ = mux.Serve("svc.add", endpoint.New(add, endpoint.With(bug)))

	_, err := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(context.Background(), &addRequest{})
	fmt.Println(err, endpoint.OutcomeOf(err))
	// Output: internal (panic) not_executed
}

// Recover catches what it surrounds. Innermost it surrounds the handler alone, whose panics are caught anyway; this one
// escapes it, and is left to whoever calls: a Mux and a bus survive it, another transport may not.
func ExampleRecover_incorrect() {
	recovered := false
	defer func() { fmt.Println("escaped:", recover(), recovered) }()

	h := endpoint.Chain(bug, middleware.Recover())(func(context.Context, *endpoint.Call) (any, error) { return &addResponse{}, nil })
	_, _ = h(context.Background(), newCall(endpoint.ServerSide))
	recovered = true
	// Output: escaped: index out of range false
}

func ExampleLog() {
	// What differs from run to run is left out for this example.
	text := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" || a.Key == "instance" {
			return slog.Attr{}
		}
		return a
	}})
	mux := endpoint.NewMux()
	log := middleware.Log(slog.New(text))
	_ = mux.Serve("svc.add", endpoint.New(add, log))
	_ = mux.Serve("svc.save", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
		return nil, errors.New("disk is full")
	}, log))

	ctx := context.Background()
	_, _ = endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(ctx, &addRequest{A: 1, B: 2})
	_, err := endpoint.Caller[*addRequest, *addResponse](mux, "svc.save")(ctx, &addRequest{})
	fmt.Println("the caller gets:", err)
	// Output:
	// level=INFO msg=rpc side=server subject=svc.add kind=unary code=ok outcome=executed request_bytes=13 reply_bytes=9
	// level=ERROR msg=rpc side=server subject=svc.save kind=unary code=unknown outcome=executed request_bytes=13 reply_bytes=0 cause="disk is full"
	// the caller gets: unknown
}

func ExampleLogLevels() {
	// Only failures, and those of the caller quietly.
	level := func(c endpoint.Code) slog.Level {
		if c == endpoint.OK {
			return slog.LevelDebug
		}
		return middleware.LogLevel(c)
	}
	_ = middleware.Log(slog.New(slog.NewJSONHandler(os.Stderr, nil)), middleware.LogLevels(level))
	fmt.Println(level(endpoint.OK), level(endpoint.NotFound), level(endpoint.Internal))
	// Output: DEBUG INFO ERROR
}

func ExampleTimeout() {
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.stuck", endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.stuck", middleware.Timeout(10*time.Millisecond))
	_, err := call(context.Background(), &addRequest{})
	fmt.Println(errors.Is(err, context.DeadlineExceeded), reasonOf(err))
	// Output: true timeout
}

func ExampleRateLimit() {
	mux := endpoint.NewMux()
	ep := endpoint.New(add, middleware.RateLimit(rate.NewLimiter(rate.Every(time.Hour), 2)))
	_ = mux.Serve("svc.add", ep)

	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")
	for range 3 {
		_, err := call(context.Background(), &addRequest{A: 1, B: 2})
		if e, ok := errors.AsType[*endpoint.Error](err); ok {
			fmt.Println(err, e.Outcome(), e.RetryAfter.Round(time.Hour))
			continue
		}
		fmt.Println("ok")
	}
	// Output:
	// ok
	// ok
	// resource_exhausted (rate_limited): the rate limit is reached not_executed 1h0m0s
}

// A limiter made for each endpoint limits each endpoint: together they get as many times the rate. What is scarce is one
// thing, so it has one limiter, and one RateLimit value around all that use it.
func ExampleRateLimit_incorrect() {
	mux := endpoint.NewMux()
	limited := func() *endpoint.Endpoint {
		return endpoint.New(add, middleware.RateLimit(rate.NewLimiter(rate.Every(time.Hour), 1)))
	}
	_ = mux.Serve("db.read", limited())
	_ = mux.Serve("db.write", limited())

	passed := 0
	for _, subject := range []string{"db.read", "db.write"} {
		if _, err := endpoint.Caller[*addRequest, *addResponse](mux, subject)(context.Background(), &addRequest{}); err == nil {
			passed++
		}
	}
	fmt.Println("the database was meant to get 1 call, and got", passed)
	// Output: the database was meant to get 1 call, and got 2
}

// flaky serves an add that is unavailable for its first calls.
func flaky(failures int) *endpoint.Mux {
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		if failures--; failures >= 0 {
			return nil, endpoint.Unavailable.New("come back later")
		}
		return add(ctx, r)
	}))
	return mux
}

func ExampleRetry() {
	again := middleware.Retry(middleware.RetryPolicy{Backoff: time.Millisecond})
	sum := endpoint.Caller[*addRequest, *addResponse](flaky(2), "svc.add", endpoint.Idempotent(), again)

	ctx, report := endpoint.Observe(context.Background())
	resp, err := sum(ctx, &addRequest{A: 1, B: 2})
	fmt.Println(resp.Sum, err, "attempts:", report.Attempts)
	// Output: 3 <nil> attempts: 3
}

// The handler said "unavailable", but it ran: whether it is safe to run it again only its author knows. Without
// endpoint.Idempotent() the caller did not say so, and Retry does not guess.
func ExampleRetry_incorrect() {
	sum := endpoint.Caller[*addRequest, *addResponse](flaky(2), "svc.add", middleware.Retry(middleware.RetryPolicy{Attempts: 100}))

	ctx, report := endpoint.Observe(context.Background())
	_, err := sum(ctx, &addRequest{A: 1, B: 2})
	fmt.Println(err, endpoint.OutcomeOf(err), "attempts:", report.Attempts)
	// Output: unavailable: come back later executed attempts: 1
}

func ExampleRetry_waitForService() {
	mux := endpoint.NewMux()
	patient := middleware.Retry(middleware.RetryPolicy{WaitForService: true})
	sum := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", patient)

	// The caller starts first: it waits, at most until its deadline.
	go func() { _ = mux.Serve("svc.add", endpoint.New(add)) }()
	resp, err := sum(context.Background(), &addRequest{A: 1, B: 2})
	fmt.Println(resp.Sum, err)
	// Output: 3 <nil>
}

func ExampleRetryError() {
	again := middleware.Retry(middleware.RetryPolicy{Attempts: 2, Backoff: time.Millisecond})
	sum := endpoint.Caller[*addRequest, *addResponse](flaky(9), "svc.add", endpoint.Idempotent(), again)
	_, err := sum(context.Background(), &addRequest{})
	fmt.Println(err)
	if list, ok := errors.AsType[*middleware.RetryError](err); ok {
		for _, a := range list.Attempts {
			fmt.Println(a.Attempt, a.Err)
		}
	}
	// Output:
	// unavailable: come back later
	// 0 unavailable: come back later
	// 1 unavailable: come back later
}

func ExampleNewBudget() {
	// All callers of one service share what may be tried again: 1 in 20, and no more than once a second besides.
	budget := middleware.NewBudget(middleware.BudgetPolicy{Ratio: 0.05, PerSecond: 1})
	mux := endpoint.NewMux()
	read := endpoint.Caller[*addRequest, *addResponse](mux, "db.read", middleware.Retry(middleware.RetryPolicy{Budget: budget}))
	write := endpoint.Caller[*addRequest, *addResponse](mux, "db.write", middleware.Retry(middleware.RetryPolicy{Budget: budget}))
	_, _ = read(context.Background(), &addRequest{})
	_, err := write(context.Background(), &addRequest{})
	fmt.Println(reasonOf(err))
	// Output: no_responders
}

func ExampleForward() {
	mux := endpoint.NewMux()
	_ = mux.Serve("users.get", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
		return nil, endpoint.NotFound.New("no user 42")
	}))
	users := endpoint.Caller[*addRequest, *addResponse](mux, "users.get")
	_ = mux.Serve("gateway.get", endpoint.New(users, middleware.Forward())) // a caller is a handler
	_ = mux.Serve("closed.get", endpoint.New(users))

	for _, subject := range []string{"gateway.get", "closed.get"} {
		_, err := endpoint.Caller[*addRequest, *addResponse](mux, subject)(context.Background(), &addRequest{})
		fmt.Println(err)
	}
	// Output:
	// not_found: no user 42
	// internal
}

func ExampleFromKit() {
	// kitFunc and kitMiddleware are declared as Go kit's endpoint.Endpoint and endpoint.Middleware are.
	var logging kitMiddleware = func(next kitFunc) kitFunc {
		return func(ctx context.Context, request any) (any, error) {
			response, err := next(ctx, request)
			fmt.Printf("%+v -> %+v, %v\n", request, response, err)
			return response, err
		}
	}
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add, middleware.FromKit(logging)))
	_, _ = endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(context.Background(), &addRequest{A: 1, B: 2})
	// Output: &{A:1 B:2} -> &{Sum:3}, <nil>
}

// A request that is not the one given can't go back into the call, whose bytes are what travels.
func ExampleFromKit_incorrect() {
	doubling := func(next kitFunc) kitFunc {
		return func(ctx context.Context, request any) (any, error) {
			r := *request.(*addRequest)
			return next(ctx, &addRequest{A: 2 * r.A, B: 2 * r.B})
		}
	}
	mux := endpoint.NewMux()
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", middleware.FromKit(doubling))
	_, err := call(context.Background(), &addRequest{A: 1, B: 2})
	fmt.Println(err)
	// Output: internal: a middleware made for Go kit passed on *middleware_test.addRequest, not the request it was given
}
