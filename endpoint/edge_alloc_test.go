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
	"postbus.example/internal/assert"
)

// edgeCount encodes a request and decodes it as its own reply, and counts what that costs besides the Call: what
// stands between a typed function and a transport that moves bytes for nothing.
func edgeCount[T any](t *testing.T, c codec.Codec, m *T) float64 {
	t.Helper()
	accepts := codec.NewSet(c)
	loop := transportFunc(func(_ context.Context, call *endpoint.Call) (any, error) {
		body, mediaType, err := call.Encoded()
		if err != nil {
			return nil, err
		}
		return call.SetReply(body, mediaType, accepts)
	})
	echo := endpoint.Caller[*T, *T](loop, "svc.op", endpoint.Codec(c))
	if _, err := echo(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return allocs(t, func() { _, _ = echo(t.Context(), m) })
}

// flat is a message whose memory is its own: what is counted beyond the reply itself is the codec's and the edge's.
type flat struct {
	A int     `json:"a"`
	B float64 `json:"b"`
}

// worded is a message with two more pieces of memory: a text, and a slice.
type worded struct {
	Text string `json:"text"`
	List []int  `json:"list"`
}

// TestEdgeAllocs holds what a message costs: the Call, the reply's message, and what is in it. Encoding is in memory that is
// used again, and codecs have no state of their own to make anew.
func TestEdgeAllocs(t *testing.T) {
	const call, reply = 1, 1
	large := &worded{Text: strings.Repeat("text ", 1000)}
	huge := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct{ got, want float64 }{
		"raw":              {edgeCount(t, codec.Raw, &[]byte{1, 2, 3}), call + reply},
		"JSON":             {edgeCount(t, codec.JSON, &flat{1, 0.5}), call + reply},
		"JSON, text, list": {edgeCount(t, codec.JSON, &worded{"text", []int{1, 2, 3}}), call + reply + 4}, // the list grows
		"jsonv2":           {edgeCount(t, jsonv2.JSON, &flat{1, 0.5}), call + reply},
		"jsonv2, large":    {edgeCount(t, jsonv2.JSON, large), call + reply + 1},
		"CBOR":             {edgeCount(t, cbor.CBOR, &flat{1, 0.5}), call + reply},
		"protobuf":         {edgeCount(t, protobuf.Binary, wrapperspb.Int64(7)), call + reply},
		"protobuf, text":   {edgeCount(t, protobuf.Binary, wrapperspb.String("text")), call + reply + 1},
		"protobuf, huge":   {edgeCount(t, protobuf.Binary, wrapperspb.String(huge)), call + reply + 1},
		"protobuf, large":  {edgeCount(t, protobuf.Binary, wrapperspb.String(large.Text)), call + reply + 1},
	} {
		if c.got > c.want {
			t.Errorf("%s: %v allocations, at most %v", name, c.got, c.want)
		}
	}
}

// TestSmallMessagesShedLargeBuffers holds that memory for large messages goes when they cease to come.
func TestSmallMessagesShedLargeBuffers(t *testing.T) {
	room := 0
	look := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		room = cap(c.Body())
		return fixed, nil
	})
	send := endpoint.Caller[*worded, *addResponse](look, "svc.op")
	huge, small := &worded{Text: strings.Repeat("x", 1<<20)}, &worded{Text: "x"}
	call := func(m *worded) {
		_, err := send(t.Context(), m)
		assert.NoError(t, err)
	}
	for range 5 {
		call(huge)
		assert.True(t, room >= 1<<20)
	}
	for range 100 {
		call(small)
	}
	assert.True(t, room <= 64<<10, "a small message has", fmt.Sprint(room))
}
