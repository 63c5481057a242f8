package httpbridge_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// castle is a bridge with all that it can do, in front of endpoints that count what reaches them. What the OWASP list for
// APIs warns of is thrown at it over real HTTP: https://owasp.org/API-Security.
type castle struct {
	*site

	ran  atomic.Int64
	seen chan []string // names of the metadata of a call that ran
}

// everything are the options of a bridge that has all of them.
func everything() []httpbridge.Option {
	return []httpbridge.Option{
		httpbridge.Expose("svc.*"), httpbridge.Route("PUT /v1/add/{a}", "svc.add"), httpbridge.Route("GET /v1/add/{a}/{b}", "svc.add"),
		httpbridge.WithJSONRPC("/rpc"), httpbridge.WithOpenAPI(httpbridge.Info{Title: "castle", Version: "1.0.0"}),
		httpbridge.WithHeaders([]string{"*"}, []string{"*"}),
		httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
			if r.Header.Get("Authorization") != "Bearer good" {
				return nil, httpbridge.Challenge(endpoint.Unauthenticated.New("who are you?"), "Bearer")
			}
			return httpbridge.Identify(r.Context(), &httpbridge.Identity{Subject: "ann"}), nil
		}),
		httpbridge.WithAuthorization(func(_ context.Context, subject string) error {
			if subject == "svc.admin" {
				return errors.New("secret: ann is not in sudoers")
			}
			return nil
		}),
		httpbridge.WithIdentity("castle", edgeKey()),
		httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{app}, Credentials: true}),
	}
}

func newCastle(t testing.TB, opts ...httpbridge.Option) *castle {
	t.Helper()
	c := &castle{seen: make(chan []string, 1)}
	m := endpoint.NewMux()
	m.Use(endpoint.OnServer(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, call *endpoint.Call) (any, error) {
			reply, err := next(ctx, call)
			began := err != nil && call.Spec.Kind.StreamsIn() // and ran until it asked for what was refused
			if endpoint.OutcomeOf(err) == endpoint.Executed && !began {
				c.ran.Add(1)
				var names []string
				for name := range call.Header.All() {
					names = append(names, name)
				}
				select {
				case c.seen <- names:
				default:
				}
			}
			return reply, err
		}
	}))
	run := func(context.Context, *addRequest) (*addResponse, error) { return &addResponse{}, nil }
	serve(t, m, "svc.admin", endpoint.New(run))
	serve(t, m, "svc.add", endpoint.New(add))
	serve(t, m, "svc.get", endpoint.New(add, endpoint.ReadOnly()))
	serve(t, m, "svc.count", endpoint.NewServerStream(count, endpoint.ReadOnly()))
	serve(t, m, "svc.total", endpoint.NewClientStream(total))
	serve(t, m, "svc.double", endpoint.NewBidiStream(double))
	serve(t, m, "svc.broken", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
		return nil, errors.New("secret: pq: password authentication failed")
	}))
	serve(t, m, "svc.panic", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) { panic("secret: nil map") }))
	c.site = start(t, m, append(everything(), opts...)...)
	return c
}

// leaks is what an answer must not have: of the inside of this process, and of others' data.
var leaks = regexp.MustCompile(`secret|goroutine|\.go:|panic|runtime error|postbus\.example|0x[0-9a-f]{6}`)

// refused asserts that nothing ran, and that the answer says what is wrong and no more.
func (c *castle) refused(t testing.TB, name string, r reply, status int) {
	t.Helper()
	if r.status != status {
		t.Errorf("%s: %d, want %d: %.200s", name, r.status, status, r.body)
	}
	if n := c.ran.Swap(0); n != 0 {
		t.Errorf("%s: %d calls ran", name, n)
	}
	if leaks.MatchString(r.body) {
		t.Errorf("%s: the answer says too much: %.200s", name, r.body)
	}
	var e endpoint.Error
	if err := json.Unmarshal([]byte(r.body), &e); r.body != "" && err != nil && !strings.HasPrefix(r.body, `{"jsonrpc":"2.0"`) {
		t.Errorf("%s: %v: %.200s", name, err, r.body)
	}
}

// bodies are what no endpoint for {"a":1,"b":2} may run with.
func bodies() map[string]string {
	const deep = 100_000
	return map[string]string{
		"100,000 levels of arrays":  strings.Repeat("[", deep) + strings.Repeat("]", deep),
		"100,000 levels of objects": strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep),
		"deep in a field":           `{"a":1,"x":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`,
		"open to the end":           strings.Repeat(`{"a":[`, deep),
		"NaN":                       `{"a":NaN}`,
		"Infinity":                  `{"a":-Infinity}`,
		"too large a number":        `{"a":1e999}`,
		"an integer that is none":   `{"a":1.5}`,
		"an integer too large":      `{"a":99999999999999999999}`,
		"hexadecimal":               `{"a":0x10}`,
		"a leading zero":            `{"a":01}`,
		"a string for a number":     `{"a":"1; DROP TABLE"}`,
		"an object for a number":    `{"a":{"$gt":0}}`,
		"invalid UTF-8":             "{\"a\":1,\"x\":\"\xff\"}",
		"an overlong slash":         "{\"a\":1,\"x\":\"\xc0\xaf\"}",
		"half a surrogate":          "{\"a\":1,\"x\":\"\xed\xa0\x80\"}",
		"a byte order mark":         "\xef\xbb\xbf{\"a\":1}",
		"UTF-16":                    "\xff\xfe{\x00}\x00",
		"a comment":                 `{"a":1}//`,
		"a trailing comma":          `{"a":1,}`,
		"two values":                `{"a":1}{"b":2}`,
		"single quotes":             `{'a':1}`,
		"half of it":                `{"a":1`,
		"a control character":       "{\"a\":1,\"x\":\"\x01\"}",
		"NUL":                       "\x00",
		"XML":                       `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>`,
		"a form":                    `a=1&b=2`,
		"an array":                  `[1,2]`,
		"nothing":                   ``,
	}
}

var good = []string{"Authorization", "Bearer good", "Content-Type", "application/json"}

func TestHostile_bodies(t *testing.T) {
	c := newCastle(t)
	for name, body := range bodies() {
		c.refused(t, name+", by subject", c.do(t, http.MethodPost, "/svc/add", body, good...), 400)
		c.refused(t, name+", packed", c.do(t, http.MethodPost, "/svc/add", zip(body), append(good, "Content-Encoding", "gzip")...), 400)
		if body != "" { // a route's fields are enough
			c.refused(t, name+", by route", c.do(t, http.MethodPut, "/v1/add/1?b=2", body, good...), 400)
		}
		r := c.do(t, http.MethodPost, "/rpc", `{"jsonrpc":"2.0","id":1,"method":"svc.add","params":`+body+`}`, good...)
		if name == "an array" { // is a list of the fields
			assert.Equal(t, c.ran.Swap(0), 1)
			continue
		}
		c.refused(t, name+", by JSON-RPC", r, 200)
		assert.Contains(t, r.body, `"error":{"code":-32`)
	}
	// One name twice: where the bridge merges, nobody wins; where it passes bytes through, the endpoint's codec decides. Its
	// default takes the last one, as encoding/json does; codec/jsonv2 refuses it, too.
	c.refused(t, "a name twice", c.do(t, http.MethodPut, "/v1/add/1", `{"b":1,"b":2}`, good...), 400)
	c.refused(t, "a name in path and body", c.do(t, http.MethodPut, "/v1/add/1", `{"a":2}`, good...), 400)
	c.refused(t, "a name twice in the query", c.do(t, http.MethodPut, "/v1/add/1?b=1&b=2", ``, good...), 400)
	assert.Equal(t, c.do(t, http.MethodPost, "/svc/add", `{"a":1,"a":2}`, good...).body, `{"sum":2}`)
}

func TestHostile_requests(t *testing.T) {
	c := newCastle(t)
	for name, q := range map[string]struct {
		method, path string
		status       int
		kv           []string // "-Name" takes one of the good ones away
	}{
		"text":                      {"POST", "/svc/add", 415, []string{"-Content-Type", "", "Content-Type", "text/plain"}},
		"a form":                    {"POST", "/svc/add", 415, []string{"-Content-Type", "", "Content-Type", "application/x-www-form-urlencoded"}},
		"parts":                     {"POST", "/svc/add", 415, []string{"-Content-Type", "", "Content-Type", "multipart/form-data; boundary=x"}},
		"no type":                   {"POST", "/svc/add", 415, []string{"-Content-Type", ""}},
		"two types":                 {"POST", "/svc/add", 415, []string{"Content-Type", "application/json"}},
		"text that says JSON":       {"POST", "/svc/add", 415, []string{"-Content-Type", "", "Content-Type", "text/plain; application/json"}},
		"text for a batch":          {"POST", "/rpc", 415, []string{"-Content-Type", "", "Content-Type", "text/plain"}},
		"text for a route":          {"PUT", "/v1/add/1", 415, []string{"-Content-Type", "", "Content-Type", "text/plain"}},
		"another method":            {"DELETE", "/svc/add", 405, nil},
		"a method that is none":     {"BREW", "/svc/add", 405, nil},
		"TRACE":                     {"TRACE", "/svc/add", 405, nil},
		"GET for a batch":           {"GET", "/rpc", 405, nil},
		"GET of what changes":       {"GET", "/svc/add?a=1", 405, nil},
		"a method in a header":      {"GET", "/svc/add", 405, []string{"X-HTTP-Method-Override", "POST"}},
		"a path in a header":        {"POST", "/nope", 404, []string{"X-Original-URL", "/svc/add", "X-Rewrite-URL", "/svc/add"}},
		"a route's parent":          {"PUT", "/v1/add/../../svc/add", 404, nil},
		"a route's slash":           {"PUT", "/v1/add//", 404, nil},
		"not exposed":               {"POST", "/other/add", 404, nil},
		"not allowed":               {"POST", "/svc/admin", 403, nil},
		"nobody":                    {"POST", "/svc/add", 401, []string{"-Authorization", ""}},
		"nobody with a batch":       {"POST", "/rpc", 401, []string{"-Authorization", ""}},
		"nobody with a route":       {"PUT", "/v1/add/1", 401, []string{"-Authorization", ""}},
		"nobody with an identity":   {"POST", "/svc/add", 401, []string{"-Authorization", "", "Postbus-Identity", "a.b.c", "X-User", "root"}},
		"nobody from this machine":  {"POST", "/svc/add", 401, []string{"-Authorization", "", "X-Forwarded-For", "127.0.0.1", "X-Real-Ip", "::1"}},
		"another's token":           {"POST", "/svc/add", 401, []string{"-Authorization", "", "Authorization", "Bearer bad"}},
		"a page of another origin":  {"POST", "/svc/add", 403, []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}},
		"a batch of another origin": {"POST", "/rpc", 403, []string{"Origin", "https://evil.example"}},
		"a route of another origin": {"PUT", "/v1/add/1", 403, []string{"Origin", "null"}},
		"a preflight of another":    {"OPTIONS", "/svc/add", 403, []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"}},
		"an unknown encoding":       {"POST", "/svc/add", 501, []string{"Content-Encoding", "br"}},
		"no gzip":                   {"POST", "/svc/add", 400, []string{"Content-Encoding", "gzip"}},
		"a deadline that is none":   {"POST", "/svc/add", 400, []string{"Connect-Timeout-Ms", "1e9"}},
		"large headers":             {"POST", "/svc/add", 431, []string{"X-Large", strings.Repeat("x", 9<<10)}},
		"a long value in the path":  {"GET", "/v1/add/" + strings.Repeat("1", 9<<10) + "/2", 414, []string{"-Content-Type", ""}},
		"an injection in the path":  {"GET", "/v1/add/1%27%20OR%20%271/2", 400, []string{"-Content-Type", ""}},
	} {
		body := `{"a":1}`
		if q.method == http.MethodGet || q.method == http.MethodOptions || q.method == http.MethodTrace {
			body = ""
		}
		r := c.do(t, q.method, q.path, body, headers(q.kv)...)
		c.refused(t, name, r, q.status)
		if strings.Contains(name, "origin") || strings.Contains(name, "preflight") {
			assert.Equal(t, r.header.Get("Access-Control-Allow-Origin")+r.header.Get("Access-Control-Allow-Credentials"), "", name)
		}
	}
	for _, path := range []string{"/svc/broken", "/svc/panic"} { // what fails inside tells nobody why
		r := c.do(t, http.MethodPost, path, `{}`, good...)
		c.ran.Store(0)
		c.refused(t, path, r, 500)
	}
}

// headers are the good ones, changed.
func headers(change []string) []string {
	away := map[string]bool{}
	var kv []string
	for i := 0; i < len(change); i += 2 {
		if name, ok := strings.CutPrefix(change[i], "-"); ok {
			away[name] = true
			continue
		}
		kv = append(kv, change[i], change[i+1])
	}
	for i := 0; i < len(good); i += 2 {
		if !away[good[i]] {
			kv = append(kv, good[i], good[i+1])
		}
	}
	return kv
}

// TestHostile_headers lets a call through, and nothing of what belongs to the bus, the connection or this bridge.
func TestHostile_headers(t *testing.T) {
	c := newCastle(t)
	smuggled := append([]string{
		"Postbus-Identity", "forged", "postbus-identity", "forged", "Nats-Msg-Id", "1", "nats-rollup", "all", "Rpc-Timeout", "1n", "RPC-Stream", "1", "Rpc-Ack", "$SYS.x",
		"Status", "503", "Description", "No Responders", "Grpc-Timeout", "1n", "Trailer-X", "x", "Access-Control-Allow-Origin", "*", "X-Fine", "yes", "X-API-Key", "k",
	}, good...)
	for _, ask := range []func() reply{
		func() reply { return c.do(t, http.MethodPost, "/svc/add", `{"a":1}`, smuggled...) },
		func() reply { return c.do(t, http.MethodPut, "/v1/add/1", `{}`, smuggled...) },
		func() reply {
			return c.do(t, http.MethodPost, "/rpc", `[{"jsonrpc":"2.0","id":1,"method":"svc.add","params":{"a":1}}]`, smuggled...)
		},
	} {
		r := ask()
		assert.Equal(t, r.status, 200, r.body)
		assert.Equal(t, c.ran.Swap(0), 1)
		identities := 0
		for _, name := range <-c.seen {
			switch name {
			case "Postbus-Identity":
				identities++
			case "X-Fine", "User-Agent":
			default:
				t.Errorf("header %s passed", name)
			}
		}
		assert.Equal(t, identities, 1)
	}
	for name, line := range map[string]string{
		"CR in a value": "X-A: a\rEvil: 1", "NUL in a value": "X-A: a\x00b", "LF in a name": "X-A\nEvil: 1", "a space before the colon": "X-A : 1",
		"a name that is none": "X A: 1", "no name": ": 1", "two lengths": "Content-Length: 7\r\nContent-Length: 2", "a negative length": "Content-Length: -7",
		"an encoding that is none": "Transfer-Encoding: gzip, chunked", "chunked twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
	} {
		head := "POST /svc/add HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Type: application/json\r\n"
		if !strings.Contains(line, "Content-Length") && !strings.Contains(line, "Transfer") {
			head += "Content-Length: 7\r\n"
		}
		status, err := raw(c.site, head+line+"\r\n\r\n"+`{"a":1}`)
		assert.NoError(t, err, name)
		assert.True(t, status == 400 || status == 501, name)
		assert.Equal(t, c.ran.Swap(0), 0, name)
	}
}

// streams are ways to ask for streams.
var streams = map[string]struct{ path, mediaType, accept string }{
	"Connect":                {"/svc/count", "application/connect+json", ""},
	"Connect, up":            {"/svc/total", "application/connect+json", ""},
	"Connect, up, of binary": {"/svc/total", "application/connect+cbor", ""},
	"events":                 {"/svc/count", "application/json", "text/event-stream"},
	"lines":                  {"/svc/count", "application/json", "application/x-ndjson"},
	"lines, up":              {"/svc/total", "application/x-ndjson", ""},
}

// TestHostile_streams refuses strangers in each protocol, under a status of HTTP, before anything is read.
func TestHostile_streams(t *testing.T) {
	c := newCastle(t)
	for name, s := range streams {
		for why, q := range map[string]struct {
			status int
			kv     []string
		}{
			"nobody":   {401, []string{"-Authorization", "", "Postbus-Identity", "a.b.c"}},
			"a page":   {403, []string{"Origin", "https://evil.example"}},
			"headers":  {431, []string{"X-Large", strings.Repeat("x", 9<<10)}},
			"deadline": {400, []string{"Connect-Timeout-Ms", "never"}},
		} {
			kv := slices.Concat(q.kv, []string{"-Content-Type", "", "Content-Type", s.mediaType})
			if s.accept != "" {
				kv = append(kv, "Accept", s.accept)
			}
			r := c.do(t, http.MethodPost, s.path, "", headers(kv)...)
			want := q.status
			if status, told := verdict(r); told { // Connect's clients look for it in the last envelope, where it has a code and no status
				assert.Equal(t, r.status, 200)
				r.status, r.body = status, ""
				if want == 431 {
					want = 400
				}
			}
			c.refused(t, name+", "+why, r, want)
		}
	}
	c.refused(t, "GET, nobody", c.do(t, http.MethodGet, "/svc/get?connect=v1&encoding=json&message=%7B%7D", ""), 401)
	c.refused(t, "EventSource, nobody", c.do(t, http.MethodGet, "/svc/count?message=%7B%7D", "", "Accept", "text/event-stream"), 401)
}

// verdict reads the error out of the last envelope of Connect's streams.
func verdict(r reply) (status int, ok bool) {
	if !strings.HasPrefix(r.header.Get("Content-Type"), "application/connect+") {
		return 0, false
	}
	at := strings.LastIndex(r.body, `{"error":`)
	if at < 0 {
		return 200, true
	}
	var end struct {
		Error endpoint.Error `json:"error"`
	}
	if json.Unmarshal([]byte(r.body[at:]), &end) != nil {
		return 0, false
	}
	return end.Error.Code.Status(), true
}

// TestHostile_messages gives streams what is no message. An endpoint of many requests runs already, and gets none of it.
func TestHostile_messages(t *testing.T) {
	c := newCastle(t)
	connect := func(path, body string, kv ...string) reply {
		return c.do(t, http.MethodPost, path, body, append([]string{"Authorization", "Bearer good", "Content-Type", "application/connect+json"}, kv...)...)
	}
	for name, body := range map[string]string{
		"nothing": "", "half a head": "\x00\x00", "half a message": "\x00\x00\x00\x00\x09{}", "4 GiB": "\x00\xff\xff\xff\xff{}",
		"a flag of nobody": enveloped(frame{0x80, "{}"}), "compressed, unsaid": enveloped(frame{1, zip("{}")}), "the server's end": enveloped(frame{2, "{}"}),
		"no JSON": enveloped(frame{0, "{"}), "not UTF-8": enveloped(frame{0, "{\"n\":1,\"x\":\"\xff\"}"}), "NaN": enveloped(frame{0, `{"n":NaN}`}),
		"deep": enveloped(frame{0, strings.Repeat("[", 100_000)}), "too large": enveloped(frame{0, strings.Repeat(" ", 1<<20) + "{}"}),
	} {
		for _, path := range []string{"/svc/count", "/svc/total"} {
			if path == "/svc/total" && name == "nothing" {
				continue // no request at all is a sum of none
			}
			r := connect(path, body)
			status, ok := verdict(r)
			unsaid := name == "compressed, unsaid" && status == 500 // as Connect's conformance suite has it
			assert.True(t, ok && status >= 400 && (status < 500 || status == 501 || unsaid), name, path, r.body)
			c.refused(t, name+", "+path, reply{status: status}, status)
			assert.True(t, !leaks.MatchString(r.body), r.body)
		}
	}
	bomb := enveloped(frame{1, zip(strings.Repeat(" ", 2<<20))})
	for _, path := range []string{"/svc/count", "/svc/total"} {
		status, _ := verdict(connect(path, bomb, "Connect-Content-Encoding", "gzip"))
		c.refused(t, "a bomb, "+path, reply{status: status}, 429) // resource_exhausted
	}
	for name, body := range map[string]string{
		"no JSON": "{\n", "not UTF-8": "{\"n\":1,\"x\":\"\xff\"}\n", "deep": strings.Repeat("[", 100_000) + "\n", "NaN": "{\"n\":NaN}\n", "a second one": "{\"n\":1}\nx\n",
	} {
		r := c.do(t, http.MethodPost, "/svc/total", body, "Authorization", "Bearer good", "Content-Type", "application/x-ndjson")
		c.refused(t, "lines, "+name, r, 400)
	}
	r := c.do(t, http.MethodPost, "/svc/total", strings.Repeat(" ", 2<<20)+"{}\n", "Authorization", "Bearer good", "Content-Type", "application/x-ndjson")
	c.refused(t, "a line of 2 MiB", r, 413)
	for name, body := range bodies() {
		if name == "an array" {
			continue // of no endpoint here
		}
		r := c.do(t, http.MethodPost, "/svc/count", strings.ReplaceAll(body, `"a"`, `"n"`), append(good, "Accept", "text/event-stream")...)
		c.refused(t, "events, "+name, r, 400)
	}
}

// endless is a body that is as long as it is read.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.read.Add(int64(len(p)))
	return len(p), nil
}

// flood sends a body in chunks, and reads the answer while it does: an http.Client may see no more than a connection that is reset.
func (c *castle) flood(t testing.TB, path string, body io.Reader, headers ...string) reply {
	t.Helper()
	conn, err := net.Dial("tcp", c.Listener.Addr().String())
	assert.NoError(t, err)
	var head strings.Builder
	fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n", path)
	headers = append(headers, good...)
	for i := 0; i < len(headers); i += 2 {
		fmt.Fprintf(&head, "%s: %s\r\n", headers[i], headers[i+1])
	}
	_, err = io.WriteString(conn, head.String()+"\r\n")
	assert.NoError(t, err)
	done := make(chan error)
	go func() {
		_, err := io.Copy(httputil.NewChunkedWriter(conn), body)
		done <- err
	}()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	assert.NoError(t, err)
	text, err := io.ReadAll(r.Body)
	assert.NoError(t, err)
	assert.NoError(t, conn.Close())
	<-done // with whatever error
	return reply{status: r.StatusCode, body: string(text), header: r.Header}
}

// TestHostile_sizes has bodies of a gigabyte, said, sent and packed: none costs us more than the limit.
func TestHostile_sizes(t *testing.T) {
	c := newCastle(t)
	const limit, giga = 1 << 20, 1 << 30
	bomb := strings.Repeat(zip(strings.Repeat(" ", limit)), giga/limit) // members of gzip follow each other (RFC 1952, 2.2)
	assert.True(t, len(bomb) > limit)
	small := strings.Repeat(zip(strings.Repeat(" ", limit)), limit/2000)
	for _, path := range []string{"/svc/add", "/rpc"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := http.NewRequest(http.MethodPost, c.URL+path, io.LimitReader(&endless{}, giga))
		assert.NoError(t, err)
		r.ContentLength = giga
		r.Header.Set("Expect", "100-continue")
		for i := 0; i < len(good); i += 2 {
			r.Header.Set(good[i], good[i+1])
		}
		c.refused(t, "said", c.send(t, r), 413)
		c.refused(t, "chunked", c.flood(t, path, &endless{}), 413)
		c.refused(t, "packed", c.do(t, http.MethodPost, path, small, append(good, "Content-Encoding", "gzip")...), 413)
		c.refused(t, "packed, too large by itself", c.flood(t, path, strings.NewReader(bomb), "Content-Encoding", "gzip"), 413)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 64*limit {
			t.Errorf("%s: %d bytes were allocated", path, grown)
		}
	}
}

// TestHostile_slow has clients that send a byte now and then, or none: of the headers, of the body, after a call.
func TestHostile_slow(t *testing.T) {
	m := newMux(t)
	b := httpbridge.New(m, httpbridge.Expose("svc.*"), httpbridge.WithTimeouts(httpbridge.Timeouts{
		Header: 50 * time.Millisecond, Body: 50 * time.Millisecond, Idle: 50 * time.Millisecond, Write: 50 * time.Millisecond,
	}))
	server := b.Server("127.0.0.1:0")
	l, err := net.Listen("tcp", server.Addr)
	assert.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	for name, start := range map[string]string{
		"nothing":       "",
		"half a line":   "POST /svc/a",
		"half a header": "POST /svc/add HTTP/1.1\r\nHost: x\r\nX-A: ",
		"no body":       "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
		"a chunk":       "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
		"a call":        "POST /svc/ping HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/2":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		assert.NoError(t, err)
		_, err = conn.Write([]byte(start))
		assert.NoError(t, err)
		assert.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err = io.Copy(io.Discard, conn) // until the server hangs up
		if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
			t.Errorf("%s: the connection is still open", name)
		}
		assert.NoError(t, conn.Close())
	}
	assert.NoError(t, server.Shutdown(t.Context()))
	assert.ErrorIs(t, <-done, http.ErrServerClosed)
}

// TestHostile_replies are of a service that can't be trusted: what no client could read is not sent on.
func TestHostile_replies(t *testing.T) {
	for name, p := range map[string]codec.Payload{
		"a type with a line break": {MediaType: "text/html\r\nSet-Cookie: a=b", Data: []byte("{}")},
		"a type that is none":      {MediaType: "<script>", Data: []byte("{}")},
	} {
		s := start(t, script{func(context.Context, string) (*codec.Payload, error) { return &p, nil }}, httpbridge.Expose("svc.x"))
		r := s.post(t, "/svc/x", `{}`)
		assert.Equal(t, r.status, 200, name)
		assert.Equal(t, r.header.Get("Content-Type"), "application/json", name)
		assert.Equal(t, r.header.Get("Set-Cookie"), "", name)
		assert.Equal(t, r.header.Get("X-Content-Type-Options"), "nosniff")
		assert.True(t, bytes.Equal([]byte(r.body), p.Data))
	}
}
