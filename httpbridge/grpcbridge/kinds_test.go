package grpcbridge_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/internal/assert"
)

// dialects are the ways to say the same; bidi is false where the protocol has no bidirectional streams.
func dialects(t *testing.T, f func(t *testing.T, h *http.Client, bidi bool, opts ...connect.ClientOption)) {
	t.Helper()
	for _, d := range []struct {
		name string
		http *http.Client
		bidi bool
		opts []connect.ClientOption
	}{
		{"gRPC", http2(t), true, []connect.ClientOption{connect.WithGRPC()}},
		{"gRPC, JSON, gzip", http2(t), true, []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON(), connect.WithSendGzip()}},
		{"gRPC-Web, HTTP/1.1", http1(t), false, []connect.ClientOption{connect.WithGRPCWeb()}},
		{"gRPC-Web, HTTP/2, gzip", http2(t), true, []connect.ClientOption{connect.WithGRPCWeb(), connect.WithSendGzip()}},
	} {
		t.Run(d.name, func(t *testing.T) { f(t, d.http, d.bidi, d.opts...) })
	}
}

func TestUnary(t *testing.T) {
	s := start(t, newMux(t))
	dialects(t, func(t *testing.T, h *http.Client, _ bool, opts ...connect.ClientOption) {
		t.Helper()
		for _, word := range []string{"", "word", strings.Repeat("word", 100_000)} {
			r := connect.NewRequest(wrapperspb.String(word))
			r.Header().Set("X-In", "a")
			r.Header().Add("X-In", "b")
			reply, err := dial[text, text](s, "Upper", h, opts...).CallUnary(t.Context(), r)
			assert.NoError(t, err)
			assert.Equal(t, reply.Msg.GetValue(), strings.ToUpper(word))
			told(t, reply.Header(), reply.Trailer())
		}
	})
	assert.Equal(t, len(s.log.all()), 0)
}

// told checks the metadata that may pass.
func told(t testing.TB, header, trailer http.Header) {
	t.Helper()
	assert.Equal(t, fmt.Sprint(header.Values("X-Out")), "[a b]")
	assert.Equal(t, header.Get("X-Secret"), "")
	assert.Equal(t, fmt.Sprint(trailer.Values("X-End")), "[one two]")
	sum, err := connect.DecodeBinaryHeader(trailer.Get("X-Sum-Bin"))
	assert.NoError(t, err)
	assert.Equal(t, sum, []byte{0, 1})
}

func TestServerStream(t *testing.T) {
	s := start(t, newMux(t))
	dialects(t, func(t *testing.T, h *http.Client, _ bool, opts ...connect.ClientOption) {
		t.Helper()
		for _, word := range []string{"", "letters"} {
			r := connect.NewRequest(wrapperspb.String(word))
			r.Header()["X-In"] = []string{"a", "b"}
			stream, err := dial[text, text](s, "Letters", h, opts...).CallServerStream(t.Context(), r)
			assert.NoError(t, err)
			got := ""
			for stream.Receive() {
				got += stream.Msg().GetValue()
			}
			assert.NoError(t, stream.Err())
			assert.Equal(t, got, word)
			told(t, stream.ResponseHeader(), stream.ResponseTrailer())
			assert.NoError(t, stream.Close())
		}
	})
}

func TestClientStream(t *testing.T) {
	s := start(t, newMux(t))
	dialects(t, func(t *testing.T, h *http.Client, _ bool, opts ...connect.ClientOption) {
		t.Helper()
		for _, words := range [][]string{nil, {"some", "words"}} {
			stream := dial[text, text](s, "Join", h, opts...).CallClientStream(t.Context())
			stream.RequestHeader()["X-In"] = []string{"a", "b"}
			for _, w := range words {
				assert.NoError(t, stream.Send(wrapperspb.String(w)))
			}
			reply, err := stream.CloseAndReceive()
			assert.NoError(t, err)
			assert.Equal(t, reply.Msg.GetValue(), strings.Join(words, " "))
			told(t, reply.Header(), reply.Trailer())
		}
	})
}

// Each answer comes before the next question is asked.
func TestBidiStream(t *testing.T) {
	s := start(t, newMux(t))
	dialects(t, func(t *testing.T, h *http.Client, bidi bool, opts ...connect.ClientOption) {
		t.Helper()
		if !bidi {
			return
		}
		stream := dial[text, number](s, "Each", h, opts...).CallBidiStream(t.Context())
		stream.RequestHeader()["X-In"] = []string{"a", "b"}
		for _, w := range []string{"", "four", "letters"} {
			assert.NoError(t, stream.Send(wrapperspb.String(w)))
			reply, err := stream.Receive()
			assert.NoError(t, err)
			assert.Equal(t, reply.GetValue(), int64(len(w)))
		}
		assert.NoError(t, stream.CloseRequest())
		_, err := stream.Receive()
		assert.ErrorIs(t, err, io.EOF)
		told(t, stream.ResponseHeader(), stream.ResponseTrailer())
		assert.NoError(t, stream.CloseResponse())
	})
}

// The service has heard enough while its client still talks.
func TestStreamsEndEarly(t *testing.T) {
	s := start(t, newMux(t))
	dialects(t, func(t *testing.T, h *http.Client, bidi bool, opts ...connect.ClientOption) {
		t.Helper()
		if h == nil || !bidi { // over HTTP/1.1 a client reads when it has written all
			return
		}
		up := dial[text, text](s, "Join", h, opts...).CallClientStream(t.Context())
		_ = up.Send(wrapperspb.String("some"))
		_ = up.Send(wrapperspb.String("enough"))
		for errors.Is(up.Send(wrapperspb.String("more")), nil) { // until it is told
		}
		reply, err := up.CloseAndReceive()
		assert.NoError(t, err)
		assert.Equal(t, reply.Msg.GetValue(), "some")

		both := dial[text, number](s, "Each", h, opts...).CallBidiStream(t.Context())
		assert.NoError(t, both.Send(wrapperspb.String("thirteen")))
		_, err = both.Receive()
		refused(t, err, connect.CodeFailedPrecondition)
		_ = both.CloseRequest()
		_ = both.CloseResponse()
	})
	for _, r := range s.log.all() { // that nobody reads on is no failure
		assert.Contains(t, r, "code=failed_precondition")
	}
}
