package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postbus.example/internal/assert"
)

// said is one line of words.mjs: what came of one call.
type said struct {
	Step     string
	Values   []any
	Code     string // of the error, "" if there was none
	Message  string
	Details  []string
	Out, End string // metadata of the reply
}

// The official clients in JavaScript: for Node over HTTP/1.1 and HTTP/2, and the one for browsers with Node's fetch, in each of the
// protocols and encodings.
func TestConnectES(t *testing.T) {
	t.Parallel()
	url, schema := words(t), descriptors(t)
	for _, how := range []string{
		"node connect 1.1 json", "node connect 1.1 binary", "node connect 2 json", "node connect 2 binary",
		"node grpc 2 json", "node grpc 2 binary", "node grpc-web 1.1 json", "node grpc-web 2 binary",
		"web connect 1.1 json", "web connect 1.1 binary", "web grpc-web 1.1 binary",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := startScript(t, "words.mjs", append([]string{url, schema}, strings.Fields(how)...)...)
			got := map[string]said{}
			var line said
			for s.next(t, &line) {
				got[line.Step], line = line, said{}
			}
			s.stop(t)
			uploads := strings.HasPrefix(how, "node") // a browser can't send a stream
			both := uploads && strings.Contains(how, " 2 ")
			check(t, got, uploads, both)
		})
	}
}

func check(t *testing.T, got map[string]said, uploads, both bool) {
	t.Helper()
	bye := said{Out: "hello", End: "bye"}
	want := map[string]said{
		"unary":         {Values: []any{"WORD"}},
		"get":           {Values: []any{"WORD"}},
		"large":         {Values: []any{float64(200_000)}},
		"failure":       {Code: "failed_precondition", Message: "13 is unlucky", Details: []string{"triskaidekaphobia"}},
		"late":          {Code: "deadline_exceeded"},
		"missing":       {Code: "unimplemented"},
		"server stream": {Values: []any{"a", "b", "c"}},
		"broken stream": {Values: []any{"a", "b"}, Code: "failed_precondition", Message: "13 is unlucky", Details: []string{"triskaidekaphobia"}},
	}
	if uploads {
		want["client stream"] = said{Values: []any{"some words"}}
	}
	if both {
		want["bidi stream"] = said{Values: []any{"1", "2", "3"}}
	}
	for step, w := range want {
		g, ok := got[step]
		assert.True(t, ok, step)
		assert.Equal(t, g.Values, w.Values, step)
		assert.Equal(t, g.Code, w.Code, step, g.Message)
		if w.Message != "" {
			assert.Equal(t, g.Message, w.Message, step)
		}
		assert.Equal(t, g.Details, w.Details, step)
		if w.Code == "" {
			assert.Equal(t, said{Out: g.Out, End: g.End}, bye, step)
		}
	}
	assert.Equal(t, len(got), len(want))
}

// grpcurl is gRPC's curl, on the Go client of gRPC.
func TestGrpcurl(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("grpcurl")
	if err != nil {
		t.Skip("skipped: grpcurl is not installed; ./run builds it")
	}
	url := words(t)
	call := func(method, data string, opts ...string) string {
		t.Helper()
		args := append([]string{"-plaintext", "-max-time", "10", "-import-path", "proto", "-proto", wordsProto, "-d", data}, opts...)
		cmd := exec.CommandContext(t.Context(), program, append(args, host(t, url), "acme.words.v1.Words/"+method)...)
		out, _ := cmd.CombinedOutput() // what it says of failures is looked at, too
		return string(out)
	}
	assert.Equal(t, call("Upper", `"word"`), "\"WORD\"\n")
	assert.Contains(t, call("Upper", `"word"`, "-H", "X-In: hello", "-v"), "\"WORD\"", "x-out: hello", "x-end: bye")
	assert.Contains(t, call("Upper", `"thirteen"`), "Code: FailedPrecondition", "Message: 13 is unlucky", "triskaidekaphobia")
	assert.Contains(t, call("Missing", `"x"`), "Code: Unimplemented")
	assert.Contains(t, call("Upper", `"wait"`, "-max-time", "0.3"), "DeadlineExceeded")
	assert.Equal(t, call("Letters", `"abc"`), "\"a\"\n\"b\"\n\"c\"\n")
	assert.Contains(t, call("Letters", `"ab!"`), "\"a\"\n\"b\"\n", "Code: FailedPrecondition")
	assert.Equal(t, call("Join", `"some" "words"`), "\"some words\"\n")
	assert.Equal(t, call("Lengths", `"a" "bb"`), "\"1\"\n\"2\"\n")
}

// buf curl speaks all three protocols.
func TestBufCurl(t *testing.T) {
	t.Parallel()
	program, err := filepath.Abs("js/node_modules/.bin/buf")
	assert.NoError(t, err)
	if _, err := os.Stat(program); err != nil {
		t.Skip("skipped: js/node_modules has no buf; npm ci in js makes it")
	}
	url := words(t)
	for _, protocol := range []string{"connect", "grpc", "grpcweb"} {
		call := func(method, data string, opts ...string) string {
			t.Helper()
			args := append([]string{"curl", "--schema", "proto", "--protocol", protocol, "--http2-prior-knowledge", "-d", data}, opts...)
			cmd := exec.CommandContext(t.Context(), program, append(args, url+"/acme.words.v1.Words/"+method)...)
			cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
			out, _ := cmd.CombinedOutput() // as above
			return string(out)
		}
		assert.Equal(t, call("Upper", `"word"`), "\"WORD\"\n")
		assert.Contains(t, call("Upper", `"thirteen"`), `"code": "failed_precondition"`, "13 is unlucky", "triskaidekaphobia")
		assert.Contains(t, call("Missing", `"x"`), `"code": "unimplemented"`)
		assert.Equal(t, call("Letters", `"abc"`), "\"a\"\n\"b\"\n\"c\"\n")
		assert.Equal(t, call("Join", "\"some\"\n\"words\""), "\"some words\"\n")
		assert.Equal(t, call("Lengths", "\"a\"\n\"bb\""), "\"1\"\n\"2\"\n")
	}
}
