package protobuf_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec"
	"postbus.example/codec/codectest"
	"postbus.example/codec/protobuf"
	"postbus.example/internal/assert"
)

var samples = codectest.Samples(
	func() any { return wrapperspb.String("grüße \u2028 <&>") },
	func() any { return wrapperspb.Bytes([]byte{0, 1, 2, 0xff}) },
	func() any { return wrapperspb.Int64(math.MinInt64) },
	func() any { return timestamppb.New(time.Unix(1e9, 42)) },
	func() any {
		return &structpb.Struct{Fields: map[string]*structpb.Value{
			"a": structpb.NewNumberValue(1), "b": structpb.NewStringValue("two"), "c": structpb.NewNullValue(),
			"d": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewBoolValue(true)}}),
		}}
	},
	func() any { return &emptypb.Empty{} },
)

var equal = codectest.Equal(func(got, want any) bool {
	g, ok := got.(proto.Message)
	return ok && proto.Equal(g, want.(proto.Message))
})

var invalid = codectest.Unencodable(func() any { return wrapperspb.String("\xff") })

func TestConformance(t *testing.T) {
	plain := codectest.Unencodable(func() any { return &struct{ A int }{} })
	t.Run("binary", func(t *testing.T) { codectest.Run(t, protobuf.Binary, samples, equal, invalid, plain) })
	t.Run("json", func(t *testing.T) { codectest.Run(t, protobuf.JSON, samples, equal, invalid) })
	t.Run("plain json", func(t *testing.T) { codectest.Run(t, protobuf.JSON) })
}

func TestNames(t *testing.T) {
	assert.Equal(t, protobuf.Binary.Name(), "application/proto")
	assert.Equal(t, protobuf.JSON.Name(), "application/json")
}

func TestBinaryIsTheWireFormat(t *testing.T) {
	got, err := protobuf.Binary.Append([]byte("x"), wrapperspb.String("hi"))
	assert.NoError(t, err)
	assert.Equal(t, string(got), "x\x0a\x02hi")
}

func TestDecodeResets(t *testing.T) {
	for _, c := range []codec.Codec{protobuf.Binary, protobuf.JSON} {
		first, err := c.Append(nil, &structpb.ListValue{Values: []*structpb.Value{structpb.NewBoolValue(true)}})
		assert.NoError(t, err)
		m := &structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(7)}}
		assert.NoError(t, c.Decode(first, m))
		assert.Equal(t, len(m.GetValues()), 1, c.Name())
		assert.True(t, m.GetValues()[0].GetBoolValue(), c.Name())
	}
}

func TestEmptyBody(t *testing.T) {
	m := wrapperspb.String("old")
	assert.NoError(t, protobuf.Binary.Decode(nil, m))
	assert.Equal(t, m.GetValue(), "")
	assert.NoError(t, protobuf.JSON.Decode(nil, &emptypb.Empty{}))
	assert.NoError(t, protobuf.JSON.Decode(nil, &struct{}{}))
	for _, v := range []any{m, &struct{ A int }{}} {
		_, ok := errors.AsType[*codec.DecodeError](protobuf.JSON.Decode(nil, v))
		assert.True(t, ok)
	}
}

func TestPointerToPointer(t *testing.T) {
	for _, c := range []codec.Codec{protobuf.Binary, protobuf.JSON} {
		m := wrapperspb.String("hi")
		data, err := c.Append(nil, &m)
		assert.NoError(t, err)
		var got *wrapperspb.StringValue
		assert.NoError(t, c.Decode(data, &got))
		assert.Equal(t, got.GetValue(), "hi")
		var none *wrapperspb.StringValue
		for _, v := range []any{none, &none, &[]*wrapperspb.StringValue{}, new(**wrapperspb.StringValue)} {
			if c == protobuf.Binary || reflect.TypeOf(v).Elem().Kind() != reflect.Slice && reflect.TypeOf(v) != reflect.TypeFor[***wrapperspb.StringValue]() {
				_, err := c.Append(nil, v)
				assert.True(t, err != nil, c.Name(), reflect.TypeOf(v).String())
			}
		}
		assert.True(t, c.Decode(data, none) != nil)
	}
}

func TestJSONMapping(t *testing.T) {
	got, err := protobuf.JSON.Append([]byte("x"), timestamppb.New(time.Unix(0, 0)))
	assert.NoError(t, err)
	assert.Equal(t, string(got), `x"1970-01-01T00:00:00Z"`)
	a := &anypb.Any{}
	assert.NoError(t, protobuf.JSON.Decode([]byte(`{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"v","new":1}`), a))
	got, err = protobuf.JSON.Append(nil, &struct{ A int }{1})
	assert.NoError(t, err)
	assert.Equal(t, string(got), `{"A":1}`)
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		c      codec.Codec
		into   any
		data   string
		offset int64
		text   string
	}{
		{protobuf.Binary, &wrapperspb.StringValue{}, "\x0a\x05hi", -1, "malformed protobuf: cannot parse invalid wire-format data"},
		{protobuf.Binary, &wrapperspb.StringValue{}, "\x0a\x01\xff", -1, "contains invalid UTF-8"},
		{protobuf.JSON, &structpb.Struct{}, `{"a":}`, 6, "malformed JSON: invalid character '}'"},
		{protobuf.JSON, &wrapperspb.Int32Value{}, `"x"`, 0, `invalid value for int32`},
		{protobuf.JSON, &anypb.Any{}, "{\n \"ü\": 1, \"@type\": \"x/y\"}", 21, "unable to resolve"},
		{protobuf.JSON, &timestamppb.Timestamp{}, `"today"`, 0, "invalid google.protobuf.Timestamp"},
		{protobuf.JSON, &struct{ A int }{}, `{"A":"x"}`, 8, "can't take JSON string"},
		{protobuf.JSON, &wrapperspb.Int32Value{}, `"` + strings.Repeat("x", 9999) + `"`, 0, "…"},
	} {
		err := tt.c.Decode([]byte(tt.data), tt.into)
		e, ok := errors.AsType[*codec.DecodeError](err)
		assert.True(t, ok, tt.data)
		assert.Contains(t, e.Error(), tt.text)
		assert.Equal(t, e.Offset, tt.offset, tt.data[:min(9, len(tt.data))], e.Error())
		assert.True(t, len(e.Error()) < 400 && !strings.Contains(e.Error(), "\u00a0") && !strings.Contains(e.Error(), "proto:"), e.Error())
		assert.True(t, e.Cause != nil)
	}
}

type promoted struct {
	*wrapperspb.StringValue
	Extra int
}

func TestCheckType(t *testing.T) {
	binary, jsonpb := protobuf.Binary.(codec.TypeChecker), protobuf.JSON.(codec.TypeChecker)
	for _, good := range []reflect.Type{
		reflect.TypeFor[wrapperspb.StringValue](), reflect.TypeFor[*wrapperspb.StringValue](), reflect.TypeFor[**wrapperspb.StringValue](),
	} {
		assert.NoError(t, binary.CheckType(good))
		assert.NoError(t, jsonpb.CheckType(good))
	}
	for _, bad := range []reflect.Type{
		nil, reflect.TypeFor[struct{ A int }](), reflect.TypeFor[*int](), reflect.TypeFor[[]*wrapperspb.StringValue](),
		reflect.TypeFor[proto.Message](), reflect.TypeFor[*proto.Message](), reflect.TypeFor[***wrapperspb.StringValue](),
	} {
		e, ok := errors.AsType[*codec.TypeError](binary.CheckType(bad))
		assert.True(t, ok)
		assert.Contains(t, e.Error(), "application/proto can't encode", "generated types")
	}
	for _, c := range []codec.TypeChecker{binary, jsonpb} {
		assert.Contains(t, c.CheckType(reflect.TypeFor[*promoted]()).Error(), "promoted", "embeds a message")
	}
	assert.NoError(t, jsonpb.CheckType(reflect.TypeFor[struct{ A int }]()))
	assert.Contains(t, jsonpb.CheckType(reflect.TypeFor[*struct{ A chan int }]()).Error(), ".A of type chan int")
}

// TestAllocs holds that a message is written where the caller says, and that decoding takes memory for what it has to
// keep only: the text of a StringValue. The library's reset and its merge need none.
func TestAllocs(t *testing.T) {
	m, buf, got := wrapperspb.String("hello"), make([]byte, 0, 64), new(wrapperspb.StringValue)
	data, err := protobuf.Binary.Append(buf, m)
	assert.NoError(t, err)
	assert.Equal(t, testing.AllocsPerRun(100, func() { _, _ = protobuf.Binary.Append(buf, m) }), 0.0, "append")
	assert.Equal(t, testing.AllocsPerRun(100, func() { _ = protobuf.Binary.Decode(data, got) }), 1.0, "decode a text")
	assert.Equal(t, got.GetValue(), "hello")
	number := new(wrapperspb.DoubleValue)
	data, err = protobuf.Binary.Append(nil, wrapperspb.Double(0.5))
	assert.NoError(t, err)
	assert.Equal(t, testing.AllocsPerRun(100, func() { _ = protobuf.Binary.Decode(data, number) }), 0.0, "decode a number")
	long := wrapperspb.String(strings.Repeat("x", 1<<16))
	assert.Equal(t, testing.AllocsPerRun(100, func() { _, _ = protobuf.Binary.Append(nil, long) }), 1.0, "grows once, to the right size")
}

func BenchmarkBinary(b *testing.B) {
	m, buf := wrapperspb.String("hello"), make([]byte, 0, 64)
	data, err := protobuf.Binary.Append(nil, m)
	assert.NoError(b, err)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = protobuf.Binary.Append(buf, m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = protobuf.Binary.Decode(data, m)
		}
	})
}
