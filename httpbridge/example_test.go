package httpbridge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// curl posts JSON as curl --json does, and prints status and body.
func curl(h http.Handler, path, body string, kv ...string) {
	server := httptest.NewServer(h)
	defer server.Close()
	r, err := http.NewRequest(http.MethodPost, server.URL+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(kv); i += 2 {
		r.Header.Set(kv[i], kv[i+1])
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(resp.StatusCode, string(data))
}

// calculator is a transport in memory with one endpoint; in a program it is a bus.
func calculator() *endpoint.Mux {
	m := endpoint.NewMux()
	if err := m.Serve("svc.add", endpoint.New(add)); err != nil {
		panic(err)
	}
	return m
}

func Example() {
	b := httpbridge.New(calculator(), httpbridge.Expose("svc.add"))
	if err := b.Err(); err != nil {
		fmt.Println(err)
		return
	}
	curl(b, "/svc/add", `{"a":1,"b":2}`)
	curl(b, "/svc/add", `{"a":1,"b":13}`)
	curl(b, "/svc/add", `{"a":1,}`)
	curl(b, "/svc/subtract", `{}`)
	// Output:
	// 200 {"sum":3}
	// 400 {"code":"failed_precondition","message":"13 is unlucky"}
	// 400 {"code":"invalid_argument","message":"malformed request: malformed JSON: invalid character '}' looking for beginning of object key string (at offset 8)"}
	// 404 {"code":"unimplemented","message":"there is no such endpoint"}
}

func ExampleBridge_mounted() {
	m := http.NewServeMux()
	m.Handle("/api/", http.StripPrefix("/api", httpbridge.New(calculator(), httpbridge.Expose("svc.*"))))
	curl(m, "/api/svc/add", `{"a":20,"b":22}`)
	// Output: 200 {"sum":42}
}

// Expose takes patterns, but the widest one gives away whatever is on the bus now and later.
func ExampleExpose_incorrect() {
	b := httpbridge.New(calculator(), httpbridge.Expose(">")) // name what you mean: "svc.*"
	curl(b, "/svc/add", `{}`)
	curl(b, "/$SYS/REQ/SERVER/PING", `{}`) // the broker's own is out of reach even so
	// Output:
	// 200 {"sum":0}
	// 404 {"code":"unimplemented","message":"there is no such endpoint"}
}

// Values of path and query become fields of the request, as its schema has them.
func ExampleRoute() {
	b := httpbridge.New(calculator(), httpbridge.Route("POST /sums/{a}", "svc.add"))
	curl(b, "/sums/20?b=22", "")
	curl(b, "/sums/20", `{"b":22}`)
	curl(b, "/sums/20", `{"a":21}`)
	curl(b, "/sums/x", "")
	// Output:
	// 200 {"sum":42}
	// 200 {"sum":42}
	// 400 {"code":"invalid_argument","message":"field \"a\" is given twice, in the path and in the body"}
	// 400 {"code":"invalid_argument","message":"field \"a\" of the path: \"x\" is not of type integer"}
}

func ExampleWithJSONRPC() {
	b := httpbridge.New(calculator(), httpbridge.Expose("svc.add"), httpbridge.WithJSONRPC("/rpc"))
	curl(b, "/rpc", `{"jsonrpc":"2.0","id":1,"method":"svc.add","params":{"a":1,"b":2}}`)
	curl(b, "/rpc", `[{"jsonrpc":"2.0","id":"x","method":"svc.add","params":[20,22]},{"jsonrpc":"2.0","method":"svc.add"}]`)
	curl(b, "/rpc", `{"jsonrpc":"2.0","id":2,"method":"svc.add","params":{"a":1,"b":13}}`)
	// Output:
	// 200 {"jsonrpc":"2.0","id":1,"result":{"sum":3}}
	// 200 [{"jsonrpc":"2.0","id":"x","result":{"sum":42}}]
	// 200 {"jsonrpc":"2.0","id":2,"error":{"code":-32009,"message":"13 is unlucky","data":{"code":"failed_precondition"}}}
}

func ExampleWithAuth() {
	authenticate := func(r *http.Request) (context.Context, error) {
		switch r.Header.Get("Authorization") {
		case "Bearer ann":
			return endpoint.WithHeader(r.Context(), "X-User", "ann"), nil
		case "Bearer bob":
			return nil, endpoint.PermissionDenied.New("bob may not")
		default:
			return nil, endpoint.Unauthenticated.New("a bearer token, please")
		}
	}
	b := httpbridge.New(calculator(), httpbridge.Expose("svc.add"), httpbridge.WithAuth(authenticate))
	curl(b, "/svc/add", `{"a":1}`)
	curl(b, "/svc/add", `{"a":1}`, "Authorization", "Bearer bob")
	curl(b, "/svc/add", `{"a":1}`, "Authorization", "Bearer ann")
	// Output:
	// 401 {"code":"unauthenticated","message":"a bearer token, please"}
	// 403 {"code":"permission_denied","message":"bob may not"}
	// 200 {"sum":1}
}

// Who it is and what they may do are two questions: the second one is asked for each call, with its subject.
func ExampleWithAuthorization() {
	authenticate := func(r *http.Request) (context.Context, error) {
		name := r.Header.Get("Authorization") // in a program: httpbridge/auth
		return httpbridge.Identify(r.Context(), &httpbridge.Identity{Subject: name}), nil
	}
	authorize := func(ctx context.Context, subject string) error {
		if httpbridge.IdentityFrom(ctx).Subject != "ann" {
			return endpoint.PermissionDenied.Errorf("only ann may call %s", subject)
		}
		return nil
	}
	b := httpbridge.New(calculator(), httpbridge.Expose("svc.add"), httpbridge.WithAuth(authenticate), httpbridge.WithAuthorization(authorize))
	curl(b, "/svc/add", `{"a":1}`, "Authorization", "bob")
	curl(b, "/svc/add", `{"a":1}`, "Authorization", "ann")
	// Output:
	// 403 {"code":"permission_denied","message":"only ann may call svc.add"}
	// 200 {"sum":1}
}

// Pages of one application may call; a page of another one may not, and no page may with the star and credentials.
func ExampleWithCORS() {
	b := httpbridge.New(calculator(), httpbridge.Expose("svc.add"), httpbridge.WithCORS(httpbridge.CORSPolicy{
		Origins: []string{"https://app.example", "http://localhost:*"},
	}))
	curl(b, "/svc/add", `{"a":1}`, "Origin", "https://app.example")
	curl(b, "/svc/add", `{"a":1}`, "Origin", "https://evil.example")

	all := httpbridge.New(calculator(), httpbridge.WithLogger(slog.New(slog.DiscardHandler)),
		httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{"*"}, Credentials: true}))
	fmt.Println(all.Err())
	// Output:
	// 200 {"sum":1}
	// 403 {"code":"permission_denied","message":"a request of another origin"}
	// WithCORS: any origin, "*", with credentials: every page would act for its visitor
}

func ExampleWriteError() {
	closed := func(w http.ResponseWriter, r *http.Request) {
		httpbridge.WriteError(w, r, endpoint.Unavailable.New("closed on Sundays"))
	}
	curl(http.HandlerFunc(closed), "/svc/add", `{}`)
	// Output: 503 {"code":"unavailable","message":"closed on Sundays"}
}

// Other handlers stand beside the bridge on one server, which Run starts, and ends with the context.
func ExampleBridge_Run() {
	b := httpbridge.New(calculator(), httpbridge.Expose("svc.add"), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
	mux := http.NewServeMux()
	mux.Handle("/", b)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "up 1") })
	server := b.Server("127.0.0.1:0")
	server.Handler = mux

	ctx, stop := context.WithCancel(context.Background()) // in a program: signal.NotifyContext
	stop()
	fmt.Println(b.Run(ctx, server))
	// Output: <nil>
}

// Whoever ends a program drains from the outside in: the bridge, the server, the bus.
func ExampleBridge_Drain() {
	b := httpbridge.New(calculator(), httpbridge.Expose("svc.add"))
	server := b.Server("127.0.0.1:0")
	ctx := context.Background()
	fmt.Println(errors.Join(b.Drain(ctx), server.Shutdown(ctx)))
	curl(b, "/svc/add", `{}`)
	// Output:
	// <nil>
	// 503 {"code":"unavailable","message":"the bridge is shutting down"}
}
