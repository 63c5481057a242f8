package grpcbridge

import (
	"context"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// Enable makes a bridge speak gRPC and gRPC-Web besides its own protocols. By default it doesn't.
func Enable() httpbridge.Option {
	return httpbridge.WithProtocol(func(l httpbridge.Limits) httpbridge.Protocol { return newProtocol(l.Body) })
}

// protocol is gRPC and gRPC-Web. One handler serves the calls of one kind to all endpoints: which one is called stands in the
// context.
type protocol struct {
	handlers [endpoint.BidiStreamKind + 1]*connect.Handler
	errors   *connect.ErrorWriter
	limit    int // of a message, in bytes
}

var _ httpbridge.Protocol = (*protocol)(nil)

// worthwhile is the size in bytes from which compression pays.
const worthwhile = 1024

func newProtocol(limit int) *protocol {
	const name = "/" // the procedure, which nobody asks for
	opts := []connect.HandlerOption{
		connect.WithReadMaxBytes(limit),
		connect.WithCompressMinBytes(worthwhile),
		connect.WithCodec(passThrough{"proto"}), connect.WithCodec(passThrough{"json"}), connect.WithCodec(passThrough{"cbor"}),
	}
	return &protocol{limit: limit, errors: connect.NewErrorWriter(opts...), handlers: [...]*connect.Handler{
		endpoint.UnaryKind:        connect.NewUnaryHandler(name, unary, opts...),
		endpoint.ServerStreamKind: connect.NewServerStreamHandler(name, serverStream, opts...),
		endpoint.ClientStreamKind: connect.NewClientStreamHandler(name, clientStream, opts...),
		endpoint.BidiStreamKind:   connect.NewBidiStreamHandler(name, bidiStream, opts...),
	}}
}

// Speaks knows both protocols by their content type. What only begins like one of them, or is of a codec that nobody has, is
// no gRPC, and gets an answer of the bridge's own, where a refusal has its status.
func (*protocol) Speaks(r *http.Request) bool {
	name, messages, given := strings.Cut(strings.ToLower(r.Header.Get("Content-Type")), "+")
	return (name == "application/grpc" || name == "application/grpc-web") &&
		(!given || messages == "proto" || messages == "json" || messages == "cbor")
}

// Serve answers with the handler of the call's kind.
func (p *protocol) Serve(w http.ResponseWriter, r *http.Request, c *httpbridge.Call) {
	if c.Kind() == endpoint.BidiStreamKind && r.ProtoMajor < 2 {
		w.Header().Set("Connection", "close") // a client that waits for an answer before it goes on would wait for ever
		p.Fail(w, r, endpoint.Unimplemented.New("a bidirectional stream needs HTTP/2"))
		return
	}
	b := newBody(r.Body, p.limit)
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, &call{c, b}))
	r.Body = b
	p.handlers[c.Kind()].ServeHTTP(w, r)
}

// Fail answers with trailers alone, or, where the client speaks no gRPC after all, with a status alone.
func (p *protocol) Fail(w http.ResponseWriter, r *http.Request, err *endpoint.Error) {
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	_ = p.errors.Write(w, r, failure(err)) // nobody is left to be told
}

// call is one call in progress.
type call struct {
	*httpbridge.Call

	body *body
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// units are those of grpc-timeout.
var units = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// Timeout reads grpc-timeout: at most eight digits and a unit (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func (*protocol) Timeout(h http.Header) (time.Duration, bool, error) {
	values := h["Grpc-Timeout"]
	if len(values) == 0 {
		return 0, false, nil
	}
	text := strings.Join(values, ", ")
	digits := text[:max(0, len(text)-1)]
	n, ok := int64(0), digits != "" && len(digits) <= 8
	for i := 0; ok && i < len(digits); i++ {
		ok = '0' <= digits[i] && digits[i] <= '9'
		n = n*10 + int64(digits[i]-'0')
	}
	unit := time.Duration(0)
	if ok {
		unit, ok = units[text[len(digits)]]
	}
	if !ok {
		return 0, false, endpoint.InvalidArgument.Errorf("grpc-timeout %.40q is not a number of at most eight digits and a unit", text).
			WithOutcome(endpoint.NotSent)
	}
	if n > int64(longest/unit) {
		return longest, true, nil
	}
	return time.Duration(n) * unit, true, nil
}

// longest is what a longer time counts as: nobody waits for either.
const longest = 1 << 62 * time.Nanosecond
