package codec_test

import (
	"bytes"
	"math"
	"testing"

	"postbus.example/codec"
	"postbus.example/codec/codectest"
)

func TestJSONConformance(t *testing.T) {
	codectest.Run(t, codec.JSON, codectest.Unencodable(
		func() any { return new(math.NaN()) },
		func() any { return &map[string]any{"deep": []any{make(chan int)}} },
		func() any { return &map[[2]int]bool{{1, 2}: true} },
		func() any { c := &cyclic{}; c.Next = c; return c },
	))
}

type cyclic struct{ Next *cyclic }

func TestRawConformance(t *testing.T) {
	codectest.Run(t, codec.Raw, codectest.SharesInput(), codectest.Samples(
		func() any { return &[]byte{0, 1, 2, 0xff} },
		func() any { return &[]byte{} },
	), codectest.Unencodable(func() any { return new("text") }), codectest.Equal(func(got, want any) bool {
		return bytes.Equal(*got.(*[]byte), *want.(*[]byte)) // nil is empty
	}))
}
