package bustest_test

import (
	"bufio"
	"context"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

type counted struct{ N int }

// countTo streams 1 to N.
func countTo(_ context.Context, r *counted) iter.Seq2[*counted, error] {
	return func(yield func(*counted, error) bool) {
		for i := range r.N {
			if !yield(&counted{i + 1}, nil) {
				return
			}
		}
	}
}

// addUp adds up what it gets.
func addUp(_ context.Context, in iter.Seq2[*counted, error]) (*counted, error) {
	sum := &counted{}
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		sum.N += r.N
	}
	return sum, nil
}

// TestBridge_streams carries streams of every kind over HTTP, bridge and broker.
func TestBridge_streams(t *testing.T) {
	s := bustest.Server(t, embedded.WithoutListener())
	service := bustest.Connect(t, s)
	assert.NoError(t, service.Serve("svc.count", endpoint.NewServerStream(countTo, endpoint.ReadOnly())))
	assert.NoError(t, service.Serve("svc.sum", endpoint.NewClientStream(addUp)))
	assert.NoError(t, service.Serve("svc.back", endpoint.NewBidiStream(
		func(_ context.Context, in iter.Seq2[*counted, error]) iter.Seq2[*counted, error] { return in })))
	assert.NoError(t, service.Serve("svc.get", endpoint.New(func(_ context.Context, r *counted) (*counted, error) { return r, nil }, endpoint.ReadOnly())))
	url := bridge(t, bustest.Connect(t, s), httpbridge.Expose("svc.*"))
	enveloped := func(texts ...string) string {
		var b strings.Builder
		for _, text := range texts {
			b.WriteString("\x00\x00\x00\x00" + string(rune(len(text))) + text)
		}
		return b.String()
	}
	const jsonType, connect, lines = "application/json", "application/connect+json", "application/x-ndjson"
	for _, tt := range []struct{ method, path, contentType, accept, body, want string }{
		{"POST", "/svc/count", jsonType, "", `{"N":2}`, "{\"result\":{\"N\":1}}\n{\"result\":{\"N\":2}}\n"}, // called for one reply first
		{"POST", "/svc/count", jsonType, "text/event-stream", `{"N":1}`, "id: 1\ndata: {\"N\":1}\n\nevent: end\ndata: {}\n\n"},
		{"GET", "/svc/count?message=%7B%22N%22:1%7D", "", "text/event-stream", "", "id: 1\ndata: {\"N\":1}\n\nevent: end\ndata: {}\n\n"},
		{"POST", "/svc/count", connect, "", enveloped(`{"N":2}`), enveloped(`{"N":1}`, `{"N":2}`) + "\x02\x00\x00\x00\x02{}"},
		{"POST", "/svc/sum", connect, "", enveloped(`{"N":1}`, `{"N":2}`), enveloped(`{"N":3}`) + "\x02\x00\x00\x00\x02{}"},
		{"POST", "/svc/sum", lines, "", "{\"N\":1}\n{\"N\":2}\n", `{"N":3}`},
		{"POST", "/svc/back", connect, "", enveloped(`{"N":1}`, `{"N":2}`), enveloped(`{"N":1}`, `{"N":2}`) + "\x02\x00\x00\x00\x02{}"},
		{"POST", "/svc/back", lines, "", "{\"N\":1}\n{\"N\":2}\n", "{\"result\":{\"N\":1}}\n{\"result\":{\"N\":2}}\n"},
		{"GET", "/svc/get?message=%7B%22N%22:1%7D", "", "", "", `{"N":1}`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, url+tt.path, strings.NewReader(tt.body))
		assert.NoError(t, err)
		r.Header.Set("Content-Type", tt.contentType)
		if tt.accept != "" {
			r.Header.Set("Accept", tt.accept)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		assert.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		assert.NoError(t, err)
		assert.NoError(t, resp.Body.Close())
		assert.Equal(t, string(body), tt.want, tt.method+" "+tt.path+" "+tt.contentType)
	}
}

// ticking is a service whose streams send the time when the test says so.
type ticking struct {
	mu     sync.Mutex
	each   []chan struct{}
	causes chan error
}

func (k *ticking) stream(ctx context.Context, _ *counted) iter.Seq2[*int64, error] {
	tick := make(chan struct{}, 1)
	k.mu.Lock()
	k.each = append(k.each, tick)
	k.mu.Unlock()
	return func(yield func(*int64, error) bool) {
		for {
			select {
			case <-tick:
				now := time.Now().UnixNano()
				if !yield(&now, nil) {
					return
				}
			case <-ctx.Done():
				select {
				case k.causes <- context.Cause(ctx):
				default:
				}
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

func (k *ticking) number() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.each)
}

func (k *ticking) tick(i int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.each[i] <- struct{}{}
}

// TestBridge_streamLeft ends the handler of a stream soon after its HTTP client is gone.
func TestBridge_streamLeft(t *testing.T) {
	s := bustest.Server(t, embedded.WithoutListener())
	service := bustest.Connect(t, s)
	k := &ticking{causes: make(chan error, 1)}
	assert.NoError(t, service.Serve("svc.tick", endpoint.NewServerStream(k.stream, endpoint.ReadOnly())))
	url := bridge(t, bustest.Connect(t, s), httpbridge.Expose("svc.*"))
	var took []time.Duration
	for i := range 50 {
		ctx, leave := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/svc/tick", http.NoBody)
		assert.NoError(t, err)
		answer := make(chan *http.Response, 1)
		go func() {
			resp, err := http.DefaultTransport.RoundTrip(r)
			assert.NoError(t, err)
			answer <- resp
		}()
		assert.Eventually(t, func() bool { return k.number() > i })
		k.tick(i)
		resp := arrives(t, answer)
		_, err = bufio.NewReader(resp.Body).ReadString('\n')
		assert.NoError(t, err)
		began := time.Now()
		leave()
		assert.ErrorIs(t, arrives(t, k.causes), context.Canceled)
		took = append(took, time.Since(began))
		assert.NoError(t, resp.Body.Close())
	}
	slices.Sort(took)
	t.Logf("from leaving to the handler's end: median %v, worst %v", took[len(took)/2], took[len(took)-1])
	assert.True(t, took[len(took)/2] < 50*time.Millisecond, "within 50 ms")
}

// TestFigure_events has many streams of events open at once, in one process with the broker, the service and the clients, and
// says what they take and how late an item is. In full, its bounds hold.
func TestFigure_events(t *testing.T) {
	n, rounds := 100, 2
	if full() {
		n, rounds = 1000, 5
	}
	s := bustest.Server(t, embedded.WithoutListener())
	service := bustest.Connect(t, s)
	k := &ticking{causes: make(chan error, 1)}
	assert.NoError(t, service.Serve("svc.tick", endpoint.NewServerStream(k.stream, endpoint.ReadOnly())))
	before := resident()
	url := bridge(t, bustest.Connect(t, s), httpbridge.Expose("svc.*"))
	f := &flock{late: make(chan time.Duration, n*rounds)}
	defer f.leave()
	for range n {
		f.join(t, strings.TrimPrefix(url, "http://"))
	}
	assert.Eventually(t, func() bool { return k.number() == n })
	var late []time.Duration
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for range rounds {
		for i := range n {
			<-pace.C
			k.tick(i)
		}
	}
	for range n * rounds {
		late = append(late, arrives(t, f.late))
	}
	runtime.GC()
	with := resident()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	slices.Sort(late)
	at := func(q float64) time.Duration { return late[int(q*float64(len(late)-1))] }
	began := time.Now()
	for i := range n { // all at once
		k.tick(i)
	}
	for range n {
		arrives(t, f.late)
	}
	t.Logf("%d streams of events: the whole process has %d MiB resident, %d of them before, %d in heap and %d in stacks; an item is out after %v (median), %v (99 %%), %v (worst); one on each at once: all out after %v",
		n, with>>20, before>>20, mem.HeapInuse>>20, mem.StackInuse>>20, at(0.5), at(0.99), at(1), time.Since(began))
	if full() {
		assert.True(t, with < 100<<20, "under 100 MiB")
		assert.True(t, at(0.99) < 5*time.Millisecond, "within 5 ms")
	}
}

// flock are clients that cost little.
type flock struct {
	late  chan time.Duration
	conns []net.Conn
	all   sync.WaitGroup
	gone  atomic.Bool
}

func (f *flock) join(t *testing.T, addr string) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	assert.NoError(t, err)
	f.conns = append(f.conns, c)
	_, err = io.WriteString(c, "GET /svc/tick HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
	assert.NoError(t, err)
	f.all.Go(func() {
		var buf [1024]byte // the head and an event
		for {
			m, err := c.Read(buf[:])
			now := time.Now()
			if err != nil {
				return
			}
			_, data, found := strings.Cut(string(buf[:m]), "data: ")
			if !found {
				continue
			}
			data, _, _ = strings.Cut(data, "\n")
			sent, err := strconv.ParseInt(data, 10, 64)
			if err != nil && !f.gone.Load() {
				t.Error(err)
				return
			}
			f.late <- now.Sub(time.Unix(0, sent))
		}
	})
}

func (f *flock) leave() {
	f.gone.Store(true)
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.all.Wait()
}

// resident is what the process has in memory, in bytes; where it can't be told, what Go has of the system.
func resident() int {
	text, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			if pages, err := strconv.Atoi(fields[1]); err == nil {
				return pages * os.Getpagesize()
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.Sys)
}
