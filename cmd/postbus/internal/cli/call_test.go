package cli_test

import (
	"context"
	"io"
	"iter"
	"strings"
	"testing"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type pair struct {
	A int `json:"a"`
	B int `json:"b"`
}

type sum struct {
	Sum int `json:"sum"`
}

func add(_ context.Context, p *pair) (*sum, error) {
	if p.B == 13 {
		return nil, endpoint.NotFound.New("there is no 13")
	}
	return &sum{p.A + p.B}, nil
}

type number struct {
	N int `json:"n"`
}

// count sends the numbers up to n, and without one goes on until its caller leaves.
func count(ctx context.Context, to *number, send func(*number) error) error {
	for i := 1; to.N == 0 || i <= to.N; i++ {
		if err := send(&number{i}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func total(_ context.Context, in iter.Seq2[*number, error]) (*number, error) {
	t := &number{}
	for n, err := range in {
		if err != nil {
			return nil, err
		}
		t.N += n.N
	}
	return t, nil
}

func double(_ context.Context, in iter.Seq2[*number, error]) iter.Seq2[*number, error] {
	return func(yield func(*number, error) bool) {
		for n, err := range in {
			if err == nil {
				n = &number{2 * n.N}
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

func math() map[string]*endpoint.Endpoint {
	return map[string]*endpoint.Endpoint{
		"math.add":    endpoint.New(add, endpoint.Doc("adds two numbers"), endpoint.Idempotent()),
		"math.count":  endpoint.NewServerStream(endpoint.Emit(count)),
		"math.total":  endpoint.NewClientStream(total),
		"math.double": endpoint.NewBidiStream(double),
	}
}

func TestCall_unary(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	assert.Equal(t, run(t, to(s, "call", "math.add", `{"a":1, "b":2}`)), result{0, `{"sum":3}` + "\n", ""})
	assert.Equal(t, run(t, to(s, "call", "math.add")), result{0, `{"sum":0}` + "\n", ""}, "without a body it is {}")
	assert.Equal(t, run(t, to(s, "call", "math.add", `{"a":1,"b":2}`, "--raw")), result{0, `{"sum":3}`, ""})
	in := runWith(t, t.Context(), strings.NewReader("{\"a\":4}\n"), to(s, "call", "math.add", "-"))
	assert.Equal(t, in, result{0, `{"sum":4}` + "\n", ""}, "standard input")
}

func TestCall_fails(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	assert.Equal(t, run(t, to(s, "call", "math.add", `{"b":13}`)), result{105, "", "postbus: not_found: there is no 13 (executed)\n"})
	r := run(t, to(s, "call", "math.add", `{"b":13}`, "--json"))
	assert.Equal(t, r, result{105, "", `{"code":"not_found","message":"there is no 13","outcome":"executed","exit":105}` + "\n"})
	r = run(t, to(s, "call", "math.nobody"))
	assert.Equal(t, []int{r.code}, []int{114})
	assert.Contains(t, r.err, "no_responders", "not executed")
	r = run(t, to(s, "call", "math.add", `{"a":1,}`))
	assert.Equal(t, r, result{103, "", "postbus: invalid_argument: the request is not JSON: invalid character '}' looking for beginning of object key string, at byte 8 (not sent)\n"})
}

func TestCall_streams(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	for name, args := range map[string][]string{
		"found out": {"call", "math.count", `{"n":3}`}, "said": {"call", "math.count", `{"n":3}`, "--stream"},
	} {
		assert.Equal(t, run(t, to(s, args...)), result{0, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n", ""}, name)
	}
	lines := "{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}"
	for _, flag := range []string{"--raw=false", "--stream"} {
		for _, body := range [][]string{nil, {"-"}} {
			call := func(subject string) result {
				return runWith(t, t.Context(), strings.NewReader(lines), to(s, append([]string{"call", subject, flag}, body...)...))
			}
			assert.Equal(t, call("math.total"), result{0, "{\"n\":6}\n", ""})
			assert.Equal(t, call("math.double"), result{0, "{\"n\":2}\n{\"n\":4}\n{\"n\":6}\n", ""})
		}
	}
}

// TestCall_interrupted leaves a stream that never ends, and wants its handler to know.
func TestCall_interrupted(t *testing.T) {
	t.Parallel()
	s := broker(t)
	left := make(chan error, 1)
	serve(t, s, map[string]*endpoint.Endpoint{"endless.count": endpoint.NewServerStream(endpoint.Emit(func(ctx context.Context, to *number, send func(*number) error) error {
		err := count(ctx, to, send)
		left <- err
		return err
	}))})
	ctx, interrupt := context.WithCancel(t.Context())
	r := runWith(t, ctx, nil, nil)
	assert.Equal(t, r.code, 64)
	reader, writer := io.Pipe()
	code := make(chan int, 1)
	var stderr output
	go func() {
		code <- runTo(ctx, writer, &stderr, to(s, "call", "endless.count", "{}", "--stream"))
		_ = writer.Close()
	}()
	first := make([]byte, 8)
	_, err := io.ReadFull(reader, first)
	assert.NoError(t, err)
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	interrupt()
	assert.Equal(t, <-code, 130)
	assert.Equal(t, stderr.String(), "postbus: interrupted\n")
	assert.True(t, <-left != nil, "the handler is told")
}

// TestCall_waitsForInput is interrupted while standard input has no end.
func TestCall_waitsForInput(t *testing.T) {
	t.Parallel()
	s := broker(t)
	ctx, interrupt := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	code := make(chan int, 1)
	go func() { code <- runWith(t, ctx, reader, to(s, "call", "math.add", "-")).code }()
	_, err := writer.Write([]byte("{")) // somebody reads
	assert.NoError(t, err)
	interrupt()
	assert.Equal(t, <-code, 130)
	assert.NoError(t, writer.Close())
}

func TestCall_headersAndInstance(t *testing.T) {
	t.Parallel()
	s := broker(t)
	var ids []string
	for range 2 {
		b := serve(t, s, map[string]*endpoint.Endpoint{"echo.tenant": endpoint.New(func(ctx context.Context, _ *struct{}) (*map[string]string, error) {
			c := endpoint.FromContext(ctx)
			c.Reply.Set("X-Seen", "yes")
			return &map[string]string{"tenant": c.Header.Get("X-Tenant"), "instance": c.Instance()}, nil
		})})
		ids = append(ids, b.ID())
	}
	for _, id := range ids {
		r := run(t, to(s, "call", "echo.tenant", "-v", "-H", "X-Tenant: acme", "--instance", id))
		assert.Equal(t, r.out, `{"instance":"`+id+`","tenant":"acme"}`+"\n")
		assert.Contains(t, r.err, "instance "+id, "X-Seen: yes")
	}
}

func TestCall_otherTypes(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, map[string]*endpoint.Endpoint{"raw.echo": endpoint.New(func(_ context.Context, in *[]byte) (*[]byte, error) { return in, nil })},
		bus.WithCodec(codec.Raw))
	raw := []string{"call", "raw.echo", "-", "--media-type", "application/octet-stream"}
	send := func(body string, more ...string) result {
		return runWith(t, t.Context(), strings.NewReader(body), to(s, append(raw, more...)...))
	}
	assert.Equal(t, send("\x00\x1b[2J"), result{0, `{"mediaType":"application/octet-stream","base64":"ABtbMko="}` + "\n", ""})
	assert.Equal(t, send("\x00\x1b[2J", "--raw"), result{0, "\x00\x1b[2J", ""})
	assert.Equal(t, send("plain <text>"), result{0, `"plain <text>"` + "\n", ""})
}
