package httpbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

type subtraction struct {
	Minuend    int `json:"minuend"`
	Subtrahend int `json:"subtrahend"`
}

func subtract(_ context.Context, r *subtraction) (*int, error) {
	d := r.Minuend - r.Subtrahend
	return &d, nil
}

// newRPC serves the methods that the specification's examples call, and counts what update and notify_… got.
func newRPC(t testing.TB, opts ...httpbridge.Option) (*site, *atomic.Int64) {
	t.Helper()
	var notified atomic.Int64
	m := newMux(t)
	serve(t, m, "subtract", endpoint.New(subtract))
	serve(t, m, "sum", endpoint.New(func(_ context.Context, r *[]int) (*int, error) {
		total := 0
		for _, n := range *r {
			total += n
		}
		return &total, nil
	}))
	list := func(_ context.Context, r *[]int) (*nothing, error) {
		notified.Add(int64(len(*r)))
		return &nothing{}, nil
	}
	serve(t, m, "update", endpoint.New(list))
	serve(t, m, "notify_sum", endpoint.New(list))
	serve(t, m, "notify_hello", endpoint.New(list))
	serve(t, m, "get_data", endpoint.New(func(context.Context, *nothing) (*[]any, error) { return &[]any{"hello", 5}, nil }))
	serve(t, m, "svc.fail", endpoint.New(fail))
	opts = append(opts, httpbridge.WithJSONRPC(""), httpbridge.Expose("subtract", "sum", "update", "notify_sum", "notify_hello", "get_data", "svc.*"))
	return start(t, m, opts...), &notified
}

type failRequest struct {
	Code string `json:"code"`
}

// fail returns an error of the code that its request names.
func fail(_ context.Context, r *failRequest) (*nothing, error) {
	c, _ := endpoint.ParseCode(r.Code)
	return nil, c.New("as you wish").With(endpoint.Detail{Type: "x.Y", Value: []byte(`{"a":1}`)})
}

// bare takes the data of errors away, which the specification leaves to servers, and the order of members.
func bare(t *testing.T, answer string) string {
	t.Helper()
	if answer == "" {
		return ""
	}
	var v any
	assert.NoError(t, json.Unmarshal([]byte(answer), &v), answer)
	all, ok := v.([]any)
	if !ok {
		all = []any{v}
	}
	for _, a := range all {
		if e, failed := a.(map[string]any)["error"]; failed {
			delete(e.(map[string]any), "data")
		}
	}
	out, err := json.Marshal(v)
	assert.NoError(t, err)
	return string(out)
}

// The examples of section 7 of the specification, in its order.
func TestJSONRPC_specification(t *testing.T) {
	s, notified := newRPC(t)
	for _, tc := range []struct{ name, send, want string }{
		{"positional", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`, `{"jsonrpc": "2.0", "result": 19, "id": 1}`},
		{"positional, turned", `{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}`, `{"jsonrpc": "2.0", "result": -19, "id": 2}`},
		{"named", `{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}`, `{"jsonrpc": "2.0", "result": 19, "id": 3}`},
		{"named, turned", `{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}`, `{"jsonrpc": "2.0", "result": 19, "id": 4}`},
		{"notification", `{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}`, ``},
		{"notification of nobody", `{"jsonrpc": "2.0", "method": "foobar"}`, ``},
		{"no such method", `{"jsonrpc": "2.0", "method": "foobar", "id": "1"}`, `{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}`},
		{"malformed", `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`, `{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}`},
		{"no request", `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`, `{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}`},
		{"malformed batch", `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method"
		]`, `{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}`},
		{"empty batch", `[]`, `{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}`},
		{"batch of no request", `[1]`, `[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]`},
		{"batch of no requests", `[1,2,3]`, `[
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]`},
		{"batch", `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
			{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
			{"foo": "boo"},
			{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
			{"jsonrpc": "2.0", "method": "get_data", "id": "9"}
		]`, `[
			{"jsonrpc": "2.0", "result": 7, "id": "1"},
			{"jsonrpc": "2.0", "result": 19, "id": "2"},
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
			{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]`},
		{"batch of notifications", `[
			{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
		]`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := s.post(t, "/rpc", tc.send)
			assert.Equal(t, bare(t, r.body), bare(t, tc.want), r.body)
			assert.Equal(t, r.status, map[bool]int{true: 204, false: 200}[tc.want == ""])
		})
	}
	assert.Equal(t, notified.Load(), 5+1+3+1, "what the notifications carried")
}

func TestJSONRPC_ids(t *testing.T) {
	s, _ := newRPC(t)
	for _, id := range []string{`1`, `1.0`, `-0`, `1e3`, `123456789012345678901234567890`, `"\u00e9"`, `"é"`, `""`, `null`, `"1"`} {
		r := s.post(t, "/rpc", `{"jsonrpc":"2.0","id": `+id+` ,"method":"svc.ping"}`)
		assert.Equal(t, r.body, `{"jsonrpc":"2.0","id":`+id+`,"result":{}}`)
		r = s.post(t, "/rpc", `{"jsonrpc":"2.0","id":`+id+`,"method":"svc.x.y"}`)
		assert.Equal(t, r.body, `{"jsonrpc":"2.0","id":`+id+`,"error":{"code":-32601,"message":"Method not found","data":{"code":"unimplemented"}}}`)
	}
	for _, id := range []string{`true`, `false`, `[]`, `{}`} {
		r := s.post(t, "/rpc", `{"jsonrpc":"2.0","id":`+id+`,"method":"svc.ping"}`)
		assert.Contains(t, r.body, `"id":null,"error":{"code":-32600`, "neither a string")
	}
}

func TestJSONRPC_refuses(t *testing.T) {
	s, notified := newRPC(t)
	for _, tc := range []struct{ send, want string }{
		{`{"jsonrpc":"1.0","id":1,"method":"svc.ping"}`, `-32600`},
		{`{"jsonrpc":2.0,"id":1,"method":"svc.ping"}`, `-32600`},
		{`{"id":1,"method":"svc.ping"}`, `-32600`},
		{`{"jsonrpc":"2.0","id":1}`, `the method is missing`},
		{`{"jsonrpc":"2.0","id":1,"method":""}`, `the method is missing`},
		{`{"jsonrpc":"2.0","id":1,"method":null}`, `the method is not a string`},
		{`{"jsonrpc":"2.0","id":1,"Method":"svc.ping"}`, `the method is missing`},
		{`{"jsonrpc":"2.0","id":1,"method":"svc.ping","method":"svc.add"}`, `it has \"method\" twice`},
		{`{"jsonrpc":"2.0","id":1,"method":"svc.ping","params":null}`, `neither an object nor an array`},
		{`{"jsonrpc":"2.0","method":"update","params":"x"}`, `-32600`}, // no notification: it isn't even a request
		{`{"jsonrpc":"2.0","id":1,"method":"svc.*"}`, `-32601`},
		{`{"jsonrpc":"2.0","id":1,"method":"$SYS.REQ"}`, `-32601`},
		{`{"jsonrpc":"2.0","id":1,"method":"svc.$x"}`, `-32601`},
		{`{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`, `-32601`},
		{`{"jsonrpc":"2.0","id":1,"method":"svc/ping"}`, `-32601`},
		{`{"jsonrpc":"2.0","id":1,"method":"hidden"}`, `-32601`},
		{`{"jsonrpc":"2.0","id":1,"method":"subtract","params":[1,2,3]}`, `-32602,"message":"the request has 2 fields, the params are more"`},
		{`{"jsonrpc":"2.0","id":1,"method":"subtract","params":["x"]}`, `-32602`},
		{`{"jsonrpc":"2.0","id":1,"method":"svc.echo","params":[1]}`, `-32602,"message":"params by position need the endpoint's schema`},
		{`{"jsonrpc":"2.0","id":1,"method":"svc.ping"}x`, `-32700`},
		{``, `-32700`},
		{`[`, `-32700`},
		{"\xff", `-32700`},
		{strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5), `-32700`},
		{`[` + strings.Repeat(`{},`, 100) + `{}]`, `{"code":-32600,"message":"Invalid Request","data":{"code":"invalid_argument","message":"a batch has at most 100 calls"}}`},
	} {
		r := s.post(t, "/rpc", tc.send)
		assert.Equal(t, r.status, 200, tc.send)
		assert.Contains(t, r.body, tc.want)
	}
	assert.Equal(t, notified.Load(), 0, "nothing was called")

	failed(t, s.do(t, http.MethodGet, "/rpc", ""), 405, endpoint.Unknown)
	failed(t, s.do(t, http.MethodPost, "/rpc", "{}", "Content-Type", "text/plain"), 415, endpoint.Unknown)
	failed(t, s.do(t, http.MethodPost, "/rpc", "{}", "Content-Type", "application/cbor"), 415, endpoint.Unknown)
	failed(t, s.post(t, "/rpc", "{}", "Sec-Fetch-Site", "cross-site"), 403, endpoint.PermissionDenied)
	failed(t, s.post(t, "/rpc", strings.Repeat(" ", 2<<20)), 413, endpoint.ResourceExhausted)
}

func TestJSONRPC_errors(t *testing.T) {
	s, _ := newRPC(t)
	for name, number := range map[string]int{
		"canceled": -32001, "unknown": -32603, "invalid_argument": -32602, "deadline_exceeded": -32004, "not_found": -32005,
		"already_exists": -32006, "permission_denied": -32007, "resource_exhausted": -32008, "failed_precondition": -32009,
		"aborted": -32010, "out_of_range": -32011, "unimplemented": -32601, "internal": -32603, "unavailable": -32014,
		"data_loss": -32015, "unauthenticated": -32016,
	} {
		r := s.post(t, "/rpc", `{"jsonrpc":"2.0","id":1,"method":"svc.fail","params":{"code":"`+name+`"}}`)
		assert.Equal(t, r.body, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"as you wish","data":{"code":%q,"details":[{"type":"x.Y","value":"eyJhIjoxfQ","debug":{"a":1}}]}}}`, number, name))
	}
	assert.Contains(t, s.log.text(), "request failed status=404 code=not_found method=POST path=/rpc subject=svc.fail")
}

func TestJSONRPC_notJSON(t *testing.T) {
	m := newMux(t)
	serve(t, m, "svc.raw", endpoint.New(func(_ context.Context, p *codec.Payload) (*codec.Payload, error) {
		switch {
		case strings.Contains(string(p.Data), "empty"):
			return &codec.Payload{MediaType: "application/json"}, nil
		case strings.Contains(string(p.Data), "broken"):
			return &codec.Payload{MediaType: "application/json", Data: []byte(`1},{"id":2`)}, nil
		}
		return &codec.Payload{MediaType: "image/png", Data: []byte("1")}, nil
	}))
	s := start(t, m, httpbridge.Expose("svc.raw"), httpbridge.WithJSONRPC("/api/rpc"))
	for params, want := range map[string]string{
		`{"empty":1}`:  `"result":null}`,
		`{"broken":1}`: `"error":{"code":-32603,"message":"internal","data":{"code":"internal"}}}`,
		`{}`:           `"error":{"code":-32603,"message":"internal","data":{"code":"internal"}}}`,
	} {
		r := s.post(t, "/api/rpc", `{"jsonrpc":"2.0","id":1,"method":"svc.raw","params":`+params+`}`)
		assert.Equal(t, r.body, `{"jsonrpc":"2.0","id":1,`+want)
	}
}

// A batch takes what room there is, and never less than its own.
func TestJSONRPC_batchIsBounded(t *testing.T) {
	for _, tc := range []struct{ limit, most int }{{1, 1}, {3, 3}, {100, 8}} {
		b := newBlocker()
		m := newMux(t)
		serve(t, m, "svc.block", endpoint.New(b.run))
		s := start(t, m, httpbridge.Expose("svc.block"), httpbridge.WithJSONRPC(""), httpbridge.WithLimits(httpbridge.Limits{Concurrent: tc.limit, Batch: 20}))
		done := make(chan reply)
		go func() {
			done <- s.post(t, "/rpc", `[`+strings.Repeat(`{"jsonrpc":"2.0","id":1,"method":"svc.block"},`, 19)+`{"jsonrpc":"2.0","id":2,"method":"svc.block"}]`)
		}()
		for range tc.most {
			<-b.entered
		}
		select {
		case <-b.entered:
			t.Errorf("more than %d at once", tc.most)
		default:
		}
		if tc.limit < 100 {
			failed(t, s.post(t, "/svc/block", "{}"), 429, endpoint.ResourceExhausted)
		}
		close(b.release)
		r := <-done
		assert.Equal(t, strings.Count(r.body, `"result":{}`), 20, r.body)
		assert.True(t, strings.HasSuffix(r.body, `{"jsonrpc":"2.0","id":2,"result":{}}]`), "in order")
	}
}

func TestJSONRPC_authAndHeaders(t *testing.T) {
	m := newMux(t)
	serve(t, m, "svc.who", endpoint.New(func(ctx context.Context, _ *nothing) (*string, error) {
		c := endpoint.FromContext(ctx)
		c.Reply.Set("X-Out", "out")
		who := c.Header.Get("X-User") + "," + c.Header.Get("X-In") + "," + c.Header.Get("X-Other")
		return &who, nil
	}))
	asked := 0
	auth := func(r *http.Request) (context.Context, error) {
		if asked++; r.Header.Get("Authorization") == "" {
			return nil, errors.New("nobody")
		}
		return endpoint.WithHeader(r.Context(), "X-User", "ann"), nil
	}
	s := start(t, m, httpbridge.Expose("svc.who"), httpbridge.WithJSONRPC(""), httpbridge.WithAuth(auth),
		httpbridge.WithHeaders([]string{"X-In", "X-User"}, []string{"X-Out"}))
	call := `{"jsonrpc":"2.0","id":1,"method":"svc.who"}`
	failed(t, s.post(t, "/rpc", call), 401, endpoint.Unauthenticated)
	h := []string{"Authorization", "x", "X-In", "in", "X-Other", "other", "X-User", "eve"}
	r := s.post(t, "/rpc", call, h...)
	assert.Equal(t, r.body, `{"jsonrpc":"2.0","id":1,"result":"ann,in,"}`)
	assert.Equal(t, r.header.Get("X-Out"), "out")
	r = s.post(t, "/rpc", `[`+call+`,`+call+`]`, h...)
	assert.Equal(t, strings.Count(r.body, `"result":"ann,in,"`), 2, r.body)
	assert.Equal(t, r.header.Get("X-Out"), "", "of which call it would be, nobody knows")
	assert.Equal(t, asked, 3, "once for a request of HTTP")
}

func TestJSONRPC_timeAndPanics(t *testing.T) {
	b := newBlocker()
	m := newMux(t)
	serve(t, m, "svc.block", endpoint.New(b.run))
	serve(t, m, "svc.panic", endpoint.New(func(context.Context, *nothing) (*nothing, error) { panic("secret") }))
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithJSONRPC(""))
	r := s.post(t, "/rpc", `[{"jsonrpc":"2.0","id":1,"method":"svc.block"},{"jsonrpc":"2.0","id":2,"method":"svc.panic"},{"jsonrpc":"2.0","id":3,"method":"svc.ping"}]`,
		"Connect-Timeout-Ms", "100")
	assert.Contains(t, r.body, `"id":1,"error":{"code":-32004`, `"id":2,"error":{"code":-32603,"message":"internal"`, `"id":3,"result":{}`)
	assert.True(t, !strings.Contains(r.body, "secret"), "what a panic says stays here")
}

func TestJSONRPC_faults(t *testing.T) {
	for _, tc := range []struct {
		opts []httpbridge.Option
		want string
	}{
		{[]httpbridge.Option{httpbridge.WithJSONRPC("rpc")}, `WithJSONRPC: "rpc" is no plain path`},
		{[]httpbridge.Option{httpbridge.WithJSONRPC("/")}, `WithJSONRPC: "/" is no plain path`},
		{[]httpbridge.Option{httpbridge.WithJSONRPC("/a/../b")}, `is no plain path`},
		{[]httpbridge.Option{httpbridge.WithJSONRPC("/{x}")}, `is no plain path`},
		{[]httpbridge.Option{httpbridge.WithJSONRPC("/healthz")}, `the bridge answers /healthz already`},
		{[]httpbridge.Option{httpbridge.WithJSONRPC(""), httpbridge.WithJSONRPC("/b")}, `given twice, as /rpc and "/b"`},
		{[]httpbridge.Option{httpbridge.WithJSONRPC(""), httpbridge.Route("GET /rpc", "svc.x")}, `pattern "GET /rpc": the bridge answers /rpc itself, by WithJSONRPC`},
		{[]httpbridge.Option{httpbridge.WithJSONRPC("/svc/add"), httpbridge.Expose("svc.add")}, `subject "svc.add" can't be reached: the bridge answers its path itself, by WithJSONRPC`},
		{[]httpbridge.Option{httpbridge.WithLimits(httpbridge.Limits{Batch: -1})}, `a limit is negative`},
	} {
		for range 2 { // in any order
			err := httpbridge.New(newMux(t), append(slices.Clone(tc.opts), silence)...).Err()
			assert.True(t, err != nil, tc.want)
			assert.Contains(t, err.Error(), strings.SplitN(tc.want, ", as", 2)[0])
			slices.Reverse(tc.opts)
		}
	}
	s := start(t, newMux(t), httpbridge.Expose("svc.*"))
	failed(t, s.post(t, "/rpc", `{"jsonrpc":"2.0","id":1,"method":"svc.ping"}`), 404, endpoint.Unimplemented)
}
