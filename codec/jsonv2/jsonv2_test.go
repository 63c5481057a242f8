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

type itself struct{ Word string }

func (i *itself) UnmarshalText(b []byte) error {
	i.Word = string(b)
	return nil
}

type embeds struct {
	order
	*deeper
	ID string `json:"id"`
}

type deeper struct{ Level int }

// specials are types that hold one thing each which is left to encoding/json.
var specials = []func() any{
	func() any { return new(any) },
	func() any { return new(map[string]any) },
	func() any { return new(embeds) },
	func() any { return new(itself) },
	func() any { return new(map[itself]int) },
	func() any { return &struct{ V any }{} },
	func() any { return &struct{ V any }{&order{ID: 9}} },
	func() any { return &struct{ V json.RawMessage }{} },
	func() any { return &struct{ V json.Number }{} },
	func() any { return &struct{ V time.Time }{} },
	func() any { return &struct{ V []itself }{} },
	func() any { return &struct{ V *itself }{} },
	func() any {
		return &struct {
			V int `json:"v,string"`
		}{}
	},
	func() any {
		return &struct {
			V map[string]int `json:",unknown"` //nolint:revive // an option of one engine alone
		}{}
	},
	func() any {
		return &struct {
			A int `json:"v"`
			B int `json:"V"`
		}{}
	},
	func() any { // two fields of one name: neither is seen
		return reflect.New(reflect.StructOf([]reflect.StructField{
			{Name: "A", Type: reflect.TypeFor[int](), Tag: `json:"v"`},
			{Name: "B", Type: reflect.TypeFor[int](), Tag: `json:"v"`},
		})).Interface()
	},
	func() any {
		return &struct {
			V int `json:"a\"b"`
		}{}
	},
}

// TestSpecialTypesAreLeftToEncodingJSON decodes what the two engines see differently.
func TestSpecialTypesAreLeftToEncodingJSON(t *testing.T) {
	for _, special := range specials {
		for _, in := range []string{
			`{"V":5}`, `{"v":"x"}`, `{"V":"5"}`, `{"v":""}`, `{"v":{"a":[1,1e400]}}`, `{"v":[1,{"a":null}]}`, `{"v": {"x" : 1 }}`, `{"v":null}`, `{"v":1e400}`,
			`{"v":"2020-01-01T00:00:00Z"}`, `{"v":"2020-1-1"}`, `{"other":1,"Level":2,"id":"5","name":"n"}`, `{"a":1,"a":{}}`, `{"v":["a"]}`, `{"a\"b":1}`, `"x"`, `1`, `{`, `{}`,
		} {
			got, want := special(), special()
			err, wantErr := jsonv2.JSON.Decode([]byte(in), got), codec.JSON.Decode([]byte(in), want)
			if !reflect.DeepEqual(err, wantErr) || !reflect.DeepEqual(got, want) {
				t.Errorf("%T, %s: %+v, %v; encoding/json: %+v, %v", got, in, got, err, want, wantErr)
			}
		}
	}
	for _, v := range []any{nil, (*order)(nil), order{}} {
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
