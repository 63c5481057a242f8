package codectest

import "math"

type scalars struct {
	Text  string  `json:"text"`
	Flag  bool    `json:"flag"`
	Int   int64   `json:"int"`
	Small int8    `json:"small"`
	Uint  uint32  `json:"uint"`
	Float float64 `json:"float"`
	Bytes []byte  `json:"bytes"`
	Left  string  `json:"left,omitempty"`
}

type nested struct {
	Name  string             `json:"name"`
	Inner scalars            `json:"inner"`
	Many  []scalars          `json:"many"`
	Ptr   *scalars           `json:"ptr"`
	Map   map[string]int     `json:"map"`
	Deep  map[string]scalars `json:"deep"`
	Fixed [3]uint16          `json:"fixed"`
	Not   string             `json:"-"`
}

type tree struct {
	Value int     `json:"value"`
	Left  *tree   `json:"left,omitempty"`
	Right *tree   `json:"right,omitempty"`
	Rest  []*tree `json:"rest,omitempty"`
}

type untagged struct {
	A, B int
	Word string
}

var plainSamples = []func() any{
	func() any { return &untagged{A: 1, B: -2, Word: "three"} },
	func() any { return newScalars() },
	func() any { return &scalars{} },
	func() any {
		return &nested{
			Name: "nested", Inner: *newScalars(), Many: []scalars{*newScalars(), {}}, Ptr: newScalars(),
			Map:  map[string]int{"a": 1, "b": 2, "": 0},
			Deep: map[string]scalars{"x": *newScalars()}, Fixed: [3]uint16{1, 2, math.MaxUint16},
		}
	},
	func() any {
		return &tree{Value: 1, Left: &tree{Value: 2, Left: &tree{Value: 3}}, Right: &tree{Value: 4}, Rest: []*tree{{Value: 5}}}
	},
	func() any { return &struct{}{} },
}

func newScalars() *scalars {
	return &scalars{
		Text: "grüße, 世界 \" \\ < > & \u2028 \n", Flag: true, Int: math.MaxInt32, Small: math.MinInt8, Uint: math.MaxUint32,
		Float: 0.1, Bytes: []byte{0, 1, 0xff},
	}
}

var plainUnencodable = []func() any{
	func() any { return new(make(chan int)) },
	func() any { return new(func() {}) },
	func() any { return &struct{ Done chan struct{} }{make(chan struct{})} },
}
