package fields_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"postbus.example/internal/assert"
	"postbus.example/internal/fields"
)

type (
	Base   struct{ A, B int }
	Rival  struct{ B, C int }
	Tagged struct {
		D int `json:"B"`
	}
	Again struct {
		E int `json:"B"`
	}
	Foe    struct{ B string }
	Deep   struct{ Base }
	Deeper struct{ Deep }
	hidden struct{ H, h int }
	count  int
	Count  int
	Loop   struct {
		*Loop
		L int
	}
	Left   struct{ Middle }
	Right  struct{ *Middle }
	Middle struct {
		Base
		M int
	}
	Low   struct{ Lower }
	Lower struct{ Lowest }
	// Lowest has a field that Middle has, one level deeper.
	Lowest struct{ M int }
)

// Of each type: key=path of what is seen, with * before a path through a pointer.
var table = []struct {
	rule   string
	v      any
	want   string
	noTwin string // with DropTwins, where it differs
}{
	{"nothing", struct{}{}, "", ""},
	{"in order", struct {
		Z int
		Base
		Y int
	}{}, "Z=.Z A=.Base.A B=.Base.B Y=.Y", ""},
	{"names", struct {
		A int `json:"a,omitempty"`
		B int `json:",omitempty"`
		C int `json:"-"`
		D int `json:"-,"`
		E int `json:"\"bad"`
		F int `json:"ü/x"`
		g int
	}{A: 1, B: 1}, "a=.A B=.B -=.D E=.E ü/x=.F", ""},
	{"the shallowest wins", struct {
		Base
		B string
	}{}, "A=.Base.A B=.B", ""},
	{"even against a tag", struct {
		Tagged
		B string
	}{}, "B=.B", ""},
	{"equals tie", struct {
		Base
		Rival
	}{}, "A=.Base.A C=.Rival.C", ""},
	{"and hide what is deeper", struct {
		Deep
		Rival
		Won int `json:"A"`
		Foe
	}{}, "C=.Rival.C A=.Won", ""},
	{"tagged wins a tie", struct {
		Base
		Rival
		Tagged
	}{}, "A=.Base.A C=.Rival.C B=.Tagged.D", ""},
	{"two tagged tie", struct {
		Base
		Tagged
		*Again
	}{Again: &Again{}}, "A=.Base.A", ""},
	{"a name stops flattening", struct {
		Base `json:"base"`
		*Rival
	}{Rival: &Rival{}}, "base=.Base B=*.Rival.B C=*.Rival.C", ""},
	{"an option does not", struct {
		Base `json:",string"`
	}{}, "A=.Base.A B=.Base.B", ""},
	{"embedded and out", struct {
		Base `json:"-"`
	}{}, "", ""},
	{"embedded pointers", struct {
		*Deeper
		X int
	}{Deeper: &Deeper{}}, "A=*.Deeper.Deep.Base.A B=*.Deeper.Deep.Base.B X=.X", ""},
	{"embedded without export", struct {
		hidden
		count
		Count
	}{}, "H=.hidden.H Count=.Count", ""},
	{"recursive", Loop{Loop: &Loop{}}, "L=.L", ""},
	{"the same at two levels", struct {
		Base
		Deep
	}{}, "A=.Base.A B=.Base.B", ""},
	{"twins: theirs are gone, but not what they embed", struct {
		Left
		Right
		Low
	}{}, "A=.Left.Middle.Base.A B=.Left.Middle.Base.B", "M=.Low.Lower.Lowest.M"},
}

func TestOf(t *testing.T) {
	for _, tt := range table {
		assert.Equal(t, seen(t, fields.JSON, tt.v), tt.want, tt.rule)
		var keys []string
		for member := range strings.FieldsSeq(tt.want) {
			key, _, _ := strings.Cut(member, "=")
			keys = append(keys, key)
		}
		assert.Equal(t, written(t, tt.v), keys, tt.rule, "encoding/json itself")
		want := tt.want
		if tt.noTwin != "" {
			want = tt.noTwin
		}
		assert.Equal(t, seen(t, fields.Rules{Tag: fields.JSON.Tag, DropTwins: true}, tt.v), want, tt.rule)
	}
}

func seen(t *testing.T, rules fields.Rules, v any) string {
	t.Helper()
	typ := reflect.TypeOf(v)
	var all []string
	for _, f := range rules.Of(typ) {
		at := typ.FieldByIndex(f.Index)
		assert.True(t, at.Name == f.Name && at.Type == f.Type && at.Tag == f.Tag && rules.Sees(at), f.Path)
		path := f.Path
		if f.ViaPtr {
			path = "*" + path
		}
		all = append(all, f.Key+"="+path)
	}
	return strings.Join(all, " ")
}

// written returns the keys of the object that encoding/json makes of v.
func written(t *testing.T, v any) (keys []string) {
	t.Helper()
	data, err := json.Marshal(v)
	assert.NoError(t, err)
	dec := json.NewDecoder(bytes.NewReader(data))
	_, err = dec.Token()
	assert.NoError(t, err)
	for dec.More() {
		key, _ := dec.Token()
		keys = append(keys, key.(string))
		assert.NoError(t, dec.Decode(new(json.RawMessage)))
	}
	return keys
}

// TestTag holds that keys come from the rules, and that a tag may win without one.
func TestTag(t *testing.T) {
	type other struct {
		A int `x:"a"`
		B int `json:"b" x:"-"`
		C int `json:"-"`
	}
	rules := fields.Rules{Tag: func(tag reflect.StructTag) (key string, tagged, ok bool) {
		key = tag.Get("x")
		return strings.TrimPrefix(key, "!"), key != "", key != "-"
	}}
	assert.Equal(t, seen(t, rules, other{}), "a=.A C=.C")
	assert.Equal(t, seen(t, rules, struct {
		Base
		Rival `x:""`
		Won
	}{}), "A=.Base.A C=.Rival.C B=.Won.B")
}

// Won has a tag, but no name in it.
type Won struct {
	B int `x:"!"`
}
