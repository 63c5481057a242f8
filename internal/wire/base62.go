package wire

// digits is the alphabet of tokens: the characters that are safe everywhere in a subject.
const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func digit(c byte) (uint64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0'), true
	case c >= 'A' && c <= 'Z':
		return uint64(c-'A') + 10, true
	case c >= 'a' && c <= 'z':
		return uint64(c-'a') + 36, true
	}
	return 0, false
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

// appendTrace writes 25 bytes as one base62 number.
func appendTrace(dst []byte, b [25]byte) []byte {
	var out [traceDigits]byte
	for i := range out {
		rem := 0
		for j := range b {
			cur := rem<<8 | int(b[j])
			b[j], rem = byte(cur/62), cur%62
		}
		out[traceDigits-1-i] = digits[rem]
	}
	return append(dst, out[:]...)
}

func parseTrace(s string) (b [25]byte, ok bool) {
	if len(s) != traceDigits {
		return b, false
	}
	for i := range len(s) {
		d, ok := digit(s[i])
		if !ok {
			return b, false
		}
		carry := int(d)
		for j := len(b) - 1; j >= 0; j-- {
			cur := int(b[j])*62 + carry
			b[j], carry = byte(cur), cur>>8
		}
		if carry != 0 {
			return b, false
		}
	}
	return b, true
}
