package codec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postbus.example/codec"
	"postbus.example/internal/assert"
)

type message struct {
	Text  string            `json:"text"`
	Num   int64             `json:"num,omitempty"`
	Float float64           `json:"float"`
	Quote int               `json:"quote,string"`
	Bytes []byte            `json:"bytes"`
	Raw   json.RawMessage   `json:"raw,omitempty"`
	Map   map[string]string `json:"map"`
	List  []*message        `json:"list"`
	Any   any               `json:"any"`
	inner
}

type inner struct {
	Plain bool
	Zero  *int `json:",omitzero"`
}

// same holds that the codec does what encoding/json does with v, and with its encoding.
func same(t fataler, v any) {
	want, wantErr := json.Marshal(v)
	got, err := codec.JSON.Append([]byte("x"), v)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("error %v, of encoding/json %v", err, wantErr)
	}
	if err == nil && string(got) != "x"+string(want) {
		t.Fatalf("got  %s\nwant x%s", got, want)
	}
}

type fataler interface{ Fatalf(string, ...any) }

func TestJSONBytesAreThoseOfTheStandardLibrary(t *testing.T) {
	for _, v := range []any{
		&message{}, &message{Text: "<script>&\u2028\u2029\x00\xff\"\\"}, &message{Raw: json.RawMessage(" {\"a\" : [1, 2]\n}")},
		&message{Raw: json.RawMessage("broken")}, new("text\n"), new(1e21), new(any(nil)), (*message)(nil), nil, &[]int{}, new([]int),
		&map[int]string{2: "b", 1: "a"}, new(json.Number("12.50")), new(json.Number("x")), &struct{}{},
		message{},
	} {
		same(t, v)
	}
	rapid.Check(t, func(t *rapid.T) { same(t, drawMessage(t, 3)) })
}

func drawMessage(t *rapid.T, depth int) *message {
	m := &message{
		Text:  rapid.String().Draw(t, "text"),
		Num:   rapid.Int64().Draw(t, "num"),
		Float: rapid.Float64().Draw(t, "float"),
		Quote: rapid.Int().Draw(t, "quote"),
		Bytes: rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"),
		Map:   rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "map"),
		Any:   rapid.SampledFrom([]any{nil, 1.5, "s", true, []any{"x"}, map[string]any{"k": nil}}).Draw(t, "any"),
		inner: inner{Plain: rapid.Bool().Draw(t, "plain")},
	}
	for range rapid.IntRange(0, depth).Draw(t, "list") {
		m.List = append(m.List, drawMessage(t, depth-1))
	}
	return m
}

func TestJSONDecodesAsTheStandardLibrary(t *testing.T) {
	for _, in := range []string{
		`{"TEXT":"a","Num":1}`, `{"text":"a","TEXT":"b"}`, `{"unknown":{"x":[1]},"plain":true,"PLAIN":false}`,
		`null`, ` {} `, "\n{\"quote\":\"7\"}\t", `{"list":[{"text":"x"},null]}`, `{"any":{"a":[1,"b"]}}`, `{"text":"\ud800"}`,
		`{"raw": { "a" : 1 } }`, `{} {}`, `{`, ` `, `{"quote":7}`, `{"num":1.5}`, `[]`, `{"text":null}`,
	} {
		want, got := message{Num: 9}, message{Num: 9}
		wantErr := json.Unmarshal([]byte(in), &want)
		err := codec.JSON.Decode([]byte(in), &got)
		assert.Equal(t, got, want, in)
		assert.Equal(t, err == nil, wantErr == nil, in)
		if err != nil {
			_, ok := errors.AsType[*codec.DecodeError](err)
			assert.True(t, ok, in)
			assert.Equal(t, errors.Unwrap(err), wantErr, in)
		}
	}
}

func TestJSONDecodeErrors(t *testing.T) {
	type line struct {
		Price  uint8   `json:"price"`
		Amount float32 `json:"amount"`
	}
	type order struct {
		Lines  []line          `json:"lines"`
		Done   bool            `json:"done"`
		Name   string          `json:"name"`
		Tags   map[string]int8 `json:"tags"`
		Refuse refusing        `json:"refuse"`
		Author authored        `json:"author"`
	}
	for _, tt := range []struct{ in, want string }{
		{`{"lines":[{"price":"x"}]}`, `field "lines.price": can't take JSON string, want an unsigned integer of 8 bits (at offset 22)`},
		{`{"lines":[{"price":256}]}`, `field "lines.price": can't take JSON number 256, want an unsigned integer of 8 bits (at offset 22)`},
		{`{"lines":[{"amount":[]}]}`, `field "lines.amount": can't take JSON array, want a number (at offset 21)`},
		{`{"lines":{}}`, `field "lines": can't take JSON object, want an array (at offset 10)`},
		{`{"done":1}`, `field "done": can't take JSON number, want a boolean (at offset 9)`},
		{`{"name":true}`, `field "name": can't take JSON bool, want a string (at offset 12)`},
		{`{"tags":[]}`, `field "tags": can't take JSON array, want an object (at offset 9)`},
		{`{"tags":{"a":300}}`, `field "tags": can't take JSON number 300, want an integer of 8 bits (at offset 16)`},
		{`[]`, `can't take JSON array, want an object (at offset 1)`},
		{`{"name":}`, `malformed JSON: invalid character '}' looking for beginning of value (at offset 9)`},
		{`{`, `malformed JSON: unexpected end of JSON input (at offset 1)`},
		{`{"refuse":1}`, `JSON of the wrong form`},
		{`{"author":1}`, `field "author": must be nice (at offset 3)`},
		{``, `the body is empty, want JSON`},
	} {
		err := codec.JSON.Decode([]byte(tt.in), &order{})
		e, ok := errors.AsType[*codec.DecodeError](err)
		assert.True(t, ok, tt.in)
		assert.Equal(t, e.Error(), tt.want, tt.in)
	}
	long := codec.JSON.Decode([]byte(`{"lines":[{"price":`+strings.Repeat("9", 1<<16)+`}]}`), &order{})
	assert.True(t, len(long.Error()) < 300, "an error is shorter than its cause")
}

// refusing and authored are types that decode themselves, badly: the text of the first is not for the peer.
type refusing struct{}

func (*refusing) UnmarshalJSON([]byte) error { return errors.New("secret: connection to db-7 lost") }

type authored struct{}

func (*authored) UnmarshalJSON([]byte) error {
	return &codec.DecodeError{Field: "author", Offset: 3, Problem: "must be nice"}
}

func TestJSONDecodeBlamesTheCaller(t *testing.T) {
	for _, v := range []any{nil, message{}, (*message)(nil)} {
		err := codec.JSON.Decode([]byte(`{}`), v)
		_, blamed := errors.AsType[*codec.DecodeError](err)
		assert.True(t, err != nil && !blamed)
	}
}

func TestJSONEmptyBody(t *testing.T) {
	for _, v := range []any{&struct{}{}, &refusing{}} {
		assert.NoError(t, codec.JSON.Decode(nil, v))
		assert.NoError(t, codec.JSON.Decode([]byte{}, v))
	}
	for _, v := range []any{&message{}, new(any), new(0), &[]int{}, &struct{ _ int }{}, nil} {
		assert.True(t, codec.JSON.Decode(nil, v) != nil)
	}
	assert.True(t, codec.JSON.Decode([]byte(" "), &struct{}{}) != nil, "spaces are not empty")
}
