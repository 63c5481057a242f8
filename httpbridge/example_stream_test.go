package httpbridge_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// counter is a transport in memory with streams; in a program it is a bus.
func counter() *endpoint.Mux {
	m := endpoint.NewMux()
	upTo := func(_ context.Context, r *number) iter.Seq2[*number, error] {
		return func(yield func(*number, error) bool) {
			for i := range r.N {
				if !yield(&number{i + 1}, nil) {
					return
				}
			}
		}
	}
	for subject, ep := range map[string]*endpoint.Endpoint{
		"svc.count": endpoint.NewServerStream(upTo, endpoint.ReadOnly()),
		"svc.total": endpoint.NewClientStream(total),
		"svc.get":   endpoint.New(func(_ context.Context, r *number) (*number, error) { return r, nil }, endpoint.ReadOnly()),
	} {
		if err := m.Serve(subject, ep); err != nil {
			panic(err)
		}
	}
	return m
}

// show sends a request and prints the answer.
func show(h http.Handler, method, path, body string, kv ...string) {
	server := httptest.NewServer(h)
	defer server.Close()
	r, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
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
	fmt.Println(strings.TrimSpace(string(data)))
}

// A stream comes as lines of JSON unless its client asks for something else:
//
//	curl --json '{"n":2}' host/svc/count
func Example_lines() {
	b := httpbridge.New(counter(), httpbridge.Expose("svc.*"))
	show(b, http.MethodPost, "/svc/count", `{"n":2}`, "Content-Type", "application/json", "Accept", "application/json")
	// Output:
	// {"result":{"n":1}}
	// {"result":{"n":2}}
}

// Browsers have EventSource, which asks for events: new EventSource('/svc/count?message={"n":2}'). It should be closed at the event
// end, or it asks again.
func Example_events() {
	b := httpbridge.New(counter(), httpbridge.Expose("svc.*"))
	show(b, http.MethodGet, "/svc/count?message=%7B%22n%22:2%7D", "", "Accept", "text/event-stream")
	// Output:
	// id: 1
	// data: {"n":1}
	//
	// id: 2
	// data: {"n":2}
	//
	// event: end
	// data: {}
}

// Many requests are sent as lines, too:
//
//	curl -H 'Content-Type: application/x-ndjson' --data-binary @numbers host/svc/total
func Example_upload() {
	b := httpbridge.New(counter(), httpbridge.Expose("svc.*"))
	show(b, http.MethodPost, "/svc/total", "{\"n\":1}\n{\"n\":41}\n", "Content-Type", "application/x-ndjson")
	// Output: {"n":42}
}

// What is read-only can be asked by GET:
//
//	curl -G host/svc/get --data-urlencode 'message={"n":7}'
func Example_get() {
	b := httpbridge.New(counter(), httpbridge.Expose("svc.*"))
	show(b, http.MethodGet, "/svc/get?message=%7B%22n%22:7%7D", "")
	// Output: {"n":7}
}
