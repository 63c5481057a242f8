package wire_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files, which docs/protocol.md quotes")

const (
	inbox    = "_INBOX.PXCQZ4TB7VWHJ2KLM5N6RYDAEF."
	question = `{"a":1,"b":2}`
	sampled  = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	trace    = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

// full says everything that a request can say.
var full = wire.Request{
	HasTimeout: true, Timeout: 1500 * time.Millisecond, HasSent: true, Sent: 1767225600123, MediaType: "application/proto",
	Ack: true, Tell: true, Trace: trace, Attempt: 2, Stream: "server", Window: wire.DefaultGrant(), Heartbeat: 15 * time.Second,
	MaxReply: 64 << 20, TakesS2: true,
}

func tokenOf(r *wire.Request) string {
	return string(wire.AppendToken(wire.AppendID(nil, 7, 0x0123456789abcdef), r))
}

// message writes one message as it stands on the wire, without the lengths, its headers in order.
func message(verb, subject string, h wire.Headers, body []byte) string {
	var b strings.Builder
	b.WriteString(verb + " " + subject + "\n")
	if h != nil {
		b.WriteString("NATS/1.0\n")
		for _, name := range slices.Sorted(maps.Keys(h)) {
			for _, v := range h[name] {
				b.WriteString(name + ": " + v + "\n")
			}
		}
	}
	if len(body) > 0 {
		fmt.Fprintf(&b, "\n%s\n", body)
	}
	return b.String()
}

func failure(t testing.TB, e *endpoint.Error) string {
	t.Helper()
	h := wire.Headers{}
	body, err := wire.WriteError(h, e)
	assert.NoError(t, err)
	return message("HPUB", inbox+tokenOf(&wire.Request{}), h, body)
}

// verdicts is an error of each code, as a handler would author it.
var verdicts = []*endpoint.Error{
	endpoint.Canceled.New("the order was withdrawn"),
	endpoint.Unknown.New(""),
	endpoint.InvalidArgument.New("b: want a number, got \"two\""),
	endpoint.DeadlineExceeded.New("the warehouse took too long"),
	endpoint.NotFound.New("no order 4711"),
	endpoint.AlreadyExists.New("order 4711 exists"),
	endpoint.PermissionDenied.New("order 4711 belongs to another customer"),
	endpoint.ResourceExhausted.New("100 orders a day are allowed"),
	endpoint.FailedPrecondition.New("13 is unlucky"),
	endpoint.Aborted.New("order 4711 was changed by another"),
	endpoint.OutOfRange.New("page 9 of 8"),
	endpoint.Unimplemented.New("orders can't be merged yet"),
	endpoint.Internal.New(""),
	endpoint.Unavailable.New("the warehouse is closed for stock-taking"),
	endpoint.DataLoss.New("order 4711 can't be read back"),
	endpoint.Unauthenticated.New("who are you?"),
}

func goldens(t testing.TB) map[string]string {
	t.Helper()
	var errs []string
	for _, e := range verdicts {
		errs = append(errs, failure(t, e.WithOutcome(endpoint.Executed)))
	}
	ours := &wire.Request{HasTimeout: true, Timeout: 2 * time.Second, HasSent: true, Sent: 1767225600123, MediaType: wire.JSONType, Ack: true}
	replyTo := inbox + tokenOf(ours)
	twins := wire.Headers{}
	wire.WriteRequest(twins, &full)
	opens := wire.Headers{}
	wire.WriteRest(opens, &wire.Request{Stream: wire.StreamServer, Window: wire.DefaultGrant(), Heartbeat: wire.DefaultHeartbeat})
	large := wire.Headers{}
	wire.WriteRest(large, &wire.Request{Size: 32 << 20, Encoding: wire.S2})
	sparse := wire.Headers{wire.TraceParent: {sampled}}
	wire.WriteRest(sparse, &wire.Request{Attempt: 1})
	return map[string]string{
		"request_plain": message("PUB", "svc.add _INBOX.Jq3nYbV0mTf7uHkz2wRxLc.Zk4pN8sD", nil, []byte(question)),
		"request_token": message("PUB", "svc.add "+replyTo, nil, []byte(question)),
		"request_token_full": message("PUB", "svc.add "+inbox+tokenOf(&full), nil,
			[]byte("\\x08\\x01\\x10\\x02")),
		"request_retry":   message("HPUB", "svc.add "+replyTo, sparse, []byte(question)),
		"request_headers": message("HPUB", "svc.add "+inbox+string(wire.AppendID(nil, 7, 0x0123456789abcdef)), twins, []byte("\\x08\\x01\\x10\\x02")),
		"reply_success":   message("PUB", replyTo, nil, []byte(`{"sum":3}`)),
		"reply_instance": message("HPUB", inbox+tokenOf(&wire.Request{Tell: true}), wire.Headers{
			wire.Instance: {instance}, wire.ContentType: {"text/csv"}, "X-Rows": {"1"},
		}, []byte("sum,3")),
		"reply_errors": strings.Join(errs, "\n"),
		"reply_details": failure(t, endpoint.ResourceExhausted.New("no more than 100 orders a day").
			With(quota{Limit: 100}, endpoint.Detail{Type: "acme.Blob", Value: []byte{0xff, 0}}).WithOutcome(endpoint.Executed)),
		"reply_refused": failure(t, endpoint.ResourceExhausted.New("the service is at its limit").
			WithRetryAfter(250*time.Millisecond).WithReason(endpoint.ReasonBacklogFull).WithOutcome(endpoint.NotExecuted)),
		"reply_no_retry": failure(t, endpoint.Unavailable.New("closed for good").
			WithRetryAfter(-1).WithOutcome(endpoint.Executed)),
		"reply_foreign": message("HPUB", "_INBOX.Jq3nYbV0mTf7uHkz2wRxLc.Zk4pN8sD", wire.Headers{
			wire.ServiceError: {"no such order"}, wire.ServiceCode: {"404"},
		}, nil),
		"ack":     message("HPUB", replyTo+" "+controlled, wire.WriteAck(instance), nil),
		"cancel":  message("HPUB", controlled, wire.WriteControl(wire.VerbCancel), others("00vL8bWQ3kZ", "Ae2Yt7uPq0x")),
		"ping":    message("HPUB", controlled+" "+probe, wire.WriteControl(wire.VerbPing), others("00vL8bWQ3kZ", "Ae2Yt7uPq0x")),
		"beat":    message("HPUB", probe, wire.WriteControl(wire.VerbBeat), others("Ae2Yt7uPq0x")),
		"unknown": message("HPUB", probe, wire.WriteControl(wire.VerbUnknown), nil),
		"batch_request": message("PUB", "svc.add.~f "+frameTo, nil, entries(tokenOf(ours), question,
			string(wire.AppendToken([]byte(another), ours)), `{"a":3,"b":4}`)),
		"batch_reply":    message("PUB", frameTo, nil, entries(another, `{"sum":7}`, "0007063UfDVRKBz", `{"sum":3}`)),
		"batch_failed":   message("HPUB", frameTo, entryFailed(t), []byte(`{"code":"failed_precondition","message":"13 is unlucky"}`)),
		"stream_request": message("HPUB", "svc.tail "+streamTo, opens, []byte(`{"lines":10}`)),
		"stream_open":    message("HPUB", streamTo+" "+controlled, wire.WriteOpen(instance), nil),
		"stream_item":    message("HPUB", streamTo, wire.WriteItem(1, ""), []byte(`{"line":"GET /"}`)),
		"stream_upload":  message("HPUB", controlled, wire.WriteItem(1, "text/csv"), []byte("7,12")),
		"stream_window":  message("HPUB", controlled, wire.WriteWindow(wire.Grant{Messages: 96, Bytes: 270_336}), nil),
		"stream_beat":    message("HPUB", streamTo+" "+controlled, wire.WriteBeat(32, wire.Grant{}), nil),
		"stream_listens": message("HPUB", controlled+" "+streamTo, wire.WriteBeat(0, wire.Grant{Messages: 96, Bytes: 270_336}), nil),
		"stream_half":    message("HPUB", controlled, wire.WriteHalf(3), nil),
		"stream_end":     message("HPUB", streamTo, end(t, 3, nil, "Lines", "3"), nil),
		"stream_failed":  message("HPUB", streamTo, end(t, 32, errStream), nil),
		"large_request":  message("HPUB", "svc.put "+largeTo, large, nil),
		"large_open":     message("HPUB", largeTo+" "+controlled, wire.WriteOpen(instance), nil),
		"large_chunk":    message("HPUB", controlled, wire.WriteItem(1, ""), []byte("... 131072 bytes ...")),
		"large_window":   message("HPUB", largeTo, wire.WriteWindow(wire.Grant{Messages: 2052, Bytes: 1_572_864}), nil),
		"large_reply":    message("HPUB", largeTo+" "+controlled, announcement(), nil),
		"large_accept":   message("HPUB", controlled+" "+inbox+"0007063UfDVRKBz", wire.WriteWindow(wire.ChunkGrant()), nil),
		"large_piece":    message("HPUB", inbox+"0007063UfDVRKBz", wire.WriteItem(1, ""), []byte("... 131072 bytes ...")),
		"no_responders":  "HMSG " + replyTo + "\nNATS/1.0 503\nNats-Subject: svc.add\n",
		"pub_ack":        message("MSG", replyTo, nil, []byte(`{"stream":"AUDIT","seq":42}`)),
	}
}

// What frames about one call are about: a call, the instance that has it, and who asks for it.
const (
	instance   = "7QJ4KZT2MB5XWNVC3HRD6PYAFE"
	controlled = "_RPC.svc." + instance + ".c.5kD09aXcQ2n"
	probe      = inbox + "0003Kd82hzPqW0a"
)

// Where the caller of a stream listens, and how one fails.
const streamTo = inbox + "0007063UfDVRKBz~smjuohs3f"

var errStream = endpoint.ResourceExhausted.New("no more than 100 lines a day").With(quota{Limit: 100}).WithOutcome(endpoint.Executed)

func end(t testing.TB, count uint64, e *endpoint.Error, trailers ...string) wire.Headers {
	t.Helper()
	h, trailer := wire.Headers{}, endpoint.Header{}
	for i := 0; i < len(trailers); i += 2 {
		trailer.Add(trailers[i], trailers[i+1])
	}
	assert.NoError(t, wire.WriteEnd(h, count, e, &trailer))
	return h
}

// largeTo is where the caller of a call with large messages listens.
const largeTo = inbox + "0007063UfDVRKBz~d10000m~smjuohs3f~mr~a1~z13ydj4"

func announcement() wire.Headers {
	h := wire.Headers{"X-Rows": {"1"}}
	wire.WriteAnnouncement(h, instance, 48<<20, "")
	return h
}

// frameTo is where the caller of a batch frame listens.
const frameTo = inbox + "0009Nq3vYb0mTf7~a1"

// another is the id of a second call in it.
const another = "000805IYa44G9v0"

// entries is a frame of names and bodies, as Go writes what can't be shown.
func entries(pairs ...string) []byte {
	var text []byte
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			text = append(text, '\n')
		}
		quoted := strconv.Quote(string(wire.AppendEntry(nil, pairs[i], []byte(pairs[i+1]))))
		text = append(text, strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)...)
	}
	return text
}

func entryFailed(t testing.TB) wire.Headers {
	t.Helper()
	h := wire.Headers{wire.EntryHeader: {"0007063UfDVRKBz"}}
	_, err := wire.WriteError(h, endpoint.FailedPrecondition.New("13 is unlucky"))
	assert.NoError(t, err)
	return h
}

func others(calls ...string) (body []byte) {
	for _, call := range calls {
		body = wire.AppendCalls(body, call)
	}
	return body
}

// quota is a detail with a name of its own.
type quota struct {
	Limit int `json:"limit"`
}

func (quota) DetailName() string { return "orders.Quota" }

func TestGoldenFiles(t *testing.T) {
	want := goldens(t)
	for name, got := range want {
		file := filepath.Join("testdata", name+".golden")
		if *update {
			assert.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			continue
		}
		data, err := os.ReadFile(file)
		assert.NoError(t, err)
		assert.Equal(t, got, string(data), name)
	}
	files, err := filepath.Glob("testdata/*.golden")
	assert.NoError(t, err)
	assert.Equal(t, len(files), len(want), "files and cases")
}

// TestGoldenFilesNameEveryHeader reads the table of headers from the source, so that none can be added without a golden
// file, and with that without documentation.
func TestGoldenFilesNameEveryHeader(t *testing.T) {
	text := strings.Join(slices.Collect(maps.Values(goldens(t))), "\n")
	headers := headerConstants(t)
	assert.True(t, len(headers) >= 15, "the table of headers was found")
	for _, name := range headers {
		if !strings.Contains(text, "\n"+name+": ") {
			t.Errorf("header %s stands in no golden file", name)
		}
	}
}

// headerConstants returns the values of the first group of constants in wire.go.
func headerConstants(t testing.TB) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "wire.go", nil, parser.SkipObjectResolution)
	assert.NoError(t, err)
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		var values []string
		for _, s := range g.Specs {
			v, err := strconv.Unquote(s.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
			assert.NoError(t, err)
			values = append(values, v)
		}
		return values
	}
	return nil
}

// parse reads a message of a golden file with the parser of nats.go.
func parse(t testing.TB, text string) (subject string, h wire.Headers, body []byte) {
	t.Helper()
	head, rest, _ := strings.Cut(text, "\n\n")
	line, block, _ := strings.Cut(strings.TrimSuffix(head, "\n"), "\n")
	if block != "" {
		decoded, err := nats.DecodeHeadersMsg([]byte(strings.ReplaceAll(block, "\n", "\r\n") + "\r\n\r\n"))
		assert.NoError(t, err)
		h = wire.Headers(decoded)
	}
	_, subject, _ = strings.Cut(line, " ")
	return subject, h, []byte(strings.TrimSuffix(rest, "\n"))
}

func golden(t testing.TB, name string) (subject string, h wire.Headers, body []byte) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".golden"))
	assert.NoError(t, err)
	return parse(t, string(data))
}

// TestGoldenRequestsAreRead holds the reader against what the files say.
func TestGoldenRequestsAreRead(t *testing.T) {
	withoutRest := full
	withoutRest.Attempt, withoutRest.Stream, withoutRest.Own = 0, "", true
	withoutRest.Window, withoutRest.Heartbeat = wire.Grant{}, 0
	own := wire.Request{Own: true, HasTimeout: true, Timeout: 2 * time.Second, HasSent: true, Sent: 1767225600123, Ack: true}
	retried := own
	retried.Attempt, retried.Trace = 1, sampled
	for name, want := range map[string]wire.Request{
		"request_plain":      {},
		"request_token":      own,
		"request_token_full": withoutRest,
		"request_retry":      retried,
		"request_headers":    full,
		"stream_request": {
			Own: true, HasSent: true, Sent: 1767225600123, Stream: wire.StreamServer, Window: wire.DefaultGrant(), Heartbeat: wire.DefaultHeartbeat,
		},
	} {
		subject, h, _ := golden(t, name)
		var got wire.Request
		assert.True(t, wire.ParseToken(subject[strings.LastIndexByte(subject, '.')+1:], &got) == nil, name)
		var app endpoint.Header
		if err := wire.ReadRequest(h, &got, &app); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		assert.Equal(t, got, want, name)
	}
}

func TestGoldenRepliesAreRead(t *testing.T) {
	for name, want := range map[string]*endpoint.Error{
		"reply_success": nil,
		"reply_refused": endpoint.ResourceExhausted.New("the service is at its limit").WithRetryAfter(250 * time.Millisecond).
			WithReason("backlog_full").WithOutcome(endpoint.NotExecuted).AsRemote(),
		"reply_no_retry": endpoint.Unavailable.New("closed for good").WithRetryAfter(-time.Second).
			WithOutcome(endpoint.Executed).AsRemote(),
		"reply_details": endpoint.ResourceExhausted.New("no more than 100 orders a day").
			With(quota{100}, endpoint.Detail{Type: "acme.Blob", Value: []byte{0xff, 0}}).WithOutcome(endpoint.Executed).AsRemote(),
		"reply_foreign": endpoint.NotFound.New("no such order").WithOutcome(endpoint.Executed).AsRemote(),
		"no_responders": endpoint.Unavailable.New("nobody serves svc.add").WithReason("no_responders").WithOutcome(endpoint.NotExecuted),
	} {
		_, h, body := golden(t, name)
		var app endpoint.Header
		assert.Equal(t, wire.ReadReply(h, body, &app).Err, want, name)
		assert.Equal(t, app.Len(), 0, name)
	}

	_, h, body := golden(t, "reply_instance")
	var app endpoint.Header
	assert.Equal(t, wire.ReadReply(h, body, &app), wire.Reply{MediaType: "text/csv", Instance: instance})
	assert.Equal(t, app.Get("x-rows"), "1")

	_, h, body = golden(t, "pub_ack")
	assert.True(t, h == nil && wire.IsPubAck(body), "is a PubAck")
}

// TestGoldenErrorsAreRead reads each of the sixteen back.
func TestGoldenErrorsAreRead(t *testing.T) {
	data, err := os.ReadFile("testdata/reply_errors.golden")
	assert.NoError(t, err)
	texts := strings.Split(string(data), "\nHPUB")
	assert.Equal(t, len(texts), 16)
	for i, want := range verdicts {
		_, h, body := parse(t, texts[i])
		var app endpoint.Header
		assert.Equal(t, wire.ReadReply(h, body, &app).Err, want.WithOutcome(endpoint.Executed).AsRemote())
		assert.Equal(t, want.Code, endpoint.Code(i+1))
	}
}
