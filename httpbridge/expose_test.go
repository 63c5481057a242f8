package httpbridge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestExpose(t *testing.T) {
	var got string
	tr := script{func(_ context.Context, subject string) (*codec.Payload, error) {
		got = subject
		return &codec.Payload{Data: []byte("ok")}, nil
	}}
	s := start(t, tr, httpbridge.Expose("svc.add", "math.*"), httpbridge.Expose("acme.>", "ping", "größe.*"))
	for path, subject := range map[string]string{
		"/svc.add": "svc.add", "/svc/add": "svc.add", "/math/sum": "math.sum", "/math.sum": "math.sum", "/ping": "ping",
		"/acme.v1.Users/Get": "acme.v1.Users.Get", "/acme/v1/Users/Get": "acme.v1.Users.Get", "/acme/x": "acme.x",
		"/größe/ß": "größe.ß", "/acme/a$b": "acme.a$b", "/acme/a_INBOX": "acme.a_INBOX",
	} {
		for range 2 { // the second from what is remembered
			got = ""
			r := s.post(t, path, `{}`)
			assert.Equal(t, r.status, 200, path, r.body)
			assert.Equal(t, got, subject)
			assert.Equal(t, r.header.Get("Content-Type"), "application/json", "the request's, when the reply has none")
		}
	}
	got = ""
	for _, path := range []string{"/svc", "/svc/sub", "/svc/add/x", "/math", "/math/a/b", "/acme", "/Svc/add", "/healthz/x", "/"} {
		failed(t, s.post(t, path, `{}`), 404, endpoint.Unimplemented)
	}
	assert.Equal(t, got, "")
}

// hostile are paths as they stand on the wire, none of which is a subject.
var hostile = []string{
	"/", "//", "//svc/add", "/svc//add", "/svc/add/", "/svc..add", "/.svc.add", "/svc.add.", "/svc/./add", "/x/../svc/add", "/svc/../svc/add", "/..", "/.",
	"/*", "/>", "/svc/*", "/svc/>", "/svc.*", "/svc/a*", "/svc/add>", "/%2A", "/svc/%3E",
	"/$SYS/REQ/SERVER/PING", "/$JS.API.INFO", "/$SRV/PING", "/svc/$SYS", "/%24SYS/x", "/svc/%24x",
	"/_INBOX/x", "/_INBOX.x.y", "/svc/_INBOX/x", "/%5FINBOX/x", "/_INBOXES/x", "/_RPC/x", "/_R_/x", "/_GR_/x", "/svc/~f", "/svc/add/~f",
	"/svc%2Fadd", "/svc%2fadd", "/svc%2Eadd", "/svc%2eadd", "/svc/%2e%2e/add", "/svc/a%64d", "/%73vc/add", "/svc/add%00", "/%00", "/svc/%0d%0aadd", "/svc/add%0A",
	"/svc/add%20", "/svc%20/add", "/svc/add%09", "/svc/%7F", "/svc/%C2%A0add", "/svc/%C2%85", "/svc/%E2%80%8Badd", "/svc/%E2%80%AE", "/svc/%FF", "/svc/%C0%AF", "/svc/%ED%A0%80",
	"/svc/" + strings.Repeat("a", 4096), "/" + strings.Repeat("a.", 2048) + "a", "/" + strings.Repeat("a/", 300) + "a",
	"/svc/%252e%252e/add", "/svc%252Fadd", "/svc/%252A", "/%2524SYS/x", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", `/svc\..\add`, `/svc/..\add`,
	"http://127.0.0.1/$SYS/x", "*", "/svc/add;x=1%2F..",
}

// TestHostilePaths sends them by hand: no client would.
func TestHostilePaths(t *testing.T) {
	var calls atomic.Int64
	tr := script{func(_ context.Context, subject string) (*codec.Payload, error) {
		calls.Add(1)
		return &codec.Payload{}, nil
	}}
	s := start(t, tr, httpbridge.Expose(">"))
	for _, path := range append(hostile, "/svc/%", "/svc/%zz", "/svc add", "svc/add", "/svc/\x01", "/svc/\xff") {
		status, err := raw(s, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
		assert.NoError(t, err)
		assert.True(t, status == 404 || status == 400, path, fmt.Sprint(status))
	}
	for _, header := range []string{
		"Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2\r\nX-A: a\r\n b\r\nBad Name: x", "Content-Length: 2\r\nTransfer-Encoding: what",
		"Content-Length: -1", "Content-Length: 2\r\nX\x00: a", "Content-Length: 2\r\nX: a\x00b",
	} {
		status, err := raw(s, "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+header+"\r\n\r\n{}")
		assert.NoError(t, err)
		assert.True(t, status == 400 || status == 501, header, fmt.Sprint(status))
	}
	assert.Equal(t, calls.Load(), 0)
	status, err := raw(s, "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	assert.NoError(t, err)
	assert.Equal(t, status, 200) // the way of asking is right
}

// raw writes a request as it is and returns the status of the answer.
func raw(s *site, request string) (int, error) {
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte(request)); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

func TestNobodyThere(t *testing.T) {
	m := newMux(t)
	s := start(t, m, httpbridge.Expose("svc.add", "gone.x", "svc.*"))
	r := s.post(t, "/gone/x", `{}`)
	assert.Contains(t, failed(t, r, 503, endpoint.Unavailable), "gone.x")
	assert.Equal(t, r.header.Get("Retry-After"), "1")
	failed(t, s.post(t, "/svc/never", `{}`), 404, endpoint.Unimplemented)

	assert.Equal(t, s.post(t, "/svc/ping", `{}`).status, 200)
	for _, subject := range []string{"svc.add", "svc.ping", "svc.echo"} {
		assert.NoError(t, m.Stop(t.Context(), subject))
	}
	failed(t, s.post(t, "/svc/add", `{}`), 503, endpoint.Unavailable)
	failed(t, s.post(t, "/svc/ping", `{}`), 503, endpoint.Unavailable)
	failed(t, s.post(t, "/svc/echo", `{}`), 503, endpoint.Unavailable) // never called, but discovered
	failed(t, s.post(t, "/svc/never", `{}`), 404, endpoint.Unimplemented)
}

// withDirectory is a transport that discovers as the test says.
type withDirectory struct {
	script
	discover func(context.Context) ([]endpoint.Instance, error)
}

func (d withDirectory) Discover(ctx context.Context, _ string) ([]endpoint.Instance, error) {
	return d.discover(ctx)
}

func TestDiscovery(t *testing.T) {
	nobody := failing(endpoint.Unavailable.New("nobody").WithReason(endpoint.ReasonNoResponders))
	t.Run("fails quietly, and is asked once in a while", func(t *testing.T) {
		var asked atomic.Int64
		s := start(t, withDirectory{nobody, func(context.Context) ([]endpoint.Instance, error) {
			asked.Add(1)
			return nil, errors.New("no grant")
		}}, httpbridge.Expose("svc.*"))
		for range 20 {
			failed(t, s.post(t, "/svc/x", `{}`), 404, endpoint.Unimplemented)
		}
		assert.Equal(t, asked.Load(), 1)
		assert.Equal(t, strings.Count(s.log.text(), "no grant"), 1)
	})
	t.Run("there is none", func(t *testing.T) {
		failed(t, start(t, nobody, httpbridge.Expose("svc.*")).post(t, "/svc/x", `{}`), 404, endpoint.Unimplemented)
	})
	t.Run("exact subjects do without", func(t *testing.T) {
		s := start(t, withDirectory{nobody, func(context.Context) ([]endpoint.Instance, error) {
			t.Error("asked")
			return nil, nil
		}}, httpbridge.Expose("svc.x"))
		failed(t, s.post(t, "/svc/x", `{}`), 503, endpoint.Unavailable)
	})
	t.Run("what it saw is away", func(t *testing.T) {
		s := start(t, withDirectory{nobody, func(context.Context) ([]endpoint.Instance, error) {
			return []endpoint.Instance{{Endpoints: []endpoint.EndpointInfo{{Subject: "svc.x"}}}}, errors.New("in part")
		}}, httpbridge.Expose("svc.*"))
		failed(t, s.post(t, "/svc/x", `{}`), 503, endpoint.Unavailable)
		failed(t, s.post(t, "/svc/y", `{}`), 404, endpoint.Unimplemented)
	})
	t.Run("ends with the bridge and with the call", func(t *testing.T) {
		ended := make(chan struct{})
		s := start(t, withDirectory{nobody, func(ctx context.Context) ([]endpoint.Instance, error) {
			defer close(ended)
			<-ctx.Done()
			return nil, ctx.Err()
		}}, httpbridge.Expose("svc.*"))
		failed(t, s.post(t, "/svc/x", `{}`, "Connect-Timeout-Ms", "10"), 404, endpoint.Unimplemented)
		assert.NoError(t, s.bridge.Drain(t.Context()))
		<-ended
	})
}

// TestRemembered keeps what one bridge remembers within bounds when a service answers to any name.
func TestRemembered(t *testing.T) {
	tr := script{func(context.Context, string) (*codec.Payload, error) { return &codec.Payload{}, nil }}
	s := start(t, tr, httpbridge.Expose("svc.*"))
	for i := range 5000 {
		w := &discard{header: http.Header{}}
		r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("/svc/n%d", i), strings.NewReader("{}"))
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		s.bridge.ServeHTTP(w, r)
		assert.Equal(t, w.status, 200)
	}
	assert.Equal(t, s.post(t, "/svc/n4999", `{}`).status, 200)
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header { return d.header }

func (d *discard) Write(p []byte) (int, error) {
	if d.status == 0 {
		d.status = 200
	}
	return len(p), nil
}

func (d *discard) WriteHeader(status int) { d.status = status }

// TestExpose_unreachable are subjects that the bus takes and no path leads to: who exposes them is told at the start.
func TestExpose_unreachable(t *testing.T) {
	for _, subject := range []string{
		"svc.a|b", `svc.a"b`, "svc.{x}", "svc.a?b", "svc.a#b", "svc.a/b", "svc.a%b", "svc.a%41", "svc.a^b", "svc.a`b", `svc.a\b`, "svc.a<b",
		"/svc.add", "svc.a|b.*", "a?.>", "healthz", "readyz", "svc.$x", "svc.a\u200bb",
	} {
		err := httpbridge.New(newMux(t), httpbridge.Expose(subject), httpbridge.WithLogger(slog.New(slog.DiscardHandler))).Err()
		assert.True(t, err != nil, subject)
		assert.Contains(t, err.Error(), fmt.Sprintf("%q", subject))
	}
	tr := script{func(context.Context, string) (*codec.Payload, error) { return &codec.Payload{}, nil }}
	for _, subject := range []string{"svc.a:b", "svc.a@b", "svc.a-b_c~d", "svc.a!b&c=d,e;f(g)h+i'j", "svc.a[b]", "größe.x", "healthz.x", "a.readyz"} {
		b := httpbridge.New(tr, httpbridge.Expose(subject))
		assert.NoError(t, b.Err(), subject)
		s := start(t, tr, httpbridge.Expose(subject))
		status, err := raw(s, "POST /"+subject+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		assert.NoError(t, err)
		assert.Equal(t, status, 200, subject)
	}
}
