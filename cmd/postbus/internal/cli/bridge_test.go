package cli_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"postbus.example/cmd/postbus/internal/cli"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// bridge is a bridge that runs in this process.
type bridge struct {
	url, metrics string
	log          *output
	end          context.CancelFunc
	code         chan int
	client       *http.Client
}

func startBridge(t *testing.T, s *embedded.Server, args ...string) *bridge {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := &bridge{log: &output{}, end: cancel, code: make(chan int, 1), client: &http.Client{Transport: &http.Transport{}}}
	args = to(s, append([]string{"bridge", "--listen", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	go func() { b.code <- cli.Run(ctx, args, nil, io.Discard, b.log, nil) }()
	t.Cleanup(func() {
		cancel()
		b.client.CloseIdleConnections()
	})
	assert.Eventually(t, func() bool { return len(b.logged("the HTTP bridge listens")) > 0 || len(b.code) > 0 })
	if lines := b.logged("the HTTP bridge listens"); len(lines) > 0 {
		b.url = "http://" + lines[0]["addr"].(string)
	} else {
		t.Fatal(b.log)
	}
	if lines := b.logged("metrics are served"); len(lines) > 0 {
		b.metrics = "http://" + lines[0]["addr"].(string) + "/metrics"
	}
	return b
}

// logged returns the lines of the log with a message.
func (b *bridge) logged(msg string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(b.log.String()) {
		var l map[string]any
		if json.Unmarshal([]byte(line), &l) == nil && l["msg"] == msg {
			found = append(found, l)
		}
	}
	return found
}

// stop ends the bridge as SIGTERM does.
func (b *bridge) stop(t *testing.T) int {
	t.Helper()
	b.end()
	b.client.CloseIdleConnections()
	return <-b.code
}

func (b *bridge) do(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
	assert.NoError(t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return b.send(t, r)
}

func (b *bridge) send(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	reply, err := b.client.Do(r)
	assert.NoError(t, err)
	text, err := io.ReadAll(reply.Body)
	assert.NoError(t, err)
	assert.NoError(t, reply.Body.Close())
	return reply.StatusCode, string(text)
}

func TestBridge(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	b := startBridge(t, s, "--expose", "math.add", "--access-log", "--metrics-listen", "127.0.0.1:0", "--max-body", "1KiB")
	is := func(method, path, body string, status int, text string) {
		t.Helper()
		gotStatus, got := b.do(t, method, path, body)
		assert.Equal(t, []any{gotStatus, strings.Contains(got, text)}, []any{status, true}, got)
	}
	is("POST", "/math/add", `{"a":1,"b":2}`, 200, `{"sum":3}`)
	is("POST", "/math.add", `{"b":13}`, 404, `{"code":"not_found","message":"there is no 13"}`)
	is("POST", "/math/count", `{"n":1}`, 404, "no such endpoint")
	is("POST", "/math/add", `{"a":"`+strings.Repeat("1", 1024)+`"}`, 413, "resource_exhausted")
	is("GET", "/healthz", "", 200, "ok")
	is("GET", "/readyz", "", 200, "ok")
	is("GET", "/metrics", "", 404, "")
	assert.Equal(t, len(b.logged("rpc")), 2, "each call is logged")

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.metrics, http.NoBody)
	assert.NoError(t, err)
	status, text := b.send(t, r)
	assert.Equal(t, status, 200)
	assert.Contains(t, text, `rpc_client_call_duration_seconds_count{`, `rpc_method="math/add"`, "go_goroutines", "rpc_bus_reconnects_total")

	assert.Equal(t, len(b.logged("whoever reaches this address may call all that is exposed")), 0, "it is this machine's own")
	assert.Equal(t, b.stop(t), 0)
}

func TestBridge_routes(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	file := settings(t, "bridge:\n  route:\n    GET /v1/sum/{a}: math.add\n    POST /v1/sums: math.add\n")
	b := startBridge(t, s, "--config", file)
	status, text := b.do(t, http.MethodGet, "/v1/sum/4?b=3", "")
	assert.Equal(t, []any{status, text}, []any{200, `{"sum":7}`})
	status, text = b.do(t, http.MethodPost, "/v1/sums", `{"a":1}`)
	assert.Equal(t, []any{status, text}, []any{200, `{"sum":1}`})
	status, _ = b.do(t, http.MethodPost, "/math/add", `{"a":1}`)
	assert.Equal(t, status, 404)
	assert.Equal(t, b.stop(t), 0)
}

// TestBridge_shutdown ends the bridge while a call runs, and wants it finished and answered.
func TestBridge_shutdown(t *testing.T) {
	t.Parallel()
	s := broker(t)
	started, finish := make(chan struct{}), make(chan struct{})
	serve(t, s, map[string]*endpoint.Endpoint{"slow.add": endpoint.New(func(ctx context.Context, p *pair) (*sum, error) {
		close(started)
		select {
		case <-finish:
			return add(ctx, p)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})})
	b := startBridge(t, s, "--expose", "slow.*")
	type answer struct {
		status int
		text   string
	}
	got := make(chan answer, 1)
	go func() {
		status, text := b.do(t, http.MethodPost, "/slow/add", `{"a":1,"b":1}`)
		got <- answer{status, text}
	}()
	<-started
	b.end()
	assert.Eventually(t, func() bool {
		status, _ := b.do(t, http.MethodGet, "/readyz", "")
		return status == http.StatusServiceUnavailable
	}, "it does not take new calls")
	close(finish)
	assert.Equal(t, <-got, answer{200, `{"sum":2}`})
	assert.Equal(t, b.stop(t), 0)
}

func TestBridge_TLS(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	pki := cli.NewPKI(t)
	b := startBridge(t, s, "--expose", "math.*", "--tls-cert", pki.Cert, "--tls-key", pki.Key, "--tls-client-ca", pki.CA)
	b.url = strings.Replace(b.url, "http:", "https:", 1)
	roots := x509.NewCertPool()
	assert.True(t, roots.AppendCertsFromPEM(pki.CAPEM))
	b.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pki.Pair(t)}}, ForceAttemptHTTP2: true}
	status, text := b.do(t, http.MethodPost, "/math/add", `{"a":1}`)
	assert.Equal(t, []any{status, text}, []any{200, `{"sum":1}`})
	b.client.CloseIdleConnections()

	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	_, err := stranger.Post(b.url+"/math/add", "application/json", bytes.NewReader([]byte("{}")))
	assert.True(t, err != nil, "without a certificate nobody is let in")
	stranger.CloseIdleConnections()
	assert.Equal(t, b.stop(t), 0)
}

func TestBridge_faults(t *testing.T) {
	t.Parallel()
	r := run(t, []string{
		"bridge", "--expose", "a b", "--header-in", "Nats-X", "--call-timeout", "2m", "--tls-cert", "x", "--tls-client-ca", "y",
		"--max-calls=-1", "--max-body", "much", "--route", "users.get", "--route", "FETCH /a=a.b",
	})
	assert.Equal(t, []any{r.code, r.out}, []any{64, ""})
	for _, want := range []string{
		"--max-calls: -1 is negative", "--max-body: \"much\" is not a size", "--tls-cert and --tls-key go together", "--tls-client-ca: open y",
		"--route: \"users.get\" is not such as", "--route: ",
		"--expose: subject \"a b\"", "--header-in, --header-out: \"Nats-X\" never passes", "--call-timeout, --max-call-timeout: 2m0s",
	} {
		assert.Contains(t, r.err, "postbus: "+want)
	}
	assert.Equal(t, strings.Count(r.err, "\n"), 9, r.err)
	r = run(t, []string{"bridge"})
	assert.Equal(t, r, result{64, "", "postbus: nothing is offered: give --expose or --route\n"})
}

// TestBridge_addressInUse wants the metrics' address as much as its own.
func TestBridge_addressInUse(t *testing.T) {
	t.Parallel()
	s := broker(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	defer func() { assert.NoError(t, l.Close()) }()
	for _, flag := range []string{"--listen", "--metrics-listen"} {
		r := run(t, to(s, "bridge", "--expose", "a.b", "--listen", "127.0.0.1:0", flag, l.Addr().String()))
		assert.Equal(t, r.code, 74, r.err)
		assert.Contains(t, r.err, "address already in use")
	}
}
