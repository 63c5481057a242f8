package jsonv2_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/codec/codectest"
	"postbus.example/codec/jsonv2"
	"postbus.example/internal/assert"
)

// order is plain: all of it is decoded by the engine under test.
type order struct {
	ID     int               `json:"id"`
	Name   string            `json:"name,omitempty"`
	Price  float64           `json:"price"`
	Small  float32           `json:"small"`
	Byte   uint8             `json:"byte"`
	Done   bool              `json:"done"`
	Bytes  []byte            `json:"bytes"`
	Octets [3]uint8          `json:"octets"`
	Pair   [2]int            `json:"pair"`
	Tags   []string          `json:"tags"`
	Attr   map[string]string `json:"attr"`
	Counts map[int8]*int     `json:"counts"`
	Lines  []order           `json:"lines"`
	Next   *order            `json:"next"`
	Deep   *struct {
		Under int     `json:"under_score"`
		Word  *string `json:"k-s"`
	}
	Hidden int `json:"-"`
	hidden int
}

func full() *order {
	word, n := "w", 7
	o := &order{
		ID: 1, Name: "old", Price: 0.5, Small: 1.5, Byte: 2, Done: true, Bytes: []byte("abc"), Octets: [3]uint8{1, 2, 3}, Pair: [2]int{4, 5},
		Tags: []string{"x", "y", "z"}, Attr: map[string]string{"a": "1", "b": "2"}, Counts: map[int8]*int{1: &n},
		Lines: []order{{ID: 10, Name: "line", Tags: []string{"t"}}, {ID: 11}}, Next: &order{ID: 20, Name: "next"}, Hidden: 3, hidden: 4,
	}
	o.Deep = &struct {
		Under int     `json:"under_score"`
		Word  *string `json:"k-s"`
	}{5, &word}
	return o
}

func TestConformance(t *testing.T) {
	codectest.Run(t, jsonv2.JSON, codectest.Unencodable(func() any { return new(math.NaN()) }))
}

func TestNameAndBytesAreThoseOfJSON(t *testing.T) {
	assert.Equal(t, jsonv2.JSON.Name(), codec.JSON.Name())
	got, err := jsonv2.JSON.Append([]byte("x"), full())
	assert.NoError(t, err)
	want, err := codec.JSON.Append([]byte("x"), full())
	assert.NoError(t, err)
	assert.Equal(t, string(got), string(want))
}

var inputs = []string{
	`{}`, `null`, `[]`, `1`, `"x"`, ` `, ``, `{`, `{"id":2}`, ` {"ID":2} `, `{"id":2,"id":3}`, `{"Id":2,"id":3,"iD":4}`, `{"id":null,"name":null,"tags":null,"next":null}`,
	"{\"name\":\"\xff\xc3\"}", `{"name":"\ud800 \udc00 \ud83d\ude00 \u0000"}`, `{"name":"a` + "\n" + `"}`, `{"name":"\x"}`, `{"name":"\u12"}`,
	`{"id":1.0}`, `{"id":1e2}`, `{"id":"1"}`, `{"id":9223372036854775808}`, `{"byte":256}`, `{"byte":-1}`, `{"price":1e999}`, `{"price":01}`, `{"price":-}`, `{"price":-0}`,
	`{"small":1e39}`, `{"small":16777217}`, `{"done":1}`, `{"done":"true"}`, `{"bytes":"!!"}`, `{"bytes":"AQ=="}`, `{"bytes":"AQ"}`, `{"bytes":"A\nQ=="}`, `{"bytes":"A\u0051=="}`,
	`{"bytes":[1,2]}`, `{"bytes":[300]}`, `{"octets":"AQID"}`, `{"octets":[9]}`, `{"octets":[9,9,9,9]}`, `{"pair":[1]}`, `{"pair":[1,2,3]}`, `{"pair":[null,1]}`, `{"pair":{}}`,
	`{"tags":[]}`, `{"tags":["n"]}`, `{"tags":[null,"n"]}`, `{"tags":[1,"n"]}`, `{"tags":{}}`, `{"attr":{"a":null,"c":"3"}}`, `{"attr":{"a":1,"c":"3"}}`, `{"attr":{"a":"1","a":"2"}}`,
	`{"counts":{"1":2,"x":3}}`, `{"counts":{"200":1}}`, `{"counts":{"1":null}}`, `{"counts":{"01":1,"+1":2," 1":3}}`, `{"lines":[{"name":"n"}]}`, `{"lines":[{},{},{"id":1}]}`, `{"lines":[null,{"id":"x"}]}`,
	`{"next":{"next":{"id":"x"}}}`, `{"next":{"id":1}}`, `{"next":[]}`, `{"deep":{"under_score":1,"K-S":"v"}}`, `{"deep":{"underscore":1,"ks":"v"}}`, "{\"deep\":{\"\u212a-s\":\"kelvin\"}}", "{\"tag\u017f\":[\"long s\"]}",
	`{"Hidden":1,"hidden":2,"-":3}`, `{"x":[[[{"y":1}]]],"id":2}`, `{"x":01}`, `{"x":"` + "\x01" + `"}`, `{"x":tru}`, `{"id":1}x`, `{"id":1}{"id":2}`, `{"id":1,}`, `{"id":1 "name":"x"}`, `{'id':1}`, "\ufeff{}",
	`{"name":"x","id":"bad","price":3}`, `{"name":1,"id":"bad"}`, `{"":1}`, `{1:2}`, `{"\u0069d":5}`, `{"next":` + strings.Repeat(`{"next":`, 50) + `{}` + strings.Repeat(`}`, 51),
	`{"x":` + strings.Repeat("[", 9998) + strings.Repeat("]", 9998) + `}`, `{"x":` + strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + `}`,
}

// compare holds that both codecs make the same of data, out of a zero message and out of one with values in it.
func compare(t *testing.T, data []byte) {
	t.Helper()
	for _, message := range []func() *order{full, func() *order { return new(order) }} {
		got, want := message(), message()
		err, wantErr := jsonv2.JSON.Decode(data, got), codec.JSON.Decode(data, want)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v; encoding/json: %v", data, err, wantErr)
		}
		if err != nil {
			if _, ok := errors.AsType[*codec.DecodeError](err); !ok || err.Error() != wantErr.Error() {
				t.Fatalf("%q: %v; encoding/json: %v", data, err, wantErr)
			}
			continue // what a message is after an error is not promised
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v; encoding/json: %+v", data, got, want)
		}
	}
}

func TestDecodesAsEncodingJSON(t *testing.T) {
	for _, in := range inputs {
		compare(t, []byte(in))
	}
}

func FuzzDecode(f *testing.F) {
	for _, in := range inputs {
		if len(in) < 1000 {
			f.Add([]byte(in))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, data) })
}

type (
	itself  struct{}
	embeds  struct{ order }
	special struct {
		Any  any                `json:"any"`
		Raw  json.RawMessage    `json:"raw"`
		Num  json.Number        `json:"num"`
		When time.Time          `json:"when"`
		Self itself             `json:"self"`
		Str  int                `json:"str,string"`
		Map  map[string]any     `json:"map"`
		Rest map[string]int     `json:",unknown"` //nolint:revive // an option of one engine alone
		Wide map[itself]int     `json:"wide"`
		Case struct{ A, a int } `json:"case"`
	}
)

func (*itself) UnmarshalText([]byte) error { return errors.New("secret") }

// TestSpecialTypesAreLeftToEncodingJSON decodes what the two engines see differently.
func TestSpecialTypesAreLeftToEncodingJSON(t *testing.T) {
	for _, in := range []string{
		`{"num":5}`, `{"num":"x"}`, `{"num":"5"}`, `{"any":{"a":[1,1e400]}}`, `{"any":[1,{"a":null}]}`, `{"raw": {"x" : 1 }}`, `{"when":"2020-01-01T00:00:00Z"}`,
		`{"when":"2020-1-1"}`, `{"self":"x"}`, `{"str":"5"}`, `{"str":5}`, `{"rest":{"a":1}}`, `{"other":1}`, `{"wide":{"a":1}}`, `{"map":{"a":1,"a":{}}}`,
	} {
		var got, want special
		err, wantErr := jsonv2.JSON.Decode([]byte(in), &got), codec.JSON.Decode([]byte(in), &want)
		assert.Equal(t, err, wantErr, in)
		assert.Equal(t, got, want, in)
	}
	for _, v := range []any{new(embeds), new(any), new(map[string]any), new(struct{ A, B *special }), nil, (*order)(nil), order{}} {
		assert.Equal(t, jsonv2.JSON.Decode([]byte(`{}`), v), codec.JSON.Decode([]byte(`{}`), v))
	}
}

func TestCheckType(t *testing.T) {
	checker := jsonv2.JSON.(codec.TypeChecker)
	assert.NoError(t, checker.CheckType(reflect.TypeFor[*order]()))
	_, ok := errors.AsType[*codec.TypeError](checker.CheckType(reflect.TypeFor[*struct{ C chan int }]()))
	assert.True(t, ok)
}

func BenchmarkDecode(b *testing.B) {
	small, err := codec.JSON.Append(nil, &order{ID: 1, Name: "name"})
	if err != nil {
		b.Fatal(err)
	}
	large, err := codec.JSON.Append(nil, &order{Lines: make([]order, 200), Name: strings.Repeat("text ", 1000)})
	if err != nil {
		b.Fatal(err)
	}
	for name, data := range map[string][]byte{"small": small, "large": large} {
		for engine, c := range map[string]codec.Codec{"v1": codec.JSON, "v2": jsonv2.JSON} {
			b.Run(name+"/"+engine, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if err := c.Decode(data, new(order)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
