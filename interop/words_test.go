package interop_test

import (
	"context"
	"iter"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/bus"
	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/grpcbridge"
	"postbus.example/internal/assert"
)

const wordsProto = "acme/words/v1/words.proto"

type text = wrapperspb.StringValue

// words serves acme.words.v1.Words on a bus, with a bridge in front that speaks everything, and returns the bridge's URL.
func words(t *testing.T) (url string) {
	t.Helper()
	nats := broker(t)
	codecs := []bus.Option{bus.WithCodec(protobuf.Binary), bus.WithCodecs(protobuf.JSON)}
	service := connect(t, nats, codecs...)
	serve(t, service, "acme.words.v1.Words.Upper", endpoint.New(upper, endpoint.ReadOnly()))
	serve(t, service, "acme.words.v1.Words.Letters", endpoint.NewServerStream(endpoint.Emit(letters)))
	serve(t, service, "acme.words.v1.Words.Join", endpoint.NewClientStream(join))
	serve(t, service, "acme.words.v1.Words.Lengths", endpoint.NewBidiStream(endpoint.Emit(lengths)))
	b := httpbridge.New(connect(t, nats, codecs...), httpbridge.Expose("acme.words.v1.Words.*"),
		httpbridge.WithHeaders([]string{"X-In"}, []string{"X-Out", "X-End"}), grpcbridge.Enable())
	assert.NoError(t, b.Err())
	s := httptest.NewUnstartedServer(b)
	s.Config.Protocols = b.Server("").Protocols
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// host is the part of a URL that names the server.
func host(t testing.TB, url string) string {
	t.Helper()
	h := strings.TrimPrefix(url, "http://")
	_, _, err := net.SplitHostPort(h)
	assert.NoError(t, err)
	return h
}

func meta(ctx context.Context) {
	c := endpoint.FromContext(ctx)
	c.Reply.Set("X-Out", c.Header.Get("X-In"))
	c.Trailer.Set("X-End", "bye")
}

func upper(ctx context.Context, r *text) (*text, error) {
	meta(ctx)
	switch r.GetValue() {
	case "thirteen":
		return nil, unlucky()
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return wrapperspb.String(strings.ToUpper(r.GetValue())), nil
}

func unlucky() error {
	detail, _ := proto.Marshal(wrapperspb.String("triskaidekaphobia"))
	return endpoint.FailedPrecondition.New("13 is unlucky").With(endpoint.Detail{Type: "google.protobuf.StringValue", Value: detail})
}

func letters(ctx context.Context, r *text, send func(*text) error) error {
	meta(ctx)
	for _, c := range r.GetValue() {
		if c == '!' {
			return unlucky()
		}
		if err := send(wrapperspb.String(string(c))); err != nil {
			return err
		}
	}
	return nil
}

func join(ctx context.Context, in iter.Seq2[*text, error]) (*text, error) {
	meta(ctx)
	var all []string
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		all = append(all, r.GetValue())
	}
	return wrapperspb.String(strings.Join(all, " ")), nil
}

func lengths(ctx context.Context, in iter.Seq2[*text, error], send func(*wrapperspb.Int64Value) error) error {
	meta(ctx)
	for r, err := range in {
		if err != nil {
			return err
		}
		if err := send(wrapperspb.Int64(int64(len(r.GetValue())))); err != nil {
			return err
		}
	}
	return nil
}

// descriptors writes what words.proto and its imports say to a file, for clients that take that in place of generated code.
func descriptors(t *testing.T) (path string) {
	t.Helper()
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{"proto"}})}
	files, err := c.Compile(t.Context(), "google/protobuf/wrappers.proto", wordsProto)
	assert.NoError(t, err)
	set := &descriptorpb.FileDescriptorSet{}
	for _, f := range files {
		set.File = append(set.File, protoutil.ProtoFromFileDescriptor(f))
	}
	data, err := proto.Marshal(set)
	assert.NoError(t, err)
	path = filepath.Join(t.TempDir(), "words.binpb")
	assert.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}
