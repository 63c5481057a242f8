package httpbridge_test

import (
	"bufio"
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// telling streams n items with metadata before and after, and fails if n is negative.
func telling(ctx context.Context, r *number) iter.Seq2[*number, error] {
	return func(yield func(*number, error) bool) {
		c := endpoint.FromContext(ctx)
		c.Reply.Add("X-Said", "a")
		c.Reply.Add("X-Said", "b")
		c.Reply.Add("X-Hidden", "c")
		c.Trailer.Add("X-Sum", "d")
		if r.N < 0 {
			yield(nil, endpoint.NotFound.New("none").With(endpoint.Detail{Type: "t", Value: []byte{1}}))
			return
		}
		for i := range r.N {
			if !yield(&number{i}, nil) {
				return
			}
		}
	}
}

func TestStream_metadata(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "svc.told", endpoint.NewServerStream(telling))
	serve(t, m, "svc.one", endpoint.NewClientStream(func(ctx context.Context, in iter.Seq2[*number, error]) (*number, error) {
		endpoint.FromContext(ctx).Reply.Set("X-Said", "one")
		return total(ctx, in)
	}))
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		for _, n := range []string{`{"n":2}`, `{"n":0}`, `{"n":-1}`} {
			out := s.connect(t, "/svc/told", messages(n))
			assert.Equal(t, out.header.Values("X-Said"), []string{"a", "b"}, n)
			assert.Equal(t, out.header.Get("X-Hidden"), "")
			assert.Equal(t, out.metadata, http.Header{"X-Sum": {"d"}}, n)
			if n == `{"n":-1}` {
				assert.Equal(t, out.failed(t, endpoint.NotFound), "none")
				assert.Equal(t, out.err.Details, []endpoint.Detail{{Type: "t", Value: []byte{1}}})
			}
		}
		r := s.post(t, "/svc/told", `{"n":1}`, "Accept", sse)
		assert.Equal(t, r.header.Values("X-Said"), []string{"a", "b"})
		assert.Contains(t, r.body, "event: end\ndata: {\"metadata\":{\"X-Sum\":[\"d\"]}}\n\n")
		r = s.post(t, "/svc/told", `{"n":-1}`, "Accept", sse)
		failed(t, r, 404, endpoint.NotFound)
		assert.Equal(t, r.header.Get("X-Said"), "a")
		assert.Equal(t, r.header.Get("Trailer-X-Sum"), "d")
		assert.Equal(t, s.post(t, "/svc/one", `{"n":1}`).header.Get("X-Said"), "one")
	}, httpbridge.Expose("svc.*"), httpbridge.WithHeaders(nil, []string{"X-Said", "X-Sum"}))
}

// TestStream_deadline ends a stream when the time is up that its client gave, neither sooner nor later.
func TestStream_deadline(t *testing.T) {
	m := endpoint.NewMux()
	f := newFeed(t, m)
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		out := s.connect(t, "/svc/feed", messages(`{}`), "Connect-Timeout-Ms", "20")
		out.failed(t, endpoint.DeadlineExceeded)
		failed(t, s.post(t, "/svc/feed", `{}`, "Connect-Timeout-Ms", "20", "Accept", sse), 504, endpoint.DeadlineExceeded)
		for range 2 { // no handler is left that could take the item
			<-f.cause
		}
		go func() { f.items <- "x" }()
		r := s.post(t, "/svc/feed", `{}`, "Connect-Timeout-Ms", "500")
		assert.Contains(t, r.body, "{\"result\":\"x\"}\n{\"error\":{\"code\":\"deadline_exceeded\"")
		<-f.cause
		// Bounds of unary calls are not for streams.
		_, from, leave := s.listen(t, sse, "Connect-Timeout-Ms", "100000")
		for range 2 {
			assert.Equal(t, line(t, from), ":\n")
			assert.Equal(t, line(t, from), "\n")
		}
		leave()
		<-f.cause
	}, httpbridge.Expose("svc.*"), httpbridge.WithTimeouts(httpbridge.Timeouts{Call: 10 * time.Millisecond, MaxCall: 20 * time.Millisecond, Heartbeat: 300 * time.Millisecond, Body: 20 * time.Millisecond}))
}

// TestStream_slowReader holds back the service for a client that doesn't read, and ends the stream after a while.
func TestStream_slowReader(t *testing.T) {
	var sent atomic.Int64
	ended := make(chan error, 8)
	m := endpoint.NewMux()
	item := strings.Repeat("x", 100_000)
	serve(t, m, "svc.flood", endpoint.NewServerStream(func(ctx context.Context, _ *nothing) iter.Seq2[*string, error] {
		return func(yield func(*string, error) bool) {
			for yield(&item, nil) {
				sent.Add(1)
			}
			ended <- context.Cause(ctx)
		}
	}))
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		for _, kv := range [][]string{{"application/json", sse}, {"application/json", "*/*"}, {"application/connect+json", "*/*"}} {
			body := `{}`
			if kv[0] != "application/json" {
				body = messages(body)
			}
			sent.Store(0)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/svc/flood", strings.NewReader(body))
			assert.NoError(t, err)
			r.Header.Set("Content-Type", kv[0])
			r.Header.Set("Accept", kv[1])
			resp, err := s.client.Do(r)
			assert.NoError(t, err)
			assert.ErrorIs(t, <-ended, context.Canceled)
			assert.True(t, sent.Load() < 300, "no more was sent than buffers hold")
			_, err = io.Copy(io.Discard, resp.Body)
			assert.True(t, err != nil, "the stream was cut off, and looks like it")
			assert.NoError(t, resp.Body.Close())
			assert.Eventually(t, func() bool {
				return strings.Contains(s.log.text(), "does not read") || strings.Contains(s.log.text(), "the client left")
			})
		}
	}, httpbridge.Expose("svc.*"), httpbridge.WithTimeouts(httpbridge.Timeouts{Write: 100 * time.Millisecond}))
}

// collector is a client stream that tells how it ended.
type collector struct {
	got   chan int
	cause chan error
}

func newCollector(t testing.TB, m *endpoint.Mux) *collector {
	t.Helper()
	c := &collector{make(chan int, 64), make(chan error, 64)}
	serve(t, m, "svc.collect", endpoint.NewClientStream(func(ctx context.Context, in iter.Seq2[*number, error]) (*number, error) {
		for r, err := range in {
			if err != nil {
				c.cause <- context.Cause(ctx)
				return nil, err
			}
			c.got <- r.N
		}
		c.cause <- nil
		return &number{}, nil
	}))
	return c
}

// TestUpload_leaving cancels the handler when a client goes while it sends.
func TestUpload_leaving(t *testing.T) {
	m := endpoint.NewMux()
	c := newCollector(t, m)
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		for kind, one := range map[string]string{"application/connect+json": messages(`{"n":7}`), "application/x-ndjson": "{\"n\":7}\n"} {
			for _, half := range []string{"", one[:4]} {
				ctx, leave := context.WithCancel(t.Context())
				body, up := io.Pipe()
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/svc/collect", body)
				assert.NoError(t, err)
				r.Header.Set("Content-Type", kind)
				gone := make(chan error, 1)
				go func() {
					resp, err := s.client.Do(r)
					if err == nil {
						err = resp.Body.Close()
					}
					gone <- err
				}()
				_, err = io.WriteString(up, one+half)
				assert.NoError(t, err)
				select {
				case n := <-c.got:
					assert.Equal(t, n, 7)
				case err := <-gone:
					t.Fatal("answered too early", err, s.log.text())
				}
				start := time.Now()
				leave()
				assert.ErrorIs(t, <-c.cause, context.Canceled)
				t.Log("noticed after", time.Since(start))
				_ = up.Close() // the client may have closed its end
				assert.ErrorIs(t, <-gone, context.Canceled)
			}
		}
	}, httpbridge.Expose("svc.*"))
}

// TestUpload_stuck bounds how long a message may take, not how long none may come.
func TestUpload_stuck(t *testing.T) {
	m := endpoint.NewMux()
	c := newCollector(t, m)
	one := messages(`{"n":7}`)
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		body, up := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/svc/collect", body)
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/connect+json")
		answer := make(chan reply, 1)
		go func() { answer <- s.send(t, r) }()
		for range 3 {
			_, err := io.WriteString(up, one)
			assert.NoError(t, err)
			assert.Equal(t, <-c.got, 7)
			timer := time.NewTimer(80 * time.Millisecond)
			<-timer.C
		}
		_, err = io.WriteString(up, one[:6])
		assert.NoError(t, err)
		out := ended(t, <-answer)
		assert.Contains(t, out.failed(t, endpoint.DeadlineExceeded), "in time")
		assert.ErrorIs(t, <-c.cause, context.Canceled)
		assert.NoError(t, up.Close())
	}, httpbridge.Expose("svc.*"), httpbridge.WithTimeouts(httpbridge.Timeouts{Body: 40 * time.Millisecond}))
}

// TestStream_keepsConnection uses one connection of HTTP/1.1 for one stream after another, and none again that has the rest
// of a request in it.
func TestStream_keepsConnection(t *testing.T) {
	s := start(t, newStreams(t), httpbridge.Expose("svc.*"))
	reused := func(path, contentType, body string) bool {
		again := false
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { again = i.Reused }})
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, strings.NewReader(body))
		assert.NoError(t, err)
		r.Header.Set("Content-Type", contentType)
		s.send(t, r)
		return again
	}
	const connect = "application/connect+json"
	assert.True(t, !reused("/svc/count", "application/json", `{"n":3}`))
	for range 3 {
		assert.True(t, reused("/svc/count", "application/json", `{"n":3}`))
		assert.True(t, reused("/svc/count", connect, messages(`{"n":3}`)))
		assert.True(t, reused("/svc/total", connect, messages(`{"n":3}`, `{"n":3}`)))
		assert.True(t, reused("/svc/total", "application/x-ndjson", "{\"n\":3}\n"))
	}
	reused("/svc/total", connect, messages(`{"n":13}`)+strings.Repeat(messages(`{"n":1}`), 100_000))
	assert.Equal(t, s.post(t, "/svc/add", `{"a":1}`).body, `{"sum":1}`)
}

func TestStream_limits(t *testing.T) {
	m := endpoint.NewMux()
	newFeed(t, m)
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithLimits(httpbridge.Limits{Concurrent: 2}), httpbridge.WithTimeouts(httpbridge.Timeouts{Heartbeat: time.Millisecond}))
	_, _, leave := s.listen(t, sse)
	defer leave()
	_, _, leaveToo := s.listen(t, sse)
	defer leaveToo()
	failed(t, s.post(t, "/svc/feed", `{}`), 429, endpoint.ResourceExhausted)
	failed(t, s.do(t, http.MethodGet, "/svc/feed", ""), 429, endpoint.ResourceExhausted)
}

// deaf is a ResponseWriter of some middleware that forgot about streams.
type deaf struct{ w http.ResponseWriter }

func (d deaf) Header() http.Header         { return d.w.Header() }
func (d deaf) WriteHeader(status int)      { d.w.WriteHeader(status) }
func (d deaf) Write(b []byte) (int, error) { return d.w.Write(b) }

// wrapped is one that did not.
type wrapped struct{ deaf }

func (w wrapped) Unwrap() http.ResponseWriter { return w.w }

func TestStream_wrapped(t *testing.T) {
	s := start(t, newStreams(t), httpbridge.Expose("svc.*"))
	ask := func(wrap func(w http.ResponseWriter) http.ResponseWriter) reply {
		outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.bridge.ServeHTTP(wrap(w), r) }))
		defer outer.Close()
		inner := &site{Server: outer, client: outer.Client()}
		return inner.post(t, "/svc/count", `{"n":1}`)
	}
	failed(t, ask(func(w http.ResponseWriter) http.ResponseWriter { return deaf{w} }), 500, endpoint.Internal)
	assert.Contains(t, s.log.text(), "can't flush")
	assert.Equal(t, ask(func(w http.ResponseWriter) http.ResponseWriter { return wrapped{deaf{w}} }).body, "{\"result\":{\"n\":1}}\n")
}

func TestStream_auth(t *testing.T) {
	auth := func(r *http.Request) (context.Context, error) {
		if r.Header.Get("Authorization") == "" {
			return nil, endpoint.Unauthenticated.New("who?")
		}
		return context.Background(), nil // doesn't derive from the request's
	}
	m := newStreams(t)
	f := newFeed(t, m)
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithAuth(auth), httpbridge.WithTimeouts(httpbridge.Timeouts{Heartbeat: 10 * time.Millisecond}))
	assert.Equal(t, s.connect(t, "/svc/count", messages(`{"n":1}`)).failed(t, endpoint.Unauthenticated), "who?")
	failed(t, s.post(t, "/svc/count", `{"n":1}`, "Accept", sse), 401, endpoint.Unauthenticated)
	failed(t, s.do(t, "GET", "/svc/count", ""), 401, endpoint.Unauthenticated)
	assert.Equal(t, s.connect(t, "/svc/count", messages(`{"n":1}`), "Authorization", "x").items, []string{`{"n":1}`})
	out := s.connect(t, "/svc/feed", messages(`{}`), "Authorization", "x", "Connect-Timeout-Ms", "20")
	out.failed(t, endpoint.DeadlineExceeded)
	<-f.cause
	_, _, leave := s.listen(t, sse, "Authorization", "x", "Connect-Timeout-Ms", "100000")
	leave()
	assert.ErrorIs(t, <-f.cause, context.Canceled)
}

// listen opens a stream of events or lines, with more headers if there are.
func (s *site) listen(t testing.TB, accept string, kv ...string) (resp *http.Response, from *bufio.Reader, leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/svc/feed", http.NoBody)
	assert.NoError(t, err)
	r.Header.Set("Accept", accept)
	for i := 0; i < len(kv); i += 2 {
		r.Header.Set(kv[i], kv[i+1])
	}
	resp, err = s.client.Do(r)
	assert.NoError(t, err)
	return resp, bufio.NewReader(resp.Body), func() {
		cancel()
		assert.NoError(t, resp.Body.Close())
	}
}

// TestUpload_answeredEarly answers a client that has more to say, when the service has heard enough.
func TestUpload_answeredEarly(t *testing.T) {
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		for kind, one := range map[string]string{"application/connect+json": messages(`{"n":13}`), "application/x-ndjson": "{\"n\":13}\n"} {
			body, up := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/svc/total", body)
			assert.NoError(t, err)
			r.Header.Set("Content-Type", kind)
			r.Header.Set("Accept-Encoding", "identity")
			go func() { _, _ = io.WriteString(up, one) }()
			began := time.Now()
			got := s.send(t, r) // while nothing says that the body ends
			assert.True(t, time.Since(began) < 5*time.Second, "at once")
			_ = up.Close()
			if kind == "application/x-ndjson" {
				failed(t, got, 400, endpoint.FailedPrecondition)
			} else {
				ended(t, got).failed(t, endpoint.FailedPrecondition)
			}
		}
	}, httpbridge.Expose("svc.*"))
}

// TestUpload_poison holds that a request whose body was not waited for does no harm to the next one on its connection.
func TestUpload_poison(t *testing.T) {
	s := start(t, newStreams(t), httpbridge.Expose("svc.*"))
	for i := range 500 {
		rest := strings.Repeat(messages(`{"n":1}`), i%5)
		s.connect(t, "/svc/total", messages(`{"n":13}`)+rest).failed(t, endpoint.FailedPrecondition)
		assert.True(t, s.connect(t, "/svc/count", messages(`{"n":1}`)).err == nil, "the next one")
	}
}
