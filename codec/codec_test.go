package codec_test

import (
	"errors"
	"io"
	"reflect"
	"testing"

	"postbus.example/codec"
	"postbus.example/internal/assert"
)

// named is a codec that is nothing but a name.
type named string

func (n named) Name() string                           { return string(n) }
func (named) Append(dst []byte, _ any) ([]byte, error) { return dst, nil }
func (named) Decode([]byte, any) error                 { return nil }

func TestSetLookup(t *testing.T) {
	s := codec.NewSet(codec.JSON, codec.Raw)
	for in, want := range map[string]codec.Codec{
		"application/json":                  codec.JSON,
		"application/json; charset=utf-8":   codec.JSON,
		"Application/JSON":                  codec.JSON,
		" application/JSON ;v=1;w=\"a;b\"":  codec.JSON,
		"application/octet-stream":          codec.Raw,
		"":                                  nil,
		"application":                       nil,
		"application/json+x":                nil,
		"application/jso":                   nil,
		"; charset=utf-8":                   nil,
		"application/json, application/xml": nil,
	} {
		got, ok := s.Lookup(in)
		assert.Equal(t, ok, want != nil, in)
		assert.Equal(t, got, want, in)
	}
}

func TestSetOrder(t *testing.T) {
	first, second := named("a/a"), named("b/b")
	s := codec.NewSet(first, second, named("a/a"), nil)
	assert.Equal(t, s.Names(), []string{"a/a", "b/b"})
	assert.Equal(t, s.Len(), 2)
	assert.Equal(t, s.Default(), codec.Codec(first))
	s.Names()[0] = "changed"
	assert.Equal(t, s.Names()[0], "a/a")
	assert.Equal(t, s.With(codec.JSON, second).Names(), []string{"a/a", "b/b", "application/json"})
}

func TestFirstOfTwinsWins(t *testing.T) {
	twin := named("application/json")
	got, _ := codec.NewSet(twin, codec.JSON).Lookup("application/json")
	assert.Equal(t, got, codec.Codec(twin))
	got, _ = codec.NewSet(codec.JSON).With(twin).Lookup("application/json")
	assert.Equal(t, got, codec.JSON)
}

func TestZeroSet(t *testing.T) {
	var s codec.Set
	assert.True(t, s.Default() == nil)
	assert.Equal(t, s.Len(), 0)
	assert.Equal(t, s.Names(), []string{})
	_, ok := s.Lookup("application/json")
	assert.True(t, !ok)
	assert.Equal(t, s.With(codec.JSON).Len(), 1)
	assert.Equal(t, s.Len(), 0)
}

// TestWithSharesNothing grows one set into two: neither may write into the other's codecs.
func TestWithSharesNothing(t *testing.T) {
	base := codec.NewSet(named("a/1"), named("a/2"), named("a/3")) // three, so that append leaves room for a fourth
	left, right := base.With(named("l/l")), base.With(named("r/r"))
	assert.Equal(t, left.Names(), []string{"a/1", "a/2", "a/3", "l/l"})
	assert.Equal(t, right.Names(), []string{"a/1", "a/2", "a/3", "r/r"})
	assert.Equal(t, base.Len(), 3)
	list := []codec.Codec{codec.JSON}
	s := codec.NewSet(list...)
	list[0] = codec.Raw
	assert.Equal(t, s.Default(), codec.JSON)
}

func TestMediaType(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"application/json":               "application/json",
		"Text/Plain; Charset=UTF-8":      "text/plain",
		" application/cbor\t;":           "application/cbor",
		";":                              "",
		"application/json ; a=b ; c=\";": "application/json",
	} {
		assert.Equal(t, codec.MediaType(in), want, in)
	}
}

func TestRaw(t *testing.T) {
	data := []byte("data")
	var got []byte
	assert.NoError(t, codec.Raw.Decode(data[:2], &got))
	assert.True(t, &got[0] == &data[0], "shares the memory")
	_ = append(got, 'X')
	assert.Equal(t, string(data), "data", "has no room beyond its own bytes")
	assert.NoError(t, codec.Raw.Decode(nil, &got))
	assert.Equal(t, len(got), 0)

	text, none, blob := "x", (*[]byte)(nil), struct{ B []byte }{}
	for _, v := range []any{nil, []byte("by value"), &text, none, &blob} {
		_, err := codec.Raw.Append(nil, v)
		assert.True(t, err != nil)
		assert.True(t, codec.Raw.Decode(data, v) != nil)
	}
	check := codec.Raw.(codec.TypeChecker).CheckType
	assert.NoError(t, check(reflect.TypeFor[*[]byte]()))
	assert.NoError(t, check(reflect.TypeFor[[]byte]()))
	type bytes []byte
	for _, bad := range []reflect.Type{nil, reflect.TypeFor[*bytes](), reflect.TypeFor[**[]byte](), reflect.TypeFor[string]()} {
		_, ok := errors.AsType[*codec.TypeError](check(bad))
		assert.True(t, ok)
	}
}

func TestDecodeErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  codec.DecodeError
		want string
	}{
		{codec.DecodeError{Offset: -1, Problem: "bad"}, "bad"},
		{codec.DecodeError{Offset: 7, Problem: "bad"}, "bad (at offset 7)"},
		{codec.DecodeError{Offset: -1, Problem: "bad", Field: "a.b"}, `field "a.b": bad`},
		{codec.DecodeError{Offset: 0, Problem: "bad", Field: "a", Cause: errors.New("secret")}, `field "a": bad (at offset 0)`},
	} {
		assert.Equal(t, tt.err.Error(), tt.want)
	}
	assert.ErrorIs(t, &codec.DecodeError{Cause: io.EOF}, io.EOF)
}
