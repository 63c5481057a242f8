package endpoint_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/codec/jsonv2"
	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
)

// BenchmarkEdge is a typed call through a Mux, so encode and decode on both sides, with messages of three sizes.
func BenchmarkEdge(b *testing.B) {
	for _, size := range []int{4, 1 << 10, 64 << 10} {
		text := strings.Repeat("text", size/4)
		for name, c := range map[string]codec.Codec{"JSON": codec.JSON, "jsonv2": jsonv2.JSON, "CBOR": cbor.CBOR} {
			b.Run(fmt.Sprint(name, "/", size), func(b *testing.B) { benchmarkEdge(b, c, &worded{Text: text}) })
		}
		b.Run(fmt.Sprint("protobuf/", size), func(b *testing.B) { benchmarkEdge(b, protobuf.Binary, wrapperspb.String(text)) })
	}
}

func benchmarkEdge[T any](b *testing.B, c codec.Codec, m *T) {
	b.Helper()
	mux := serve(b, endpoint.New(func(_ context.Context, m *T) (*T, error) { return m, nil }), endpoint.MuxCodecs(c))
	echo := endpoint.Caller[*T, *T](mux, "svc.op", endpoint.Codec(c))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := echo(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
