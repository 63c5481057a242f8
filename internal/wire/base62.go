package wire

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// digits is the alphabet of tokens: the characters that are safe everywhere in a subject.
const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// values holds what each character is worth, 0xff for what is no digit.
const values = "" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\xff\xff\xff\xff\xff\xff" +
	"\xff\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x20\x21\x22\x23\xff\xff\xff\xff\xff" +
	"\xff\x24\x25\x26\x27\x28\x29\x2a\x2b\x2c\x2d\x2e\x2f\x30\x31\x32\x33\x34\x35\x36\x37\x38\x39\x3a\x3b\x3c\x3d\xff\xff\xff\xff\xff"

func digit(c byte) (uint64, bool) {
	if int(c) >= len(values) {
		return 0, false
	}
	v := values[c]
	return uint64(v), v != 0xff
}

// appendBase62 writes v in exactly width digits.
func appendBase62(dst []byte, v uint64, width int) []byte {
	n := len(dst)
	for range width {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; i >= n; i-- {
		dst[i] = digits[v%62]
		v /= 62
	}
	return dst
}

// parseBase62 reads all of s; ok is false for other characters and for what does not fit 64 bits.
func parseBase62(s string) (v uint64, ok bool) {
	for i := range len(s) {
		d, ok := digit(s[i])
		if !ok || v > (1<<64-1-d)/62 {
			return 0, false
		}
		v = v*62 + d
	}
	return v, s != ""
}

// traceDigits is how many digits 25 bytes take.
const traceDigits = 34

// traceChunk is how many of them are read or written at once, and traceBase the base of numbers that have so many digits.
const (
	traceChunk = 10
	traceBase  = 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62 // fits 60 bits
)

// groupDigits is how many digits are counted in one go within a chunk: two groups keep two counts going at once.
const (
	groupDigits = 5
	groupBase   = 62 * 62 * 62 * 62 * 62
)

// appendTrace writes 25 bytes as one base62 number.
func appendTrace(dst []byte, b [25]byte) []byte {
	n := traceWords(&b)
	room := [traceChunk - traceDigits%traceChunk + traceDigits]byte{} // the first chunk is the short one
	first := 0                                                        // the words before are 0
	for end := len(room); end > 0; end -= traceChunk {
		var rest uint64
		i := first
		if i < len(n) && n[i] < traceBase { // after a chunk or two all of the first word is rest
			rest, n[i] = n[i], 0
			i++
			first++
		}
		for ; i < len(n); i++ {
			n[i], rest = bits.Div64(rest, n[i], traceBase)
		}
		putGroup(room[end-traceChunk:], uint32(rest/groupBase))
		putGroup(room[end-groupDigits:], uint32(rest%groupBase))
	}
	return append(dst, room[len(room)-traceDigits:]...)
}

// putGroup writes five digits.
func putGroup(dst []byte, v uint32) {
	_ = dst[groupDigits-1]
	for i := groupDigits - 1; i >= 0; i-- {
		dst[i] = digits[v%62]
		v /= 62
	}
}

// alnum reports whether s is made of digits alone.
func alnum(s string) bool {
	var all byte
	for i := range len(s) {
		all |= worth(s[i])
	}
	return all < noDigit
}

// worth is what a digit is worth; noDigit and more for what is none.
func worth(c byte) byte { return values[c&0x7f] | c&0x80 }

const noDigit = 1 << 6

// traceWords splits 25 bytes into one and three words of eight, the most significant first.
func traceWords(b *[25]byte) [4]uint64 {
	return [4]uint64{uint64(b[0]), binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]), binary.BigEndian.Uint64(b[17:])}
}

func parseTrace[T text](s T) (b [25]byte, ok bool) {
	if len(s) != traceDigits {
		return b, false
	}
	var n [4]uint64
	for used := 1; len(s) > 0; used++ { // the words that can be more than 0
		chunk := (len(s)-1)%traceChunk + 1 // the first one is short
		carry, all := uint64(0), byte(0)
		for i := range chunk { // none overflows
			d := worth(s[i])
			carry, all = carry*62+uint64(d), all|d
		}
		if all >= noDigit {
			return b, false
		}
		s = s[chunk:]
		for i := len(n) - 1; i >= len(n)-used; i-- { // n = n * base + chunk; the base of the first does not matter, since n is 0
			high, low := bits.Mul64(n[i], traceBase)
			sum, over := bits.Add64(low, carry, 0)
			n[i], carry = sum, high+over
		}
		if carry != 0 || n[0] > math.MaxUint8 {
			return b, false
		}
	}
	b[0] = byte(n[0])
	for i, word := range n[1:] {
		binary.BigEndian.PutUint64(b[1+8*i:], word)
	}
	return b, true
}
