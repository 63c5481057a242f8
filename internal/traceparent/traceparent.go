// Package traceparent reads and writes W3C's header of that name, of version 00, eight digits at a time: each call of a program
// that traces has one written and read on either side of the wire.
package traceparent

import "encoding/binary"

// Length is that of a traceparent of version 00: 00-<32 hex digits: trace>-<16: span>-<2: flags>.
const Length = 55

// Where its parts begin.
const (
	traceAt, spanAt, flagsAt = 3, 36, 53
	chunk                    = 8 // digits, four bytes
)

// Parts are the bytes of a traceparent: 16 of the trace's id, 8 of the span's, and the flags.
type Parts [25]byte

// Read returns the parts of a traceparent of version 00, and false if s has another form. Only small hex digits count. It does
// not look at what the ids are.
func Read(s string) (p Parts, ok bool) {
	if len(s) != Length || s[:traceAt] != "00-" || s[spanAt-1] != '-' || s[flagsAt-1] != '-' {
		return p, false
	}
	var text [Length]byte
	copy(text[:], s)
	var bad uint64
	read := func(at, from int) {
		v, wrong := fromDigits(binary.LittleEndian.Uint64(text[from:]))
		binary.LittleEndian.PutUint32(p[at:], v)
		bad |= wrong
	}
	for i := range 4 {
		read(4*i, traceAt+chunk*i)
	}
	read(16, spanAt)
	read(20, spanAt+chunk)
	flags, wrong := fromDigits(noDigits&^0xffff | uint64(text[flagsAt+1])<<8 | uint64(text[flagsAt]))
	p[24] = byte(flags)
	return p, bad|wrong == 0
}

// Write returns the traceparent of its parts.
func Write(p *Parts) string {
	var text [Length]byte
	copy(text[:], "00-")
	write := func(at, from int) {
		binary.LittleEndian.PutUint64(text[at:], toDigits(binary.LittleEndian.Uint32(p[from:])))
	}
	for i := range 4 {
		write(traceAt+chunk*i, 4*i)
	}
	text[spanAt-1] = '-'
	write(spanAt, 16)
	write(spanAt+chunk, 20)
	text[flagsAt-1] = '-'
	flags := toDigits(uint32(p[24]))
	text[flagsAt], text[flagsAt+1] = byte(flags), byte(flags>>8)
	return string(text[:])
}

// Eight digits are the eight bytes of a word, the first one in the lowest.
const (
	ones     = 0x0101010101010101
	noDigits = '0' * ones
	letter   = 'a' - '0' - 10
)

// toDigits writes four bytes, the first one in the lowest eight bits, as eight digits.
func toDigits(v uint32) uint64 {
	n := uint64(v)
	n = (n | n<<16) & 0x0000ffff0000ffff
	n = (n | n<<8) & 0x00ff00ff00ff00ff
	return letters(n>>4&(0x0f*0x0001000100010001) | n&(0x0f*0x0001000100010001)<<8)
}

// letters makes digits of eight numbers below 16.
func letters(n uint64) uint64 { return n + noDigits + (n+6*ones)>>4&ones*letter }

// fromDigits is the reverse of toDigits. What is wrong is 0 if all eight are small hex digits.
func fromDigits(x uint64) (v uint32, wrong uint64) {
	n := x&(0x0f*ones) + x>>6&ones*9 // of letters the fourth bit from the left is set, and a is 1
	wrong = n&(0xf0*ones) | (letters(n) ^ x)
	n = (n<<4 | n>>8) & 0x00ff00ff00ff00ff
	n = (n | n>>8) & 0x0000ffff0000ffff
	return uint32(n | n>>16), wrong
}
