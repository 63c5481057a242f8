package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"postbus.example/endpoint"
)

// trace is a middleware that says when it is passed.
func trace(name string) endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			fmt.Println("->", name, "on the", c.Side, "side")
			defer fmt.Println("<-", name)
			return next(ctx, c)
		}
	}
}

type Greeting struct{ Text string }

func greet(_ context.Context, g *Greeting) (*Greeting, error) {
	if g.Text == "" {
		return nil, endpoint.InvalidArgument.New("whom?")
	}
	fmt.Println("   the handler")
	return &Greeting{Text: "hello " + g.Text}, nil
}

// The transport's own middleware is outermost on both sides, then come the options in their order.
func Example() {
	mux := endpoint.NewMux()
	mux.Use(trace("transport"))
	if err := mux.Serve("greeter.greet", endpoint.New(greet, trace("first"), trace("second"))); err != nil {
		fmt.Println(err)
	}
	hello := endpoint.Caller[*Greeting, *Greeting](mux, "greeter.greet", trace("caller's"))
	reply, err := hello(context.Background(), &Greeting{Text: "world"})
	fmt.Println(reply.Text, err)
	// Output:
	// -> transport on the client side
	// -> caller's on the client side
	// -> transport on the server side
	// -> first on the server side
	// -> second on the server side
	//    the handler
	// <- second
	// <- first
	// <- transport
	// <- caller's
	// <- transport
	// hello world <nil>
}

// A gather has one reply of each instance that is known, whether it failed or did not answer at all.
func ExampleGather() {
	mux := endpoint.NewMux()
	if err := mux.Serve("greeter.greet", endpoint.New(greet)); err != nil {
		fmt.Println(err)
	}
	all := endpoint.Gather[*Greeting, *Greeting](mux, "greeter.greet")
	for r, err := range all(context.Background(), &Greeting{Text: "all"}) {
		missing, absent := errors.AsType[*endpoint.MissingError](r.Err)
		switch {
		case err != nil: // of the gather as a whole
			fmt.Println(err)
		case absent:
			fmt.Println(missing.Instances)
		case r.Err != nil: // of this instance
			fmt.Println(r.Instance, r.Err)
		default:
			fmt.Println(r.Value.Text)
		}
	}
	// Output:
	//    the handler
	// hello all
}

func ExampleChain() {
	chain := endpoint.Chain(trace("outer"), trace("inner"))
	h := chain(func(context.Context, *endpoint.Call) (any, error) {
		fmt.Println("   the handler")
		return nil, nil
	})
	_, _ = h(context.Background(), endpoint.NewCall(&endpoint.Spec{}, "a.b", endpoint.ServerSide))
	// Output:
	// -> outer on the server side
	// -> inner on the server side
	//    the handler
	// <- inner
	// <- outer
}

// Only what a handler authored crosses, with its code and message.
func ExampleCode_Errorf() {
	mux := endpoint.NewMux()
	_ = mux.Serve("greeter.greet", endpoint.New(greet))
	_, err := endpoint.Caller[*Greeting, *Greeting](mux, "greeter.greet")(context.Background(), &Greeting{})
	fmt.Println(errors.Is(err, endpoint.InvalidArgument), err, "-", endpoint.OutcomeOf(err))
	// Output: true invalid_argument: whom? - executed
}

// fmt.Errorf makes an error for this side: its text does not cross. Use a Code's Errorf for the peer.
func ExampleCode_Errorf_incorrect() {
	mux := endpoint.NewMux()
	_ = mux.Serve("greeter.greet", endpoint.New(func(context.Context, *Greeting) (*Greeting, error) {
		return nil, fmt.Errorf("whom?")
	}))
	_, err := endpoint.Caller[*Greeting, *Greeting](mux, "greeter.greet")(context.Background(), &Greeting{Text: "x"})
	fmt.Println(err)
	// Output: unknown
}

// A sentinel that both sides declare is found on the caller's side.
func ExampleErrorValue() {
	ErrAsleep := errors.New("the greeter is asleep")
	asleep := endpoint.ErrorValue("asleep", endpoint.Unavailable, ErrAsleep)
	mux := endpoint.NewMux()
	_ = mux.Serve("greeter.greet", endpoint.New(func(context.Context, *Greeting) (*Greeting, error) {
		return nil, fmt.Errorf("bed 7: %w", ErrAsleep)
	}, asleep))
	_, err := endpoint.Caller[*Greeting, *Greeting](mux, "greeter.greet", asleep)(context.Background(), &Greeting{})
	fmt.Println(errors.Is(err, ErrAsleep), err)
	// Output: true unavailable: the greeter is asleep
}

// Declared on one side alone it is only a code and a text to the other.
func ExampleErrorValue_incorrect() {
	ErrAsleep := errors.New("the greeter is asleep")
	mux := endpoint.NewMux()
	_ = mux.Serve("greeter.greet", endpoint.New(func(context.Context, *Greeting) (*Greeting, error) {
		return nil, ErrAsleep
	}, endpoint.ErrorValue("asleep", endpoint.Unavailable, ErrAsleep)))
	_, err := endpoint.Caller[*Greeting, *Greeting](mux, "greeter.greet")(context.Background(), &Greeting{})
	fmt.Println(errors.Is(err, ErrAsleep), err)
	// Output: false unavailable: the greeter is asleep
}

// A struct of functions is the contract: the server, the client and a fake are values of it.
func ExampleService() {
	type Greeter struct {
		Greet endpoint.Unary[*Greeting, *Greeting]        `rpc:"greet,idempotent" doc:"says hello"`
		Count endpoint.ServerStream[*Greeting, *Greeting] `rpc:",readonly"`
	}
	mux := endpoint.NewMux()
	err := mux.Serve("greeter", endpoint.Service(Greeter{
		Count: func(_ context.Context, g *Greeting) iter.Seq2[*Greeting, error] {
			return func(yield func(*Greeting, error) bool) {
				for i := 1; yield(&Greeting{Text: fmt.Sprint(g.Text, " ", i)}, nil); i++ {
				}
			}
		},
	}))
	fmt.Println(err)
	client := endpoint.Client[Greeter](mux, "greeter")
	for g, err := range client.Count(context.Background(), &Greeting{Text: "hello"}) {
		fmt.Println(g.Text, err)
		if g.Text == "hello 2" {
			break // cancels the call at the server
		}
	}
	_, err = client.Greet(context.Background(), &Greeting{Text: "you"}) // nil at the server: not served
	fmt.Println(err)
	// Output:
	// <nil>
	// hello 1 <nil>
	// hello 2 <nil>
	// unavailable (no_responders): nobody serves greeter.greet
}

func ExampleObserve() {
	mux := endpoint.NewMux()
	_ = mux.Serve("greeter.greet", endpoint.New(greet))
	ctx, report := endpoint.Observe(context.Background())
	_, _ = endpoint.Caller[*Greeting, *Greeting](mux, "greeter.greet")(ctx, &Greeting{Text: "world"})
	fmt.Println(report.Attempts, report.RequestSize, report.ReplySize)
	// Output:
	//    the handler
	// 1 16 22
}
