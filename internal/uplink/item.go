package uplink

import (
	"bytes"
	"strconv"
)

// Most items of streams have a number and nothing else in their header. Those are written without nats.go, and read without it.

const (
	itemHeader = "NATS/1.0\r\nRpc-Seq: "
	endHeader  = "\r\nRpc-End: "
)

// MaxItemHead is how many bytes of what AppendItem writes count as payload, at most.
const MaxItemHead = len(itemHeader) + 20 + len("\r\n\r\n")

// AppendItem writes what stands before the body of an item that has a number and nothing else.
func AppendItem(dst []byte, to string, seq uint64, size int) []byte {
	var room [20]byte
	digits := strconv.AppendUint(room[:0], seq, 10)
	n := len(itemHeader) + len(digits) + len("\r\n\r\n")
	dst = append(append(append(dst, "HPUB "...), to...), ' ')
	dst = append(strconv.AppendInt(dst, int64(n), 10), ' ')
	dst = append(strconv.AppendInt(dst, int64(n+size), 10), "\r\n"...)
	return append(append(append(dst, itemHeader...), digits...), "\r\n\r\n"...)
}

// itemNumber reads the header of such an item; not ok if it is another's.
func itemNumber(header []byte) (seq uint64, ok bool) {
	text, ok := bytes.CutPrefix(header, []byte(itemHeader))
	if !ok {
		return 0, false
	}
	if text, ok = bytes.CutSuffix(text, []byte("\r\n\r\n")); !ok {
		return 0, false
	}
	return number(text)
}

// number reads digits, fewer than would overflow.
func number(p []byte) (n uint64, ok bool) {
	if len(p) == 0 || len(p) > 18 {
		return 0, false
	}
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, true
}
