package codec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"postbus.example/codec"
	"postbus.example/internal/assert"
)

type small struct {
	A    int    `json:"a"`
	Name string `json:"name"`
}

func TestJSONAppendAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop values at random, which costs allocations")
	}
	m := &small{1, "<n>"}
	data, err := codec.JSON.Append(nil, m)
	assert.NoError(t, err)
	for _, room := range []int{len(data), 256} { // the exact size, too
		buf := make([]byte, 0, room)
		got := testing.AllocsPerRun(200, func() {
			out, err := codec.JSON.Append(buf, m)
			if err != nil || &out[0] != &buf[:1][0] {
				t.Fatal("Append left its buffer:", err)
			}
		})
		assert.Equal(t, got, 0.0, "allocations")
	}
}

// hostile panics, fails or encodes another message in the midst of its own encoding.
type hostile struct{ do string }

func (h hostile) MarshalJSON() ([]byte, error) {
	switch h.do {
	case "panic":
		panic("hostile")
	case "fail":
		return nil, errors.New("fail")
	case "nest":
		return codec.JSON.Append(nil, &small{2, "nested"})
	case "broken":
		return []byte(`{"a"`), nil
	}
	return []byte(`"\n"`), nil
}

func (h *hostile) UnmarshalJSON([]byte) error {
	if h.do == "panic" {
		panic("hostile")
	}
	return nil
}

// TestJSONSurvivesHostileMarshalers uses the pooled encoders after each kind of accident.
func TestJSONSurvivesHostileMarshalers(t *testing.T) {
	type outer struct {
		First small
		H     hostile
	}
	for range 50 {
		for _, do := range []string{"panic", "fail", "nest", "broken", ""} {
			dst := append(make([]byte, 0, 512), "prefix"...)
			out, err := appendRecovering(dst, &outer{H: hostile{do}})
			assert.Equal(t, string(dst), "prefix", do)
			switch do {
			case "nest":
				assert.NoError(t, err)
				assert.Equal(t, string(out), `prefix{"First":{"a":0,"name":""},"H":{"a":2,"name":"nested"}}`)
			case "":
				assert.NoError(t, err)
				assert.True(t, strings.HasSuffix(string(out), `"H":"\n"}`))
			default:
				assert.True(t, err != nil, do)
			}
			after, err := codec.JSON.Append(nil, &small{1, "after"})
			assert.NoError(t, err)
			assert.Equal(t, string(after), `{"a":1,"name":"after"}`, do)
		}
		assert.True(t, panics(func() { _ = codec.JSON.Decode([]byte(`{}`), &hostile{"panic"}) }))
		var got small
		assert.NoError(t, codec.JSON.Decode([]byte(`{"a":1}`), &got))
		assert.Equal(t, got.A, 1)
	}
}

func appendRecovering(dst []byte, v any) (out []byte, err error) {
	if panics(func() { out, err = codec.JSON.Append(dst, v) }) {
		err = errors.New("panicked")
	}
	return out, err
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func BenchmarkJSONAppend(b *testing.B) {
	m, buf := &small{1, "name"}, make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.JSON.Append(buf, m); err != nil {
			b.Fatal(err)
		}
	}
}

// TestJSONDecodeAllocatesNothing holds for messages without strings, slices, maps and pointers, whose memory is the
// message's own.
func TestJSONDecodeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop values at random, which costs allocations")
	}
	var m struct {
		A int     `json:"a"`
		B float64 `json:"b"`
	}
	data := []byte(` {"a":1,"b":2.5}` + "\n")
	assert.Equal(t, testing.AllocsPerRun(200, func() {
		if err := codec.JSON.Decode(data, &m); err != nil {
			t.Fatal(err)
		}
	}), 0.0, "allocations")
	assert.Equal(t, m.A, 1)
}

// TestJSONDecodeIsUnmarshal decodes in turns what is right and what is wrong, so that each would see what a decoder kept
// of the one before: texts, offsets and the messages are those of encoding/json.
func TestJSONDecodeIsUnmarshal(t *testing.T) {
	good := `{"a":1,"name":"n"}`
	for _, in := range []string{
		good + "x", good + good, `{"name":"\""}"}`, " \t" + good + "\r\n ", good + "]", `{"a":1`, `{"a":1]`, `{"a":1,}`, `{"a":1 "b"}`, `]`, `{"name":"\"}`,
		`{"name":"a\\"}`, `{"name":"}{"}`, `{"a":"x","name":"y"}`, "\n\n {\"a\":[]} ", `[]`, `[1] 2`, `1`, `1 2`, ` `, `"`, `{"a":tru}`,
		`{"A":1,"NAME":"x"}`, `{"a":1,"a":2}`, "{\"name\":\"\xff\"}", `{"name":"\ud800"}`, `null`, ` null{}`, `{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		for _, in := range []string{in, good} {
			got, want := small{9, "old"}, small{9, "old"}
			err, wantErr := codec.JSON.Decode([]byte(in), &got), json.Unmarshal([]byte(in), &want)
			assert.Equal(t, got, want, in)
			assert.Equal(t, err == nil, wantErr == nil, in)
			if d, ok := errors.AsType[*codec.DecodeError](err); ok {
				assert.Equal(t, d.Cause.Error(), wantErr.Error(), in)
				syntax, ok := errors.AsType[*json.SyntaxError](wantErr)
				assert.True(t, !ok || d.Offset == syntax.Offset, in)
				wrong, ok := errors.AsType[*json.UnmarshalTypeError](wantErr)
				assert.True(t, !ok || d.Offset == wrong.Offset, in)
			}
		}
	}
}

func BenchmarkJSONDecode(b *testing.B) {
	data, m := []byte(`{"a":1,"name":"name"}`), new(small)
	b.ReportAllocs()
	for b.Loop() {
		if err := codec.JSON.Decode(data, m); err != nil {
			b.Fatal(err)
		}
	}
}
