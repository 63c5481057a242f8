package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func readReply(h wire.Headers, body string) (wire.Reply, endpoint.Header) {
	var app endpoint.Header
	r := wire.ReadReply(h, []byte(body), &app)
	return r, app
}

// TestForeignErrors reads services that have no Rpc-Code.
func TestForeignErrors(t *testing.T) {
	for status, want := range map[string]endpoint.Code{
		"400": endpoint.InvalidArgument, "401": endpoint.Unauthenticated, "403": endpoint.PermissionDenied, "404": endpoint.NotFound,
		"408": endpoint.DeadlineExceeded, "504": endpoint.DeadlineExceeded, "409": endpoint.Aborted, "412": endpoint.FailedPrecondition,
		"413": endpoint.ResourceExhausted, "429": endpoint.ResourceExhausted, "499": endpoint.Canceled, "500": endpoint.Internal,
		"501": endpoint.Unimplemented, "502": endpoint.Unavailable, "503": endpoint.Unavailable,
		"200": endpoint.Unknown, "418": endpoint.Unknown, "0": endpoint.Unknown, "-1": endpoint.Unknown, "": endpoint.Unknown,
		"E42": endpoint.Unknown, strings.Repeat("9", 30): endpoint.Unknown,
		" 404 ": endpoint.NotFound, //nolint:gocritic // the space is the case
	} {
		r, _ := readReply(wire.Headers{"nats-service-error": {"no"}, "NATS-SERVICE-ERROR-CODE": {status}, "Rpc-Outcome": {"not_executed"}}, `{"x":1}`)
		assert.Equal(t, r.Err, want.New("no").WithOutcome(endpoint.Executed).AsRemote(), status)
	}
	for name, h := range map[string]wire.Headers{
		"code alone": {"Nats-Service-Error-Code": {"404"}},
		"text alone": {"Nats-Service-Error": {"no"}},
		"no name":    {"Rpc-Code": {""}},
	} {
		r, _ := readReply(h, "")
		assert.True(t, r.Err != nil, name)
	}
}

func TestSuccess(t *testing.T) {
	for name, h := range map[string]wire.Headers{
		"none": nil, "empty": {}, "unknown": {"Rpc-Future": {"1"}, "Nats-Future": {"1"}}, "no values": {"Rpc-Code": {}},
		"advice without an error": {"Rpc-Reason": {"x"}, "Rpc-Outcome": {"not_executed"}, "Rpc-Retry-After": {"1S"}},
		"a status of its own":     {"Status": {"503"}},
		"an instance with a trap": {"Rpc-Instance": {"a.>"}},
		"an instance too long":    {"Rpc-Instance": {strings.Repeat("a", 65)}},
	} {
		r, app := readReply(h, "x")
		assert.Equal(t, r, wire.Reply{}, name)
		assert.Equal(t, app.Len(), 0, name)
	}
	r, app := readReply(wire.Headers{"rpc-instance": {"A-1_b"}, "content-type": {" text/csv"}, "ETag": {"1"}}, "x")
	assert.Equal(t, r, wire.Reply{MediaType: "text/csv", Instance: "A-1_b"})
	assert.Equal(t, app.Get("etag"), "1")
}

func TestErrorHeadersWithOddities(t *testing.T) {
	const body = `{"code":"aborted","message":"told","details":[{"type":"a.B","value":"e30"}]}`
	detail := endpoint.Detail{Type: "a.B", Value: []byte("{}")}
	base := func() wire.Headers {
		return wire.Headers{"Rpc-Code": {"not_found"}, "Nats-Service-Error": {"line"}, "Nats-Service-Error-Code": {"404"}}
	}
	with := func(name string, v ...string) wire.Headers {
		h := base()
		h[name] = v
		return h
	}
	told := endpoint.NotFound.New("told").With(detail).WithOutcome(endpoint.Executed).AsRemote()
	line := endpoint.NotFound.New("line").WithOutcome(endpoint.Executed).AsRemote()
	for name, c := range map[string]struct {
		h    wire.Headers
		body string
		want *endpoint.Error
	}{
		"the header's code wins":    {base(), body, told},
		"lower case":                {wire.Headers{"rpc-code": {"not_found"}}, body, told},
		"no body":                   {base(), "", line},
		"not JSON":                  {base(), "no", line},
		"JSON of another kind":      {base(), `{"message":"told"}`, line},
		"a string":                  {base(), `"told"`, line},
		"null":                      {base(), `null`, line},
		"bad base64":                {base(), `{"code":"aborted","message":"told","details":[{"type":"a","value":"e30"},{"type":"a","value":"*"}]}`, line},
		"bad UTF-8":                 {base(), "{\"code\":\"aborted\",\"message\":\"\xff\"}", line},
		"too many details":          {base(), `{"code":"aborted","message":"told","details":[` + strings.Repeat("{},", 300) + `{}]}`, line},
		"no message":                {base(), `{"code":"aborted"}`, line},
		"code for a line":           {with("Nats-Service-Error", "not_found"), "", endpoint.NotFound.New("").WithOutcome(endpoint.Executed).AsRemote()},
		"code for a message":        {with("Nats-Service-Error", "not_found"), `{"code":"not_found","message":"not_found"}`, endpoint.NotFound.New("not_found").WithOutcome(endpoint.Executed).AsRemote()},
		"unknown code":              {with("Rpc-Code", "teapot"), body, endpoint.Unknown.New("told").With(detail).WithOutcome(endpoint.Executed).AsRemote()},
		"ok is no error's code":     {with("Rpc-Code", "ok"), body, endpoint.Unknown.New("told").With(detail).WithOutcome(endpoint.Executed).AsRemote()},
		"first of several":          {with("Rpc-Code", "not_found", "aborted"), body, told},
		"first of several spelled":  {with("rpc-code", "aborted"), body, told},
		"reason":                    {with("rpc-reason", "gone_for_good"), body, told.WithReason("gone_for_good")},
		"a reason with a trap":      {with("Rpc-Reason", "a b\r\nc"), body, told},
		"not executed":              {with("Rpc-Outcome", "not_executed"), body, told.WithOutcome(endpoint.NotExecuted)},
		"another outcome":           {with("Rpc-Outcome", "not_sent"), body, told},
		"retry":                     {with("Rpc-Retry-After", "250m"), body, told.WithRetryAfter(250 * time.Millisecond)},
		"no retry":                  {with("Rpc-Retry-After", "no"), body, told.WithRetryAfter(-time.Second)},
		"retry some day":            {with("Rpc-Retry-After", "tomorrow"), body, told},
		"retry in the far future":   {with("Rpc-Retry-After", "99999999H"), body, told.WithRetryAfter(wire.MaxTimeout)},
		"the broker's, with a code": {with("Status", "503"), body, told},
	} {
		r, _ := readReply(c.h, c.body)
		assert.Equal(t, r.Err, c.want, name)
	}
}

func TestManyDetailsPass(t *testing.T) {
	e := endpoint.InvalidArgument.New("a form full of faults")
	for i := range 80 {
		e = e.With(endpoint.Detail{Type: fmt.Sprintf("acme.Field%d", i), Value: []byte(`{"name":"x","faults":["a","b","c"]}`)})
	}
	h := wire.Headers{}
	body, err := wire.WriteError(h, e)
	assert.NoError(t, err)
	r, _ := readReply(h, string(body))
	assert.Equal(t, r.Err.Details, e.Details)
}

// What a reader would leave out is not written: the message arrives whole, which the line in the headers can't promise.
func TestTheMessageAlwaysPasses(t *testing.T) {
	message := strings.Repeat("a\nlong one ", 1000)
	many := make([]any, 300)
	for i := range many {
		many[i] = endpoint.Detail{Type: "t", Value: []byte("1")}
	}
	deep := endpoint.Detail{Type: "t", Value: []byte(strings.Repeat("[", 300) + strings.Repeat("]", 300))}
	for name, c := range map[string]struct {
		e    *endpoint.Error
		want int // details
	}{
		"many that cross": {endpoint.Crossing(endpoint.Aborted.New(message).With(many...)), endpoint.MaxDetails},
		"too many":        {endpoint.Aborted.New(message).With(many...), 0},
		"deep":            {endpoint.Aborted.New(message).With(many[0], deep), 0},
	} {
		h := wire.Headers{}
		body, err := wire.WriteError(h, c.e)
		assert.NoError(t, err, name)
		r, _ := readReply(h, string(body))
		assert.Equal(t, r.Err.Message, message, name)
		assert.Equal(t, len(r.Err.Details), c.want, name)
	}
}

func TestErrorLine(t *testing.T) {
	long := strings.Repeat("é", 300)
	for message, want := range map[string]string{
		"":                       "not_found",
		" \r\n\t ":               "not_found",
		"two\r\nlines":           "two  lines",
		"a\x00b\x7fc\u0085d":     "a b c d",
		"a\u2028b":               "a b",
		"bad \xff bytes":         "bad \uFFFD bytes",
		"  trimmed ":             "trimmed",
		strings.Repeat("a", 513): strings.Repeat("a", 512),
		long:                     long[:512],
		"a" + long:               ("a" + long)[:511],
	} {
		h := wire.Headers{}
		_, err := wire.WriteError(h, endpoint.NotFound.New(message))
		assert.NoError(t, err)
		assert.Equal(t, h[wire.ServiceError], []string{want})
		assert.True(t, utf8.ValidString(want) && len(want) <= wire.MaxErrorLine)
	}
}

func TestWriteErrorWritesWords(t *testing.T) {
	h := wire.Headers{}
	_, err := wire.WriteError(h, endpoint.NotFound.New("x").WithReason("x\r\nRpc-Outcome: not_executed").WithOutcome(endpoint.MaybeExecuted))
	assert.NoError(t, err)
	assert.Equal(t, len(h), 4, "code, number, line and type")

	_, err = wire.WriteError(h, endpoint.NotFound.New("x").WithOutcome(endpoint.NotSent))
	assert.NoError(t, err)
	assert.Equal(t, h[wire.OutcomeHeader], []string{"not_executed"})
}

func TestNoResponders(t *testing.T) {
	is := func(h wire.Headers, body string) bool {
		r, _ := readReply(h, body)
		return r.Err != nil && r.Err.Reason() == endpoint.ReasonNoResponders
	}
	assert.True(t, is(wire.Headers{"Status": {"503"}, "Nats-Subject": {"svc.add"}}, ""))
	assert.True(t, is(wire.Headers{"Status": {"503"}, "Description": {"No Responders"}, "Nats-Subject": {"svc.add"}}, ""))
	for name, h := range map[string]wire.Headers{
		"a status alone":    {"Status": {"503"}},
		"another status":    {"Status": {"404"}, "Nats-Subject": {"x"}},
		"a subject alone":   {"Nats-Subject": {"x"}},
		"other headers":     {"Status": {"503"}, "Nats-Subject": {"x"}, "X": {"1"}},
		"more headers":      {"Status": {"503"}, "Nats-Subject": {"x"}, "Description": {"x"}, "X": {"1"}},
		"of lower case":     {"status": {"503"}, "nats-subject": {"x"}},
		"a user's first":    {"Status": {"503", "503"}, "Nats-Subject": {"x"}},
		"several subjects":  {"Status": {"503"}, "Nats-Subject": {"x", "y"}},
		"no subject at all": {"Status": {"503"}, "Nats-Subject": {}},
	} {
		assert.True(t, !is(h, ""), name)
	}
	assert.True(t, !is(wire.Headers{"Status": {"503"}, "Nats-Subject": {"x"}}, "body"), "a body")
}

func TestReplyHeaderLimits(t *testing.T) {
	tooMuch := map[string][]string{"X": slices.Repeat([]string{strings.Repeat("x", 1000)}, 9)}
	r, app := readReply(tooMuch, "x")
	assert.Equal(t, r.Err.Code, endpoint.Internal)
	assert.Equal(t, r.Err.Reason(), endpoint.ReasonHeaderTooLarge)
	assert.Equal(t, r.Err.Outcome(), endpoint.Executed)
	assert.Equal(t, app.Len(), 0)

	tooMuch["Rpc-Code"] = []string{"not_found"}
	r, app = readReply(tooMuch, "")
	assert.Equal(t, r.Err.Code, endpoint.NotFound)
	assert.Equal(t, app.Len(), 0)

	r, app = readReply(wire.Headers{"X": {strings.Repeat("x", endpoint.MaxHeaderBytes-5)}, "Rpc-Instance": {"a"}}, "x")
	assert.True(t, r.Err == nil && app.Len() == 1, "the protocol's own don't count")

	r, _ = readReply(wire.Headers{"X": slices.Repeat([]string{""}, 513)}, "x")
	assert.Equal(t, r.Err.Reason(), endpoint.ReasonHeaderTooLarge)
}

func TestIsPubAck(t *testing.T) {
	for _, body := range []string{
		`{"stream":"A","seq":1}`, `{"stream":"AUDIT", "seq":22}`, `{"stream":"A","domain":"hub","seq":1,"duplicate":true}`,
		`{"stream":"A","seq":1,"val":"5"}`, `{"stream":"A","seq":9,"batch":"b","count":3}`, `{"stream":"A","seq":18446744073709551615}`,
		`{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"A","seq":0}`,
	} {
		assert.True(t, wire.IsPubAck([]byte(body)), body)
	}
	for _, body := range []string{
		``, `{}`, `{"stream":"A"}`, `{"seq":1}`, `{"stream":"","seq":1}`, `{"stream":"A","seq":0}`, `{"stream":"A","seq":-1}`,
		`{"stream":"A","seq":"1"}`, `{"stream":7,"seq":123456789}`, `{"stream":"A","seq":1.5}`, `{"stream":null,"seq":null}`, `{"stream":"A","seq":1,"x":0}`,
		`{"Stream":"A","seq":1000}`, `{"stream":"A","SEQ":1000}`, `[{"stream":"A","seq":1}]`, ` {"stream":"A","seq":1}`, `{"stream":"A","seq":1}x`,
		`{"stream":"A","seq":1,"duplicate":"no"}`, `{"stream":"A","seq":1,"domain":{}}`, `{"stream":"A","seq":1,"val":5}`,
		`{"stream":"A","seq":1,"error":null}`, `{"stream":"A","seq":0,"error":"no"}`, `{"stream":"A","seq":0,"error":{"code":1}}`,
		`{"stream":"A","seq":5,"error":{"code":503,"err_code":10077}}`,
		`{"stream":"` + strings.Repeat("A", 1024) + `","seq":1}`, `{"stream":"A","seq":1`,
	} {
		assert.True(t, !wire.IsPubAck([]byte(body)), body)
	}
}
