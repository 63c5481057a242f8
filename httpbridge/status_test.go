package httpbridge_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// script is a transport whose calls end as the test says.
type script struct {
	handle func(ctx context.Context, subject string) (*codec.Payload, error)
}

func (s script) Handler(subject string, _ *endpoint.Spec) endpoint.Handler {
	return func(ctx context.Context, _ *endpoint.Call) (any, error) { return s.handle(ctx, subject) }
}

func failing(err error) script {
	return script{func(context.Context, string) (*codec.Payload, error) { return nil, err }}
}

var table = map[endpoint.Code]int{
	endpoint.Canceled: 499, endpoint.Unknown: 500, endpoint.InvalidArgument: 400, endpoint.DeadlineExceeded: 504, endpoint.NotFound: 404,
	endpoint.AlreadyExists: 409, endpoint.PermissionDenied: 403, endpoint.ResourceExhausted: 429, endpoint.FailedPrecondition: 400,
	endpoint.Aborted: 409, endpoint.OutOfRange: 400, endpoint.Unimplemented: 501, endpoint.Internal: 500, endpoint.Unavailable: 503,
	endpoint.DataLoss: 500, endpoint.Unauthenticated: 401,
}

func TestStatus(t *testing.T) {
	m := newMux(t)
	serve(t, m, "svc.fail", endpoint.New(func(_ context.Context, r *addRequest) (*nothing, error) {
		return nil, endpoint.Code(r.A).New("authored")
	}))
	s := start(t, m, httpbridge.Expose("svc.fail"))
	for code, status := range table {
		r := s.post(t, "/svc/fail", `{"a":`+strconv.Itoa(int(code))+`}`)
		assert.Equal(t, failed(t, r, status, code), "authored") // by a handler, whatever the code
		after := map[int]string{429: "1", 503: "1"}[status]
		assert.Equal(t, r.header.Get("Retry-After"), after, code.String())
	}
}

func TestStatus_ofTheTransport(t *testing.T) {
	tests := map[string]struct {
		err     error
		status  int
		code    endpoint.Code
		message string
		after   string
	}{
		"internal":        {endpoint.Internal.Wrap(errors.New("secret"), "secret"), 500, endpoint.Internal, "", ""},
		"unknown":         {endpoint.Unknown.New("secret"), 500, endpoint.Unknown, "", ""},
		"data loss":       {endpoint.DataLoss.New("secret"), 500, endpoint.DataLoss, "", ""},
		"foreign":         {errors.New("secret"), 500, endpoint.Unknown, "", ""},
		"code":            {endpoint.NotFound, 404, endpoint.NotFound, "", ""},
		"no code":         {&endpoint.Error{Message: "secret"}, 500, endpoint.Unknown, "", ""},
		"strange code":    {endpoint.Code(99).New("secret"), 500, endpoint.Unknown, "", ""},
		"panic there":     {endpoint.Recovered("secret").AsRemote(), 500, endpoint.Internal, "", ""},
		"encode there":    {endpoint.Internal.New("secret").WithReason(endpoint.ReasonEncode).AsRemote(), 500, endpoint.Internal, "", ""},
		"handler":         {endpoint.Internal.New("shown").AsRemote(), 500, endpoint.Internal, "shown", ""},
		"disconnected":    {endpoint.Unavailable.New("no broker").WithReason(endpoint.ReasonDisconnected), 503, endpoint.Unavailable, "no broker", "1"},
		"nobody":          {endpoint.Unavailable.New("nobody").WithReason(endpoint.ReasonNoResponders), 503, endpoint.Unavailable, "nobody", "1"},
		"soon":            {endpoint.Unavailable.New("").WithRetryAfter(time.Millisecond), 503, endpoint.Unavailable, "", "1"},
		"later":           {endpoint.ResourceExhausted.New("").WithRetryAfter(2001 * time.Millisecond), 429, endpoint.ResourceExhausted, "", "3"},
		"never":           {endpoint.ResourceExhausted.New("").WithRetryAfter(-1), 429, endpoint.ResourceExhausted, "", ""},
		"reply too large": {endpoint.ResourceExhausted.New("").WithReason(endpoint.ReasonReplyTooLarge), 429, endpoint.ResourceExhausted, "", ""},
		"too large":       {endpoint.ResourceExhausted.New("big").WithReason(endpoint.ReasonRequestTooLarge), 413, endpoint.ResourceExhausted, "big", ""},
		"header":          {endpoint.InvalidArgument.New("fat").WithReason(endpoint.ReasonHeaderTooLarge), 431, endpoint.InvalidArgument, "fat", ""},
		"media type":      {endpoint.InvalidArgument.New("takes X").WithReason(endpoint.ReasonMediaType).AsRemote(), 415, endpoint.Unknown, "takes X", ""},
		"reply's type":    {endpoint.Internal.New("secret").WithReason(endpoint.ReasonMediaType), 500, endpoint.Internal, "", ""},
		"our caller":      {endpoint.InvalidArgument.New("secret").WithReason(endpoint.ReasonConstruction), 500, endpoint.Internal, "", ""},
		"deadline":        {context.DeadlineExceeded, 504, endpoint.DeadlineExceeded, "", ""},
		"declared":        {endpoint.Aborted.Wrap(errors.New("secret"), "shown"), 409, endpoint.Aborted, "shown", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t, failing(tt.err), httpbridge.Expose("svc.fail"))
			r := s.post(t, "/svc/fail", `{}`)
			assert.Equal(t, failed(t, r, tt.status, tt.code), tt.message)
			assert.Equal(t, r.header.Get("Retry-After"), tt.after)
			assert.Contains(t, s.log.text(), "status="+strconv.Itoa(tt.status))
		})
	}
}

func TestStatus_panickingTransport(t *testing.T) {
	s := start(t, script{func(context.Context, string) (*codec.Payload, error) { panic("secret") }}, httpbridge.Expose("svc.fail"))
	assert.Equal(t, failed(t, s.post(t, "/svc/fail", `{}`), 500, endpoint.Internal), "")
	assert.Contains(t, s.log.text(), "ERROR", "panic in ", "secret")
	assert.NoError(t, s.bridge.Drain(t.Context()), "its room is free again")
}

func TestStatus_abortedByAHandler(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.fail"),
		httpbridge.WithAuth(func(*http.Request) (context.Context, error) { panic(http.ErrAbortHandler) }))
	_, err := raw(s, "POST /svc/fail HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF) // net/http hangs up, as asked
	assert.NoError(t, s.bridge.Drain(t.Context()))
}

// TestErrorJSON is Connect's form to the byte: https://connectrpc.com/docs/protocol#error-end-stream.
func TestErrorJSON(t *testing.T) {
	m := newMux(t)
	serve(t, m, "svc.fail", endpoint.New(func(context.Context, *nothing) (*nothing, error) {
		return nil, endpoint.FailedPrecondition.New("13 is <unlucky>").With(
			endpoint.Detail{Type: "acme.v1.Luck", Value: []byte{0x08, 0x0d}}, addResponse{Sum: 13})
	}))
	s := start(t, m, httpbridge.Expose("svc.fail"))
	r := s.post(t, "/svc/fail", `{}`)
	assert.Equal(t, r.status, 400)
	assert.Equal(t, r.body, `{"code":"failed_precondition","message":"13 is <unlucky>","details":[`+
		`{"type":"acme.v1.Luck","value":"CA0"},{"type":"httpbridge_test.addResponse","value":"eyJzdW0iOjEzfQ","debug":{"sum":13}}]}`)
}

func TestWriteError(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		body   string
	}{
		{endpoint.Unauthenticated.New("who are you?"), 401, `{"code":"unauthenticated","message":"who are you?"}`},
		{errors.New("secret"), 500, `{"code":"unknown"}`},
		{nil, 500, `{"code":"internal"}`},
	} {
		w := httptest.NewRecorder()
		w.Header().Set("WWW-Authenticate", "Bearer")
		httpbridge.WriteError(w, httptest.NewRequest(http.MethodPost, "/", http.NoBody), tt.err)
		assert.Equal(t, w.Code, tt.status)
		assert.Equal(t, w.Body.String(), tt.body)
		assert.Equal(t, w.Header().Get("WWW-Authenticate"), "Bearer")
		assert.Equal(t, w.Header().Get("X-Content-Type-Options"), "nosniff")
		assert.Equal(t, w.Header().Get("Content-Length"), strconv.Itoa(len(tt.body)))
	}
}
