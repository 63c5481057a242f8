package schema_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"time"
)

// Types that encode themselves, each in a way that its kind would not.
type (
	valJSON    int                // value receiver
	ptrJSON    struct{ A int }    // pointer receiver: a string with an address, an object without
	nilMapJSON map[string]int     // no null for a nil map that encodes itself
	valText    struct{ N int }    // legal as a map key
	ptrText    int                // a string with an address, an integer without and as a map key
	textInt    int                // value receiver: text even as a map key
	textString string             // MarshalText is not called for a map key of kind string
	byteJSON   byte               // slices of it are arrays
	mixed      struct{ N int }    // MarshalJSON on the pointer, MarshalText on the value
	described  struct{ X, Y int } // encodes and describes itself
	enum       string             // describes itself, encoded by its kind
	ptrEnum    struct{ K string } // as enum, with a pointer receiver
)

func (v valJSON) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "[%d]", int(v)), nil }
func (v *ptrJSON) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.Itoa(v.A)), nil
}
func (v *ptrJSON) JSONSchema() json.RawMessage    { return json.RawMessage(`{"type":"string"}`) }
func (v nilMapJSON) MarshalJSON() ([]byte, error) { return []byte(strconv.FormatBool(v == nil)), nil }
func (v nilMapJSON) JSONSchema() json.RawMessage  { return json.RawMessage(`{"type":"boolean"}`) }
func (v valText) MarshalText() ([]byte, error)    { return fmt.Appendf(nil, "v%d", v.N), nil }
func (v *ptrText) MarshalText() ([]byte, error)   { return fmt.Appendf(nil, "p%d", int(*v)), nil }
func (v textInt) MarshalText() ([]byte, error)    { return fmt.Appendf(nil, "t%d", int(v)), nil }
func (v textString) MarshalText() ([]byte, error) { return []byte("s" + v), nil }
func (v *byteJSON) MarshalJSON() ([]byte, error)  { return fmt.Appendf(nil, "[%d]", *v), nil }
func (v *mixed) MarshalJSON() ([]byte, error)     { return strconv.AppendInt(nil, int64(v.N), 10), nil }

func (v mixed) MarshalText() ([]byte, error)     { return strconv.AppendInt(nil, int64(v.N), 10), nil }
func (v *mixed) JSONSchema() json.RawMessage     { return json.RawMessage(`{"type":"integer"}`) }
func (v described) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, `[%d, %d]`, v.X, v.Y), nil }

func (v described) JSONSchema() json.RawMessage {
	return json.RawMessage(`{ "type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2 }`)
}

func (v enum) JSONSchema() json.RawMessage     { return json.RawMessage(`{"enum":["","<red>","green"]}`) }
func (v *ptrEnum) JSONSchema() json.RawMessage { return json.RawMessage(`{"required":["K"]}`) }

// Embedded types without methods, as reflect.StructOf wants them.
type (
	Emb struct {
		A int    `json:"a"`
		B string `json:",omitempty"`
	}
	EmbDeep struct {
		Emb
		C *int `json:"c,string"`
	}
	Rival struct {
		A bool // hides nothing, for Emb's name is a
		B []byte
	}
	Loop struct {
		*Loop
		L int
	}
	NamedInt int16
)

// Types of their own.
type (
	octet    byte
	dur      = time.Duration
	list     []list
	dict     map[string]dict
	nowhere  *nowhere
	ringA    *ringB
	ringB    *ringA
	textKey  interface{ encoding.TextMarshaler }
	noNumber json.Number
	intPtr   *int
	myTime   time.Time
	Tree     struct {
		Name  string           `json:"name" doc:"the \"name\" of <it>"`
		Kids  []Tree           `json:"kids"`
		Index map[string]*Tree `json:"index,omitempty" doc:"by name"`
		Up    *Tree            `json:"up"`
	}
	Mutual  struct{ Other *Mutual2 }
	Mutual2 struct {
		Back  []Mutual
		Other map[int]Mutual2
	}
	Page[T any] struct {
		Items []T `json:"items"`
		Next  *Page[T]
	}
	Pair[A comparable, B any] struct {
		Key A
		Val map[A]B
	}
	// Addressed holds what is encoded differently without an address, by value and behind a pointer.
	Addressed struct {
		P   ptrJSON
		Q   [2]ptrText
		M   mixed
		R   *ptrJSON
		S   []ptrText
		Own map[string]ptrEnum
	}
	viaPointer struct{ V ptrJSON }
	// Promoted reaches V through a pointer, so that V has an address even in a map.
	Promoted struct {
		*viaPointer
		Exported
		W ptrText
	}
	// Both has types at places with and without an address. Only the schema of the first depends on it.
	Both struct {
		A []InArray
		B map[string]InArray
		C []BehindPointer
		D map[string]BehindPointer
	}
	InArray       struct{ Q [2]ptrText }
	BehindPointer struct {
		*viaPointer
		S []ptrText
		P *ptrJSON
	}
	Exported struct {
		X ptrJSON
		W string
	}
	hidden struct {
		H int
		h int
		I *hidden `json:",omitempty"`
	}
	// Hiding embeds what is not exported, and shows its exported fields.
	Hiding struct {
		hidden
		NamedInt
		*url.URL `json:"url"`
		named    `json:"inside"`
		octet
		K int `json:"H"`
	}
	named    struct{ N uint8 }
	TwiceA   struct{ Emb }
	TwiceB   struct{ Emb }
	DeepSame struct {
		S bool `json:"same"`
	}
	T1 struct {
		Name int // loses against the tagged one
	}
	T2 struct {
		Other []int `json:"Name"`
	}
	// Ambiguous embeds two marshalers, so that it is none itself, and both are flattened.
	Ambiguous struct {
		time.Time
		big.Int
		N int
	}
	// Lent takes its methods from an embedded field: the encoding as well as the description.
	Lent struct {
		described
		More int
	}
	// LentSchema takes only the description, which is false for it.
	LentSchema struct {
		ptrEnum
		Text textString
	}
	// LentNil would panic when asked.
	LentNil struct {
		*Enumerated
		Text textString
	}
	Enumerated struct{ E enum }
	// Over has its own method besides an embedded one.
	Over struct {
		ptrEnum
		N int
	}
)

func (v Enumerated) JSONSchema() json.RawMessage {
	return json.RawMessage(`{"title":"` + string(v.E) + `"}`)
}
func (v Over) JSONSchema() json.RawMessage { return json.RawMessage(`{"required":["K","N"]}`) }

// Strings has the option ,string wherever it could matter.
type Strings struct {
	Bool  bool           `json:",string"`
	I64   int64          `json:"i64,string"`
	U     *uint          `json:",string"`
	UU    **uint         `json:",string"` // only one pointer deep
	IP    intPtr         `json:",string"` // not through a named pointer
	F     float64        `json:",string,omitempty"`
	F32   float32        `json:",string"`
	S     string         `json:",string"`
	Num   json.Number    `json:",string"`
	NoNum noNumber       `json:",string"`
	Slice []int          `json:",string"` // no effect on other kinds
	Any   any            `json:",string"`
	Text  textInt        `json:",string"` // nor on what encodes itself
	PText *ptrText       `json:",string"`
	Enum  enum           `json:",string"` // its description does not hold in a string
	Time  time.Time      `json:",string"`
	Dur   dur            `json:",string"`
	M     map[string]int `json:",string"`
	Emb   `json:",string"`
}

// Everything is a field of each sort.
type Everything struct {
	Skip    chan int        `json:"-"`
	Dash    string          `json:"-,"`
	Bad     int             `json:"qu'ote"`
	Uni     int             `json:"ünïcode <&>"`
	Dollar  int             `json:"$ref"`
	Any     any             `json:"any"`
	Bytes   []byte          `json:"bytes"`
	Octets  []octet         `json:"octets"`
	BJ      []byteJSON      `json:"bj"`
	Array   [3]byte         `json:"array,omitempty"`
	None    [0]string       `json:"none"`
	Raw     json.RawMessage `json:"raw"`
	Num     json.Number     `json:"num"`
	Time    time.Time       `json:"time,omitzero"`
	TimeP   *time.Time      `json:"timep"`
	MyTime  myTime          `json:"mytime"`
	Dur     dur             `json:"dur"`
	Addr    netip.Addr      `json:"addr"`
	AddrP   *netip.Addr     `json:"addrp"`
	Big     big.Int         `json:"big"`
	BigF    *big.Float      `json:"bigf"`
	Text    textKey         `json:"text"`
	JSON    json.Marshaler  `json:"json"`
	Desc    described       `json:"desc" doc:"a point"`
	DescP   *described      `json:"descp"`
	Enum    *enum           `json:"enum" doc:"a colour"`
	Enums   map[enum]enum   `json:"enums"`
	NilMap  *nilMapJSON     `json:"nilmap"`
	List    list            `json:"list"`
	Dict    dict            `json:"dict"`
	Nowhere nowhere         `json:"nowhere"`
	Ring    ringA           `json:"ring"`
	Anon    struct{ X, y int }
	Anons   []struct{ Tree *Tree }
	Ptrs    ***int8 `json:"ptrs"`
	unseen  func()
}

// Maps has each kind of key, and elements without an address.
type Maps struct {
	Int     map[int]int
	Uint    map[uint8]*uint8
	TextInt map[textInt]ptrText
	PtrText map[ptrText]ptrJSON
	TextP   map[*ptrText]bool
	TextS   map[textString]textString
	Number  map[json.Number]json.Number
	Addr    map[netip.Addr]mixed
	ValText map[valText]*ptrJSON
	Time    map[time.Time]time.Time
	Deep    map[string]Addressed
	Deeper  map[string]map[string][1]Addressed
	Slice   map[string][]Addressed
	Prom    map[string]Promoted
	Big     map[string]big.Int
}

// twice embeds Emb twice at one level: its fields annihilate each other. conflict shows each rule of dominance.
// They are made by reflection, because vet rightly refuses such types.
var (
	twice = reflect.StructOf([]reflect.StructField{
		{Name: "TwiceA", Type: reflect.TypeFor[TwiceA](), Anonymous: true},
		{Name: "TwiceB", Type: reflect.TypeFor[TwiceB](), Anonymous: true},
	})
	conflict = reflect.StructOf([]reflect.StructField{
		{Name: "Rival", Type: reflect.TypeFor[Rival](), Anonymous: true}, // shallower than EmbDeep's Emb, of other names
		{Name: "EmbDeep", Type: reflect.TypeFor[EmbDeep](), Anonymous: true},
		{Name: "X", Type: reflect.TypeFor[int](), Tag: `json:"same"`}, // X and Y annihilate each other,
		{Name: "Y", Type: reflect.TypeFor[string](), Tag: `json:"same"`},
		{Name: "Deep", Type: reflect.TypeFor[DeepSame](), Anonymous: true}, // and hide the deeper one all the same
		{Name: "Z", Type: reflect.TypeFor[bool](), Tag: `json:"c"`},        // shallower than EmbDeep.C
		{Name: "T1", Type: reflect.TypeFor[T1](), Anonymous: true},
		{Name: "T2", Type: reflect.TypeFor[T2](), Anonymous: true}, // its Name is tagged, and wins
	})
)

// zoo is the set of hand-written message types.
var zoo = []reflect.Type{
	reflect.TypeFor[Tree](), reflect.TypeFor[Mutual](), reflect.TypeFor[Mutual2](), reflect.TypeFor[Page[Tree]](),
	reflect.TypeFor[Page[map[string]Addressed]](), reflect.TypeFor[Pair[textInt, Addressed]](), reflect.TypeFor[Addressed](),
	reflect.TypeFor[Promoted](), reflect.TypeFor[Hiding](), twice, conflict,
	reflect.TypeFor[Ambiguous](), reflect.TypeFor[Lent](), reflect.TypeFor[LentSchema](), reflect.TypeFor[LentNil](),
	reflect.TypeFor[Over](), reflect.TypeFor[Both](), reflect.TypeFor[Strings](), reflect.TypeFor[Everything](), reflect.TypeFor[Maps](),
	reflect.TypeFor[Loop](), reflect.TypeFor[struct{}](), reflect.TypeFor[list](), reflect.TypeFor[dict](),
	reflect.TypeFor[nowhere](), reflect.TypeFor[ringA](), reflect.TypeFor[*Tree](), reflect.TypeFor[**Tree](),
	reflect.TypeFor[[]Tree](), reflect.TypeFor[map[string]ptrJSON](), reflect.TypeFor[string](), reflect.TypeFor[any](),
	reflect.TypeFor[textKey](), reflect.TypeFor[time.Time](), reflect.TypeFor[described](), reflect.TypeFor[*ptrJSON](),
	reflect.TypeFor[[]byte](), reflect.TypeFor[uint64](), reflect.TypeFor[json.RawMessage](), reflect.TypeFor[*[]byte](),
	reflect.TypeFor[url.URL](), reflect.TypeFor[[2][]*Mutual](), reflect.TypeFor[nilMapJSON](), reflect.TypeFor[ptrEnum](),
}
