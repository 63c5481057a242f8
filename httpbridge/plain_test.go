package httpbridge_test

import (
	"bufio"
	"context"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

const sse = "text/event-stream"

func TestEvents(t *testing.T) {
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		want := "id: 1\ndata: {\"n\":1}\n\nid: 2\ndata: {\"n\":2}\n\nevent: end\ndata: {}\n\n"
		for _, r := range []reply{
			s.post(t, "/svc/count", `{"n":2}`, "Accept", sse),
			s.post(t, "/svc/count", `{"n":2}`, "Accept", "application/json;q=0.5, text/event-stream"),
			s.do(t, "GET", "/svc/count?message=%7B%22n%22:2%7D", "", "Accept", sse),
		} {
			assert.Equal(t, r.status, 200, r.body)
			assert.Equal(t, r.body, want)
			assert.Equal(t, r.header.Get("Content-Type"), sse)
			assert.Equal(t, r.header.Get("X-Accel-Buffering"), "no")
			assert.Contains(t, r.header.Get("Cache-Control"), "no-store")
			assert.Equal(t, r.header.Get("Vary"), "Accept")
		}
		r := s.post(t, "/svc/count", `{"n":13}`, "Accept", sse)
		assert.Equal(t, r.status, 200)
		assert.Contains(t, r.body, "id: 12\n", "event: error\ndata: {\"code\":\"failed_precondition\",\"message\":\"13 is unlucky\"}\n\nevent: end\ndata: {}\n\n")
		failed(t, s.post(t, "/svc/count", `{"n":x}`, "Accept", sse), 400, endpoint.InvalidArgument)
		r = s.post(t, "/svc/add", `{"a":1}`, "Accept", sse)
		assert.Equal(t, r.body, `{"sum":1}`, "what is unary stays so")
	}, httpbridge.Expose("svc.*"))
}

func TestLines(t *testing.T) {
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		want := "{\"result\":{\"n\":1}}\n{\"result\":{\"n\":2}}\n"
		for accept, media := range map[string]string{
			"": "application/x-ndjson", "*/*": "application/x-ndjson", "application/json": "application/x-ndjson",
			"application/x-ndjson": "application/x-ndjson", "application/jsonl": "application/jsonl", "text/html, */*;q=0.8": "application/x-ndjson",
		} {
			kv := []string{}
			if accept != "" {
				kv = append(kv, "Accept", accept)
			}
			r := s.post(t, "/svc/count", `{"n":2}`, kv...)
			assert.Equal(t, r.status, 200, r.body)
			assert.Equal(t, r.body, want)
			assert.Equal(t, r.header.Get("Content-Type"), media)
		}
		assert.Equal(t, s.do(t, "GET", "/svc/count?message=%7B%22n%22:2%7D", "").body, want)
		assert.Equal(t, s.do(t, "GET", "/svc/count", "").body, "", "an empty stream")
		r := s.post(t, "/svc/count", `{"n":13}`)
		assert.Contains(t, r.body, "{\"result\":{\"n\":12}}\n{\"error\":{\"code\":\"failed_precondition\",\"message\":\"13 is unlucky\"}}\n")
		failed(t, s.post(t, "/svc/count", `{"n":x}`), 400, endpoint.InvalidArgument)
		failed(t, s.post(t, "/svc/count", `{"n":2}`, "Accept", "text/html"), 406, endpoint.Unknown)
		failed(t, s.post(t, "/svc/count", `{"n":2}`, "Connect-Protocol-Version", "1"), 415, endpoint.Unknown)
		failed(t, s.do(t, "POST", "/svc/count", `{"n":2}`, "Content-Type", "application/x-ndjson"), 415, endpoint.Unknown)
		failed(t, s.do(t, "POST", "/svc/count", `{"n":2}`, "Content-Type", "application/cbor"), 415, endpoint.Unknown)
	}, httpbridge.Expose("svc.*"))
}

// TestLines_up sends many messages, one a line.
func TestLines_up(t *testing.T) {
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		up := func(path, body string, kv ...string) reply {
			return s.do(t, "POST", path, body, append([]string{"Content-Type", "application/x-ndjson"}, kv...)...)
		}
		for body, want := range map[string]string{
			"{\"n\":1}\n{\"n\":2}\n": `{"n":3}`, "{\"n\":1}\r\n\r\n \n{\"n\":2}": `{"n":3}`, "": `{"n":0}`, "\n": `{"n":0}`,
			strings.Repeat("{\"n\":1}\n", 3000):              `{"n":3000}`,
			"{\"n\":" + strings.Repeat(" ", 100000) + "5}\n": `{"n":5}`,
		} {
			r := up("/svc/total", body)
			assert.Equal(t, r.status, 200, r.body)
			assert.Equal(t, r.body, want)
			assert.Equal(t, r.header.Get("Content-Type"), "application/json")
		}
		assert.Equal(t, up("/svc/total", gzipped(t, "{\"n\":1}\n{\"n\":2}\n"), "Content-Encoding", "gzip").body, `{"n":3}`)
		assert.Equal(t, up("/svc/double", "{\"n\":1}\n{\"n\":2}\n").body, "{\"result\":{\"n\":2}}\n{\"result\":{\"n\":4}}\n")
		assert.Contains(t, up("/svc/double", "{\"n\":1}\n", "Accept", sse).body, "id: 1\ndata: {\"n\":2}\n\nevent: end\n")
		assert.Equal(t, s.post(t, "/svc/total", `{"n":7}`).body, `{"n":7}`, "one message is a stream of one")
		assert.Equal(t, s.post(t, "/svc/double", `{"n":7}`).body, "{\"result\":{\"n\":14}}\n")

		assert.Contains(t, failed(t, up("/svc/total", "{\"n\":1}\n{\"n\":x}\n"), 400, endpoint.InvalidArgument), "offset")
		failed(t, up("/svc/total", "{\"n\":1}\n{\"n\":13}\n"+strings.Repeat("{\"n\":1}\n", 30000)), 400, endpoint.FailedPrecondition)
		failed(t, up("/svc/total", `{"n":`+strings.Repeat(" ", 1<<20)+"1}\n"), 413, endpoint.ResourceExhausted)
		failed(t, up("/svc/total", gzipped(t, strings.Repeat("x", 2<<20)), "Content-Encoding", "gzip"), 413, endpoint.ResourceExhausted)
		failed(t, up("/svc/total", "plain", "Content-Encoding", "gzip"), 400, endpoint.InvalidArgument)
	}, httpbridge.Expose("svc.*"))
}

// TestUnknownKind finds out that an endpoint streams when it is called for one reply.
func TestUnknownKind(t *testing.T) {
	m := newStreams(t)
	assert.Equal(t, start(t, m, httpbridge.Expose("svc.*")).post(t, "/svc/count", `{"n":1}`).body, "{\"result\":{\"n\":1}}\n")
	assert.Equal(t, start(t, m, httpbridge.Expose("svc.count")).post(t, "/svc/count", `{"n":1}`, "Connect-Timeout-Ms", "10000").body, "{\"result\":{\"n\":1}}\n")
	assert.Contains(t, start(t, m, httpbridge.Expose("svc.count")).post(t, "/svc/count", `{"n":1}`, "Accept", sse).body, "event: end")
	failed(t, start(t, m, httpbridge.Expose("svc.count")).post(t, "/svc/count", `{"n":1}`, "Connect-Protocol-Version", "1"), 415, endpoint.Unknown)
	assert.Equal(t, start(t, m, httpbridge.Expose("svc.total")).do(t, "POST", "/svc/total", "{\"n\":1}\n", "Content-Type", "application/x-ndjson").body, `{"n":1}`)

	t.Run("without discovery", func(t *testing.T) {
		s := start(t, struct{ endpoint.Transport }{m}, httpbridge.Expose("svc.*"))
		assert.Equal(t, s.post(t, "/svc/add", `{"a":1}`, "Accept", sse).body, `{"sum":1}`)
		failed(t, s.post(t, "/svc/count", `{"n":1}`), 501, endpoint.Unimplemented)
		failed(t, s.post(t, "/svc/count", `{"n":1}`, "Accept", sse), 501, endpoint.Unimplemented)
		failed(t, s.do(t, "POST", "/svc/count", messages(`{"n":1}`), "Content-Type", "application/connect+json"), 501, endpoint.Unimplemented)
		r := s.do(t, "GET", "/svc/get", "")
		failed(t, r, 405, endpoint.Unknown)
		assert.Equal(t, r.header.Get("Allow"), "POST")
	})
	t.Run("nobody there", func(t *testing.T) {
		s := start(t, m, httpbridge.Expose("svc.*", "gone.x"))
		for _, ct := range []string{"application/json", "application/connect+json", "application/x-ndjson"} {
			failed(t, s.do(t, "POST", "/svc/x", messages(`{}`), "Content-Type", ct, "Accept", sse), 404, endpoint.Unimplemented)
			failed(t, s.do(t, "POST", "/gone/x", messages(`{}`), "Content-Type", ct, "Accept", sse), 503, endpoint.Unavailable)
		}
		failed(t, s.do(t, "GET", "/svc/x", ""), 404, endpoint.Unimplemented)
		failed(t, s.do(t, "GET", "/gone/x", ""), 503, endpoint.Unavailable)
		assert.NoError(t, m.Stop(t.Context(), "svc.count"))
		s2 := s.do(t, "GET", "/svc/count", "")
		failed(t, s2, 503, endpoint.Unavailable)
	})
}

// TestEvents_foreign sends items that the endpoint encoded itself.
func TestEvents_foreign(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "svc.raw", endpoint.NewServerStream(func(_ context.Context, p *codec.Payload) iter.Seq2[*codec.Payload, error] {
		return func(yield func(*codec.Payload, error) bool) {
			media, data, _ := strings.Cut(string(p.Data), " ")
			data = strings.ReplaceAll(data, "?", "\xff") // which a request may not have
			yield(&codec.Payload{MediaType: media, Data: []byte(data)}, nil)
		}
	}))
	s := start(t, m, httpbridge.Expose("svc.*"))
	ask := func(accept, data string) reply { return s.post(t, "/svc/raw", data, "Accept", accept) }
	const lines, end = "application/x-ndjson", "event: end\ndata: {}\n\n"
	assert.Equal(t, ask(sse, "text/plain a\nb\r\nc\rd\n").body, "id: 1\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"+end)
	assert.Equal(t, ask(sse, "text/plain ").body, "id: 1\ndata: \n\n"+end)
	assert.Equal(t, ask(sse, "application/problem+json {\n}").body, "id: 1\ndata: {\ndata: }\n\n"+end)
	assert.Equal(t, ask(lines, "application/json {\r\n\"a\":1}").body, "{\"result\":{  \"a\":1}}\n")
	assert.Equal(t, ask(lines, "application/problem+json 1").body, "{\"result\":1}\n")
	assert.Equal(t, ask(lines, "application/json ").body, "{\"result\":null}\n")
	failed(t, ask(sse, "text/plain ?"), 500, endpoint.Internal)
	failed(t, ask(sse, "application/cbor x"), 500, endpoint.Internal)
	failed(t, ask(lines, "text/plain x"), 500, endpoint.Internal)
}

// feed is a stream whose items the test sends.
type feed struct {
	items chan string
	cause chan error
}

func newFeed(t testing.TB, m *endpoint.Mux) *feed {
	t.Helper()
	f := &feed{items: make(chan string), cause: make(chan error, 16)}
	serve(t, m, "svc.feed", endpoint.NewServerStream(func(ctx context.Context, _ *nothing) iter.Seq2[*string, error] {
		return func(yield func(*string, error) bool) {
			for {
				select {
				case i, ok := <-f.items:
					if !ok || !yield(&i, nil) {
						return
					}
				case <-ctx.Done():
					f.cause <- context.Cause(ctx)
					yield(nil, ctx.Err())
					return
				}
			}
		}
	}, endpoint.ReadOnly()))
	return f
}

func line(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	text, err := r.ReadString('\n')
	assert.NoError(t, err)
	return text
}

// TestHeartbeat says something when nothing is said, and sends the headers no later than that.
func TestHeartbeat(t *testing.T) {
	m := endpoint.NewMux()
	f := newFeed(t, m)
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		resp, from, leave := s.listen(t, sse)
		assert.Equal(t, resp.StatusCode, 200)
		for range 3 {
			assert.Equal(t, line(t, from), ":\n")
			assert.Equal(t, line(t, from), "\n")
		}
		f.items <- "x"
		for line(t, from) != "id: 1\n" {
		}
		assert.Equal(t, line(t, from), "data: \"x\"\n")
		leave()
		<-f.cause
		resp, from, leave = s.listen(t, "application/x-ndjson")
		assert.Equal(t, resp.StatusCode, 200, "headers come without an item")
		f.items <- "y"
		assert.Equal(t, line(t, from), "{\"result\":\"y\"}\n")
		leave()
		<-f.cause
	}, httpbridge.Expose("svc.*"), httpbridge.WithTimeouts(httpbridge.Timeouts{Heartbeat: 10 * time.Millisecond}))
}

// TestLeaving cancels the handler when the client is gone.
func TestLeaving(t *testing.T) {
	m := endpoint.NewMux()
	f := newFeed(t, m)
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		for _, accept := range []string{sse, "*/*"} {
			ctx, leave := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/svc/feed", http.NoBody)
			assert.NoError(t, err)
			r.Header.Set("Accept", accept)
			go func() { f.items <- "x" }()
			resp, err := s.client.Do(r)
			assert.NoError(t, err)
			_, err = resp.Body.Read(make([]byte, 1))
			assert.NoError(t, err)
			start := time.Now()
			leave()
			assert.ErrorIs(t, <-f.cause, context.Canceled)
			if took := time.Since(start); took > 50*time.Millisecond {
				t.Log("noticed after", took)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			assert.NoError(t, resp.Body.Close())
			assert.Eventually(t, func() bool { return strings.Contains(s.log.text(), "the client left") })
			assert.True(t, !strings.Contains(s.log.text(), "ERROR"), s.log.text())
		}
	}, httpbridge.Expose("svc.*"))
}

// TestDrain_streams lets a stream run until the drain gives up, and ends it properly then.
func TestDrain_streams(t *testing.T) {
	for accept, last := range map[string]string{
		sse:                    "event: error\ndata: {\"code\":\"unavailable\",\"message\":\"the bridge is shutting down\"}\n\nevent: end\ndata: {}\n\n",
		"application/x-ndjson": "{\"error\":{\"code\":\"unavailable\",\"message\":\"the bridge is shutting down\"}}\n",
	} {
		m := endpoint.NewMux()
		f := newFeed(t, m)
		overAll(t, m, func(t *testing.T, s *site) {
			t.Helper()
			go func() { f.items <- "x" }()
			_, from, leave := s.listen(t, accept)
			defer leave()
			ctx, giveUp := context.WithCancel(t.Context())
			drained := make(chan error, 1)
			go func() { drained <- s.bridge.Drain(ctx) }()
			assert.Eventually(t, func() bool { return s.do(t, "GET", "/readyz", "").status == 503 })
			failed(t, s.do(t, "GET", "/svc/feed", ""), 503, endpoint.Unavailable)
			f.items <- "y" // still runs
			for !strings.Contains(line(t, from), `"y"`) {
			}
			giveUp()
			assert.Contains(t, (<-drained).Error(), "1 calls")
			rest, err := io.ReadAll(from)
			assert.NoError(t, err)
			assert.Equal(t, strings.TrimPrefix(string(rest), "\n"), last)
			<-f.cause
		}, httpbridge.Expose("svc.*"))
	}
}
