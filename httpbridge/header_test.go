package httpbridge_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// mirror serves svc.mirror, which hands over the metadata it got and answers with its own.
func mirror(t *testing.T, m *endpoint.Mux, out ...string) <-chan map[string][]string {
	t.Helper()
	got := make(chan map[string][]string, 1)
	serve(t, m, "svc.mirror", endpoint.New(func(ctx context.Context, r *addRequest) (*nothing, error) {
		c := endpoint.FromContext(ctx)
		in := map[string][]string{}
		for name, value := range c.Header.All() {
			in[name] = append(in[name], value)
		}
		got <- in
		if r.A == 13 {
			return nil, endpoint.NotFound
		}
		return &nothing{}, nil
	}))
	m.Use(endpoint.OnClient(func(next endpoint.Handler) endpoint.Handler { // a foreign service sends what ours must not
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := next(ctx, c)
			for i := 0; i < len(out); i += 2 {
				c.Reply.Add(out[i], out[i+1])
				c.Trailer.Add(out[i], out[i+1])
			}
			return reply, err
		}
	}))
	return got
}

var sent = []string{
	"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate", "a=b", "Baggage", "k=v",
	"X-Tenant", "one", "X-Tenant", "two", "X-Acme-Id", "7", "Idempotency-Key", "k", "Authorization", "Bearer x", "Cookie", "s=1",
	"Nats-Trace-Only", "true", "Nats-Expected-Stream", "x", "Rpc-Code", "ok", "Rpc-Attempt", "9", "Status", "503", "Description", "No Responders",
	"X-Forwarded-For", "1.2.3.4", "Forwarded", "for=1.2.3.4", "X-Hop", "h", "Connection", "X-Hop", "Proxy-Authorization", "x", "Te", "trailers",
}

func TestWithHeaders_in(t *testing.T) {
	w3c := []string{"baggage", "traceparent", "tracestate"}
	for name, tt := range map[string]struct {
		in   []string
		want []string
	}{
		"by default":      {nil, w3c},
		"exact":           {[]string{"x-tenant", "Idempotency-Key"}, append([]string{"Idempotency-Key", "X-Tenant"}, w3c...)},
		"a prefix":        {[]string{"X-Acme-*"}, append([]string{"X-Acme-Id"}, w3c...)},
		"taken back":      {[]string{"!Traceparent", "!tracestate"}, []string{"baggage"}},
		"a star":          {[]string{"*", "!X-Tenant"}, append([]string{"Accept-Language", "Idempotency-Key", "User-Agent", "X-Acme-Id"}, w3c...)},
		"only by name":    {[]string{"Authorization", "X-Forwarded-For"}, append([]string{"Authorization", "X-Forwarded-For"}, w3c...)},
		"not by a prefix": {[]string{"X-Forwarded-*", "Auth*", "Nats-*", "Rpc-*", "Cookie*", "Stat*", "X-Hop*"}, w3c},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMux(t)
			got := mirror(t, m)
			s := start(t, m, httpbridge.Expose("svc.mirror"), httpbridge.WithHeaders(tt.in, nil))
			r := s.post(t, "/svc/mirror", `{}`, append(sent, "Accept-Language", "nl")...)
			assert.Equal(t, r.status, 200, r.body)
			in := <-got
			slices.Sort(tt.want)
			assert.Equal(t, slices.Sorted(maps.Keys(in)), tt.want)
			if in["X-Tenant"] != nil {
				assert.Equal(t, in["X-Tenant"], []string{"one", "two"})
			}
		})
	}
}

func TestWithHeaders_out(t *testing.T) {
	out := []string{
		"x-quota", "1", "X-Quota", "2", "X-Secret", "s", "Set-Cookie", "a=b", "Location", "/x", "Access-Control-Allow-Origin", "*",
		"Connection", "keep-alive", "Transfer-Encoding", "chunked", "Content-Length", "999", "X-Split", "a\r\nEvil: 1",
	}
	for name, tt := range map[string]struct {
		out  []string
		want map[string][]string
	}{
		"by default": {nil, nil},
		"exact":      {[]string{"X-Quota"}, map[string][]string{"X-Quota": {"1", "2"}}},
		"a star":     {[]string{"*", "!x-secret"}, map[string][]string{"X-Quota": {"1", "2"}, "Location": {"/x"}}},
		"by name":    {[]string{"Set-Cookie", "Access-Control-Allow-Origin"}, map[string][]string{"Set-Cookie": {"a=b"}, "Access-Control-Allow-Origin": {"*"}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMux(t)
			got := mirror(t, m, out...)
			s := start(t, m, httpbridge.Expose("svc.mirror"), httpbridge.WithHeaders(nil, tt.out))
			for body, status := range map[string]int{`{}`: 200, `{"a":13}`: 404} { // an error has them, too
				r := s.post(t, "/svc/mirror", body)
				<-got
				assert.Equal(t, r.status, status, r.body)
				for i := 0; i < len(out); i += 2 {
					key := http.CanonicalHeaderKey(out[i])
					if key == "Content-Length" {
						assert.True(t, r.header.Get(key) != "999")
						continue
					}
					assert.Equal(t, r.header.Values(key), tt.want[key], key)
					assert.Equal(t, r.header.Values("Trailer-"+key), tt.want[key], key)
				}
				assert.Equal(t, r.header.Get("Evil"), "")
			}
		})
	}
}

func TestWithHeaders_lineBreaks(t *testing.T) {
	b := httpbridge.New(newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithHeaders([]string{"X-A"}, nil))
	for _, value := range []string{"a\r\nb", "a\nb", "a\rb", "a\x00b"} {
		r := httptest.NewRequest(http.MethodPost, "/svc/add", strings.NewReader(`{}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-A", value)
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		assert.Equal(t, w.Code, 400)
		assert.Contains(t, w.Body.String(), "invalid_argument", "X-A")
	}
}

func TestWithHeaders_faults(t *testing.T) {
	err := httpbridge.New(newMux(t),
		httpbridge.WithHeaders([]string{"Cookie", "nats-trace-only", "Rpc-Code", "Status", "Connection", "a b", "", "!*", "Content-Type"}, []string{"Transfer-Encoding", "X\r\n"}),
	).Err()
	assert.Contains(t, err.Error(), "Cookie", "nats-trace-only", "Rpc-Code", "Status", "Connection", `"a b"`, `""`, `"!*"`, "Content-Type", "Transfer-Encoding", `"X\r\n"`)
	assert.NoError(t, httpbridge.New(newMux(t), httpbridge.WithHeaders([]string{"!Cookie", "*"}, []string{"Set-Cookie"})).Err())
}

// TestWithHeaders_unreadable keeps a reply readable: one byte that HTTP doesn't have makes clients throw it away whole.
func TestWithHeaders_unreadable(t *testing.T) {
	m := newMux(t)
	got := mirror(t, m, "X-A", "a\x01b", "X-B", "a\x7fb", "X-C", "a\x1b[2J", "X-D", "a\tb", "X-E", "größe", "X-F", "")
	s := start(t, m, httpbridge.Expose("svc.mirror"), httpbridge.WithHeaders(nil, []string{"X-*"}))
	r := s.post(t, "/svc/mirror", `{}`)
	<-got
	assert.Equal(t, r.status, 200)
	for key, want := range map[string][]string{"X-A": nil, "X-B": nil, "X-C": nil, "X-D": {"a\tb"}, "X-E": {"größe"}, "X-F": {""}} {
		assert.Equal(t, r.header.Values(key), want, key)
		assert.Equal(t, r.header.Values("Trailer-"+key), want, key)
	}
	assert.Contains(t, s.log.text(), "WARN", "header=X-A", "header=X-B", "header=X-C")
}

func TestReplyType_unreadable(t *testing.T) {
	for mediaType, want := range map[string]string{
		"": "application/json", "application/json\x01": "application/json", "text/html; x=\"\x7f\"": "application/json", "a b": "application/json",
		"text/html; charset": "application/json", "text/plain; charset=utf-8": "text/plain; charset=utf-8", "json": "json",
	} {
		s := start(t, script{func(context.Context, string) (*codec.Payload, error) {
			return &codec.Payload{MediaType: mediaType, Data: []byte("{}")}, nil
		}}, httpbridge.Expose("svc.x"))
		r := s.post(t, "/svc/x", `{}`)
		assert.Equal(t, r.status, 200)
		assert.Equal(t, r.body, "{}")
		assert.Equal(t, r.header.Values("Content-Type"), []string{want}, mediaType)
		assert.Equal(t, strings.Contains(s.log.text(), "WARN"), mediaType != "" && want == "application/json", mediaType)
	}
}

// observes is a transport that notes whether its calls are watched.
type observes struct{ watched *bool }

func (o observes) Handler(string, *endpoint.Spec) endpoint.Handler {
	return func(_ context.Context, c *endpoint.Call) (any, error) {
		*o.watched = c.Observed()
		return &codec.Payload{MediaType: "application/json", Data: []byte("{}")}, nil
	}
}

// A call that is watched makes its service tell who it is, in a header. So only who lets headers of replies pass watches.
func TestWatchesOnlyForHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		out  []string
		want bool
	}{"none": {nil, false}, "taken back": {[]string{"!X-A"}, false}, "exact": {[]string{"X-A"}, true}, "star": {[]string{"X-*"}, true}} {
		t.Run(name, func(t *testing.T) {
			watched := !tc.want
			s := start(t, observes{&watched}, httpbridge.Expose("svc.add"), httpbridge.WithHeaders(nil, tc.out))
			assert.Equal(t, s.post(t, "/svc/add", `{}`).status, 200)
			assert.Equal(t, watched, tc.want)
		})
	}
}
