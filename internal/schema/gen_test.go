package schema_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// leaves are the types that random types are made of.
var leaves = append([]reflect.Type{
	reflect.TypeFor[bool](), reflect.TypeFor[string](), reflect.TypeFor[float32](), reflect.TypeFor[float64](),
	reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int16](), reflect.TypeFor[int32](), reflect.TypeFor[int64](),
	reflect.TypeFor[uint](), reflect.TypeFor[uint8](), reflect.TypeFor[uint16](), reflect.TypeFor[uint32](), reflect.TypeFor[uint64](),
	reflect.TypeFor[uintptr](), reflect.TypeFor[[]byte](), reflect.TypeFor[octet](), reflect.TypeFor[byteJSON](),
	reflect.TypeFor[json.Number](), reflect.TypeFor[noNumber](), reflect.TypeFor[time.Duration](), reflect.TypeFor[netip.Addr](),
	reflect.TypeFor[valJSON](), reflect.TypeFor[valText](), reflect.TypeFor[ptrText](), reflect.TypeFor[textInt](),
	reflect.TypeFor[textString](), reflect.TypeFor[mixed](), reflect.TypeFor[enum](), reflect.TypeFor[intPtr](), reflect.TypeFor[big.Int](),
	reflect.TypeFor[json.Marshaler](),
}, zoo...)

var keys = []reflect.Type{
	reflect.TypeFor[string](), reflect.TypeFor[int8](), reflect.TypeFor[int64](), reflect.TypeFor[uint16](), reflect.TypeFor[uintptr](),
	reflect.TypeFor[textString](), reflect.TypeFor[textInt](), reflect.TypeFor[ptrText](), reflect.TypeFor[valText](),
	reflect.TypeFor[netip.Addr](), reflect.TypeFor[enum](), reflect.TypeFor[*ptrText](),
}

var embeddable = []reflect.Type{
	reflect.TypeFor[Emb](), reflect.TypeFor[EmbDeep](), reflect.TypeFor[Rival](), reflect.TypeFor[NamedInt](), reflect.TypeFor[Loop](),
	reflect.TypeFor[*Emb](), reflect.TypeFor[*EmbDeep](), reflect.TypeFor[*Rival](), reflect.TypeFor[Exported](),
	reflect.TypeFor[TwiceA](), reflect.TypeFor[TwiceB](), reflect.TypeFor[T1](), reflect.TypeFor[*T2](),
}

func drawType(t *rapid.T, depth int) reflect.Type {
	shape := rapid.IntRange(0, 9).Draw(t, "shape")
	switch {
	case depth == 0 || shape < 3:
		return rapid.SampledFrom(leaves).Draw(t, "leaf")
	case shape == 3:
		return reflect.SliceOf(drawType(t, depth-1))
	case shape == 4:
		return reflect.PointerTo(drawType(t, depth-1))
	case shape == 5:
		return reflect.ArrayOf(rapid.IntRange(0, 3).Draw(t, "len"), drawType(t, depth-1))
	case shape == 6:
		return reflect.MapOf(rapid.SampledFrom(keys).Draw(t, "key"), drawType(t, depth-1))
	default:
		return drawStruct(t, depth)
	}
}

func drawStruct(t *rapid.T, depth int) reflect.Type {
	var fields []reflect.StructField
	for i := range rapid.IntRange(0, 5).Draw(t, "fields") {
		tag := drawTag(t)
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("F%d", i), Type: drawType(t, depth-1), Tag: tag})
	}
	// Embedded types with methods are beyond reflect.StructOf; the zoo has them.
	embedded := rapid.SliceOfNDistinct(rapid.SampledFrom(embeddable), 0, 3, embeddedName).Draw(t, "embedded")
	for _, e := range embedded {
		fields = append(fields, reflect.StructField{Name: embeddedName(e), Type: e, Anonymous: true, Tag: drawTag(t)})
	}
	return reflect.StructOf(fields)
}

func embeddedName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

func drawTag(t *rapid.T) reflect.StructTag {
	name := rapid.SampledFrom([]string{"", "", "", "a", "b", "B", "F1", "-", "x-y", "bad'name", "ünï", "<&>", "$ref", "type"}).Draw(t, "name")
	options := rapid.SliceOfN(rapid.SampledFrom([]string{"omitempty", "omitzero", "string", "string", "unknown", ""}), 0, 3).Draw(t, "options")
	tag := fmt.Sprintf("json:%q", strings.Join(append([]string{name}, options...), ","))
	if rapid.Bool().Draw(t, "documented") {
		tag += fmt.Sprintf(" doc:%q", rapid.StringN(0, 5, -1).Draw(t, "doc"))
	}
	return reflect.StructTag(tag)
}

// special fills types whose kind does not tell what values are legal.
var special = map[reflect.Type]func(*rapid.T) any{
	reflect.TypeFor[time.Time](): func(t *rapid.T) any {
		year := rapid.OneOf(rapid.Just(0), rapid.Just(9999), rapid.IntRange(0, 9999)).Draw(t, "year")
		zone := time.FixedZone("", rapid.IntRange(-86399, 86399).Draw(t, "zone"))
		nanos := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 999_999_999)).Draw(t, "nanos")
		return time.Date(year, time.Month(rapid.IntRange(1, 12).Draw(t, "month")), 28, 23, 59, 59, nanos, zone)
	},
	reflect.TypeFor[json.Number](): func(t *rapid.T) any {
		return json.Number(rapid.SampledFrom([]string{"", "0", "-0", "1e5", "-1.5E+3", "0.10e-7", "123456789012345678901234567890"}).Draw(t, "number"))
	},
	reflect.TypeFor[json.RawMessage](): func(t *rapid.T) any {
		return json.RawMessage(rapid.SampledFrom([]string{"null", "1", ` {"a": [true] } `, `"x"`}).Draw(t, "raw"))
	},
	reflect.TypeFor[netip.Addr](): func(t *rapid.T) any {
		return rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")}).Draw(t, "addr")
	},
	reflect.TypeFor[enum](): func(t *rapid.T) any { return rapid.SampledFrom([]enum{"", "<red>", "green"}).Draw(t, "enum") },
	reflect.TypeFor[big.Int](): func(t *rapid.T) any {
		return *new(big.Int).Mul(big.NewInt(rapid.Int64().Draw(t, "big")), big.NewInt(rapid.Int64().Draw(t, "big")))
	},
	reflect.TypeFor[big.Float](): func(t *rapid.T) any { return *big.NewFloat(rapid.Float64().Draw(t, "bigf")) },
	reflect.TypeFor[any]():       drawAny,
	reflect.TypeFor[textKey](): func(t *rapid.T) any {
		return rapid.SampledFrom([]any{nil, valText{1}, new(ptrText), netip.Addr{}}).Draw(t, "text")
	},
	reflect.TypeFor[json.Marshaler](): func(t *rapid.T) any {
		return rapid.SampledFrom([]any{nil, valJSON(1), new(ptrJSON), described{}}).Draw(t, "json")
	},
}

func drawAny(t *rapid.T) any {
	return rapid.SampledFrom([]any{nil, true, "s", 1.5, -1, []any{nil, "x"}, map[string]any{"a": 1}, Emb{}, &Emb{}, []byte("x")}).Draw(t, "any")
}

// fill sets v to a random value that encoding/json can encode.
func fill(t *rapid.T, v reflect.Value, depth int) {
	if !v.CanSet() || rapid.IntRange(0, 9).Draw(t, "zero") == 0 {
		fillEmbedded(t, v, depth)
		return
	}
	if draw := special[v.Type()]; draw != nil {
		if x := draw(t); x != nil {
			v.Set(reflect.ValueOf(x))
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		bits := v.Type().Bits()
		low, high := int64(-1)<<(bits-1), int64(1)<<(bits-1)-1
		v.SetInt(rapid.OneOf(rapid.Just(low), rapid.Just(high), rapid.Int64Range(low, high)).Draw(t, "int"))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		high := ^uint64(0) >> (64 - v.Type().Bits())
		v.SetUint(rapid.OneOf(rapid.Just(high), rapid.Uint64Range(0, high)).Draw(t, "uint"))
	case reflect.Float32:
		v.SetFloat(float64(rapid.Float32().Draw(t, "float")))
	case reflect.Float64:
		v.SetFloat(rapid.Float64().Draw(t, "float"))
	case reflect.String:
		v.SetString(rapid.OneOf(rapid.StringN(0, 4, -1), rapid.Just("\xff\n\u2028\"\\")).Draw(t, "string"))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), depth)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), depth)
		}
	default:
		if depth > 0 {
			fillReference(t, v, depth-1)
		}
	}
}

// fillEmbedded fills what is reachable in an embedded struct that can't be set as a whole.
func fillEmbedded(t *rapid.T, v reflect.Value, depth int) {
	if v.CanSet() || v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		if f := v.Field(i); f.CanSet() {
			fill(t, f, depth)
		}
	}
}

// fillReference fills the kinds that may be nil, and so end a recursive type.
func fillReference(t *rapid.T, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), depth)
	case reflect.Slice:
		n := rapid.IntRange(0, 2).Draw(t, "len")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), depth)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 2).Draw(t, "len") {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, k, 1)
			fill(t, e, depth)
			v.SetMapIndex(k, e)
		}
	}
}
