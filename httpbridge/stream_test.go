package httpbridge_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

type number struct {
	N int `json:"n"`
}

// count streams 1 to N; 13 is unlucky.
func count(_ context.Context, r *number) iter.Seq2[*number, error] {
	return func(yield func(*number, error) bool) {
		for i := range r.N {
			if i+1 == 13 {
				yield(nil, endpoint.FailedPrecondition.New("13 is unlucky"))
				return
			}
			if !yield(&number{i + 1}, nil) {
				return
			}
		}
	}
}

// total adds up what it gets.
func total(_ context.Context, in iter.Seq2[*number, error]) (*number, error) {
	sum := &number{}
	for r, err := range in {
		switch {
		case err != nil:
			return nil, err
		case r.N == 13:
			return nil, endpoint.FailedPrecondition.New("13 is unlucky")
		}
		sum.N += r.N
	}
	return sum, nil
}

// double answers each number at once.
func double(_ context.Context, in iter.Seq2[*number, error]) iter.Seq2[*number, error] {
	return func(yield func(*number, error) bool) {
		for r, err := range in {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&number{2 * r.N}, nil) {
				return
			}
		}
	}
}

// newStreams serves one endpoint of each kind, svc.count and svc.get read-only.
func newStreams(t testing.TB) *endpoint.Mux {
	t.Helper()
	m := endpoint.NewMux(endpoint.MuxCodecs(codec.JSON, cbor.CBOR))
	serve(t, m, "svc.add", endpoint.New(add, endpoint.Idempotent()))
	serve(t, m, "svc.get", endpoint.New(add, endpoint.ReadOnly()))
	serve(t, m, "svc.count", endpoint.NewServerStream(count, endpoint.ReadOnly()))
	serve(t, m, "svc.total", endpoint.NewClientStream(total))
	serve(t, m, "svc.double", endpoint.NewBidiStream(double))
	return m
}

// overAll runs a test over HTTP/1.1, HTTP/2 without TLS and HTTP/2 with it.
func overAll(t *testing.T, tr endpoint.Transport, test func(t *testing.T, s *site), opts ...httpbridge.Option) {
	t.Helper()
	t.Run("HTTP1", func(t *testing.T) { test(t, start(t, tr, opts...)) })
	t.Run("h2c", func(t *testing.T) { test(t, start2(t, tr, false, opts...)) })
	t.Run("TLS", func(t *testing.T) { test(t, start2(t, tr, true, opts...)) })
}

// start2 is start with HTTP/2.
func start2(t testing.TB, tr endpoint.Transport, secure bool, opts ...httpbridge.Option) *site {
	t.Helper()
	s := &site{log: &journal{}}
	s.bridge = httpbridge.New(tr, append(opts, httpbridge.WithLogger(slog.New(s.log)))...)
	assert.NoError(t, s.bridge.Err())
	s.Server = httptest.NewUnstartedServer(s.bridge)
	s.Config = s.bridge.Server("")
	if secure {
		s.EnableHTTP2 = true
		s.StartTLS()
		s.client = s.Client()
	} else {
		s.Start()
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		s.client = &http.Client{Transport: &http.Transport{Protocols: protocols}}
	}
	s.client.Transport.(*http.Transport).DisableCompression = true
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.Close()
	})
	return s
}

// frame is one envelope.
type frame struct {
	flags byte
	data  string
}

func enveloped(frames ...frame) string {
	var b bytes.Buffer
	for _, f := range frames {
		b.WriteByte(f.flags)
		_ = binary.Write(&b, binary.BigEndian, uint32(len(f.data)))
		b.WriteString(f.data)
	}
	return b.String()
}

func messages(texts ...string) string {
	var frames []frame
	for _, t := range texts {
		frames = append(frames, frame{0, t})
	}
	return enveloped(frames...)
}

// nextFrame reads one envelope.
func nextFrame(t testing.TB, r io.Reader) frame {
	t.Helper()
	var head [5]byte
	_, err := io.ReadFull(r, head[:])
	assert.NoError(t, err)
	data := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(r, data)
	assert.NoError(t, err)
	return frame{head[0], string(data)}
}

// outcome is a whole answer of Connect.
type outcome struct {
	items    []string
	err      *endpoint.Error
	metadata http.Header
	header   http.Header
}

func ended(t testing.TB, r reply) outcome {
	t.Helper()
	assert.Equal(t, r.status, 200, r.body)
	assert.Contains(t, r.header.Get("Content-Type"), "application/connect+")
	out := outcome{header: r.header}
	body := strings.NewReader(r.body)
	for {
		f := nextFrame(t, body)
		if f.flags&1 != 0 {
			z, err := gzip.NewReader(strings.NewReader(f.data))
			assert.NoError(t, err)
			plain, err := io.ReadAll(z)
			assert.NoError(t, err)
			f.data = string(plain)
		}
		if f.flags&2 == 0 {
			out.items = append(out.items, f.data)
			continue
		}
		var end struct {
			Error    *endpoint.Error
			Metadata http.Header
		}
		assert.NoError(t, json.Unmarshal([]byte(f.data), &end), f.data)
		assert.Equal(t, body.Len(), 0, "nothing comes after the end")
		out.err, out.metadata = end.Error, end.Metadata
		return out
	}
}

func (s *site) connect(t testing.TB, path, body string, kv ...string) outcome {
	t.Helper()
	return ended(t, s.do(t, http.MethodPost, path, body, append([]string{"Content-Type", "application/connect+json"}, kv...)...))
}

func (o outcome) failed(t testing.TB, code endpoint.Code) string {
	t.Helper()
	assert.True(t, o.err != nil, "failed")
	assert.Equal(t, o.err.Code, code, o.err.Message)
	return o.err.Message
}

func TestConnect(t *testing.T) {
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		out := s.connect(t, "/svc/count", messages(`{"n":3}`))
		assert.Equal(t, out.items, []string{`{"n":1}`, `{"n":2}`, `{"n":3}`})
		assert.True(t, out.err == nil)
		assert.Equal(t, out.header.Get("X-Accel-Buffering"), "no")

		out = s.connect(t, "/svc/count", messages(`{"n":20}`))
		assert.Equal(t, len(out.items), 12)
		assert.Equal(t, out.failed(t, endpoint.FailedPrecondition), "13 is unlucky")

		out = s.connect(t, "/svc/total", messages(`{"n":1}`, `{"n":2}`, `{"n":39}`))
		assert.Equal(t, out.items, []string{`{"n":42}`})
		out = s.connect(t, "/svc/total", messages())
		assert.Equal(t, out.items, []string{`{"n":0}`})
		out = s.connect(t, "/svc/total", messages(`{"n":1}`, `{"n":13}`, `{"n":39}`))
		assert.Equal(t, out.failed(t, endpoint.FailedPrecondition), "13 is unlucky")

		out = s.connect(t, "/svc/double", messages(`{"n":1}`, `{"n":2}`))
		assert.Equal(t, out.items, []string{`{"n":2}`, `{"n":4}`})
		assert.True(t, out.err == nil)
	}, httpbridge.Expose("svc.*"))
}

func TestConnect_binary(t *testing.T) {
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		encode := func(n int) string {
			b, err := cbor.CBOR.Append(nil, &number{n})
			assert.NoError(t, err)
			return string(b)
		}
		for path, want := range map[string][]string{"/svc/count": {encode(1), encode(2)}, "/svc/total": {encode(2)}, "/svc/double": {encode(4)}} {
			out := ended(t, s.do(t, "POST", path, messages(encode(2)), "Content-Type", "application/connect+cbor"))
			assert.Equal(t, out.items, want, path)
			assert.Equal(t, out.header.Get("Content-Type"), "application/connect+cbor")
		}
		out := ended(t, s.do(t, "POST", "/svc/count", messages("x"), "Content-Type", "application/connect+foo"))
		assert.Contains(t, out.failed(t, endpoint.Unknown), "application/foo")
	}, httpbridge.Expose("svc.*"))
}

// TestConnect_malformed are requests that no client of Connect's sends: a clear error, and nothing executed.
func TestConnect_malformed(t *testing.T) {
	bomb := enveloped(frame{1, gzipped(t, strings.Repeat("x", 4<<20))})
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		one := messages(`{"n":1}`)
		for name, tt := range map[string]struct {
			path, body string
			kv         []string
			code       endpoint.Code
			msg        string
		}{
			"no message":              {"/svc/count", "", nil, endpoint.Unimplemented, "no message"},
			"two messages":            {"/svc/count", one + one, nil, endpoint.Unimplemented, "more than one"},
			"half a head":             {"/svc/count", one[:3], nil, endpoint.InvalidArgument, "head"},
			"half a message":          {"/svc/count", one[:8], nil, endpoint.InvalidArgument, "3 of its 7 bytes"},
			"half a second message":   {"/svc/total", one + one[:8], nil, endpoint.InvalidArgument, "message 1"},
			"half a second head":      {"/svc/total", one + one[:2], nil, endpoint.InvalidArgument, "message 1"},
			"unknown flags":           {"/svc/count", enveloped(frame{4, "{}"}), nil, endpoint.InvalidArgument, "0x04"},
			"an end":                  {"/svc/double", enveloped(frame{2, "{}"}), nil, endpoint.InvalidArgument, "0x02"},
			"compressed, says nobody": {"/svc/count", enveloped(frame{1, "{}"}), nil, endpoint.Internal, "Connect-Content-Encoding"},
			"compressed, really not":  {"/svc/count", enveloped(frame{1, "{}"}), []string{"Connect-Content-Encoding", "gzip"}, endpoint.InvalidArgument, "gzip"},
			"unknown compression":     {"/svc/total", one, []string{"Connect-Content-Encoding", "br"}, endpoint.Unimplemented, "gzip"},
			"compressed as a whole":   {"/svc/count", one, []string{"Content-Encoding", "gzip"}, endpoint.Unimplemented, "message by message"},
			"bad JSON":                {"/svc/count", messages(`{"n":x}`), nil, endpoint.InvalidArgument, "offset"},
			"bad JSON in a stream":    {"/svc/total", one + messages(`{"n":x}`), nil, endpoint.InvalidArgument, "offset"},
			"too large":               {"/svc/count", messages(strings.Repeat("x", 1<<20+1)), nil, endpoint.ResourceExhausted, "1048577"},
			"too large in a stream":   {"/svc/total", one + messages(strings.Repeat("x", 1<<20+1)), nil, endpoint.ResourceExhausted, "1048577"},
			"a bomb":                  {"/svc/total", bomb, []string{"Connect-Content-Encoding", "gzip"}, endpoint.ResourceExhausted, "1048576"},
			"a bad timeout":           {"/svc/count", one, []string{"Connect-Timeout-Ms", "x"}, endpoint.InvalidArgument, "Connect-Timeout-Ms"},
			"another version":         {"/svc/count", one, []string{"Connect-Protocol-Version", "2"}, endpoint.InvalidArgument, "must be 1"},
		} {
			t.Run(name, func(t *testing.T) {
				out := s.connect(t, tt.path, tt.body, tt.kv...)
				assert.Contains(t, out.failed(t, tt.code), tt.msg)
				assert.Equal(t, len(out.items), 0)
			})
		}
	}, httpbridge.Expose("svc.*"))
}

func gzipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	assert.NoError(t, err)
	assert.NoError(t, z.Close())
	return b.String()
}

func TestConnect_gzip(t *testing.T) {
	m := endpoint.NewMux()
	long := strings.Repeat("a", 3000)
	type text struct{ S string }
	serve(t, m, "svc.twice", endpoint.NewServerStream(func(_ context.Context, r *text) iter.Seq2[*text, error] {
		return func(yield func(*text, error) bool) { _ = yield(r, nil) && yield(&text{"short"}, nil) }
	}))
	overAll(t, m, func(t *testing.T, s *site) {
		t.Helper()
		message := `{"S":"` + long + `"}`
		r := s.do(t, "POST", "/svc/twice", enveloped(frame{1, gzipped(t, message)}), "Content-Type", "application/connect+json",
			"Connect-Content-Encoding", "gzip", "Connect-Accept-Encoding", "gzip")
		assert.Equal(t, ended(t, r).items, []string{message, `{"S":"short"}`})
		assert.Equal(t, r.header.Get("Connect-Content-Encoding"), "gzip")
		assert.True(t, len(r.body) < len(message))
		out := s.connect(t, "/svc/twice", messages(message), "Connect-Content-Encoding", "gzip")
		assert.Equal(t, out.items, []string{message, `{"S":"short"}`})
		assert.Equal(t, out.header.Get("Connect-Content-Encoding"), "")
		assert.Equal(t, out.header.Get("Connect-Accept-Encoding"), "gzip")
	}, httpbridge.Expose("svc.*"))
}

// TestConnect_duplex holds that HTTP/2 carries both ways at once, and HTTP/1.1, too, where the client does.
func TestConnect_duplex(t *testing.T) {
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		body, up := io.Pipe()
		r, err := http.NewRequest(http.MethodPost, s.URL+"/svc/double", body)
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/connect+json")
		answer := make(chan *http.Response, 1)
		go func() {
			resp, err := s.client.Do(r)
			assert.NoError(t, err)
			answer <- resp
		}()
		_, err = io.WriteString(up, messages(`{"n":1}`))
		assert.NoError(t, err)
		resp := <-answer
		defer resp.Body.Close()
		from := bufio.NewReader(resp.Body)
		assert.Equal(t, nextFrame(t, from), frame{0, `{"n":2}`})
		for i := range 5 {
			_, err = io.WriteString(up, messages(`{"n":`+string(rune(48+i))+`}`))
			assert.NoError(t, err)
			assert.Equal(t, nextFrame(t, from), frame{0, `{"n":` + string(rune(48+2*i)) + `}`})
		}
		assert.NoError(t, up.Close())
		assert.Equal(t, nextFrame(t, from), frame{2, `{}`})
	}, httpbridge.Expose("svc.*"))
}
