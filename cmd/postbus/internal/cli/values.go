package cli

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// size is a number of bytes: 4096, 64KiB, 1MiB, 2GB.
type size int

// UnmarshalText reads it.
func (s *size) UnmarshalText(text []byte) error {
	number := strings.TrimRight(string(text), "KMGTiBkb ")
	unit := strings.TrimSpace(strings.TrimPrefix(string(text), number))
	scale, ok := units[strings.TrimSuffix(strings.ToUpper(unit), "B")]
	n, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || !ok:
		return fmt.Errorf("%.40q is not a size such as 64KiB or 1MiB", text)
	case n*scale < 0 || n*scale > math.MaxInt/2:
		return fmt.Errorf("%.40q is out of range", text)
	}
	*s = size(n * scale)
	return nil
}

var units = map[string]float64{
	"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30,
}

// choice is one of the words that its flag's tag "choices" lists.
type choice string

// UnmarshalText takes any word: permitted knows the flag.
func (c *choice) UnmarshalText(text []byte) error {
	*c = choice(text)
	return nil
}

// permitted refuses what a flag's own type would let through.
func permitted(v *kong.Value, target reflect.Value) error {
	switch got := target.Interface().(type) {
	case choice:
		if all := choices(v); !slices.Contains(all, string(got)) {
			return fmt.Errorf("%.40q is none of %s", string(got), strings.Join(all, ", "))
		}
	default:
		if target.CanInt() && target.Int() < 0 {
			return fmt.Errorf("%v is negative", got)
		}
	}
	return nil
}

// choices lists what a flag takes, nil if that is anything.
func choices(v *kong.Value) []string {
	list := v.Tag.Get("choices")
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}
