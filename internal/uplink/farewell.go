package uplink

import (
	"bytes"
	"errors"
	"os"
	"time"
)

// Some faults a broker answers with a last word, and hangs up. nats.go takes that for an end for good: a connection that
// published one message too large for a limit that was lowered meanwhile, which the broker does not tell, would never come
// back. So a word of these that is the last thing to be read is not passed on, only that the connection is lost, and why.
//
// Who reads can't tell a word from a piece of a message that looks like it. What looks like one waits until the next bytes
// prove that it was not the last, or until they would have come: a broker that hangs up does so at once.
//
// A connection on which nats.go does TLS itself keeps its words from us, see cover.

// farewells are the last words that are no reason to stay away.
var farewells = [][]byte{
	[]byte("-ERR 'Maximum Payload Violation'\r\n"),
	[]byte("-ERR 'maximum control line exceeded'\r\n"),
}

const (
	longestFarewell = 64
	hangUpTime      = 200 * time.Millisecond // from the last word to the end, on a busy machine
)

// receive is the connection's Read, without a last word. It is for one reader, who has room for more than that.
func (o *Outlet) receive(p []byte) (int, error) {
	if len(p) < 2*longestFarewell {
		n := copy(p, o.word)
		if o.word = o.word[n:]; n > 0 {
			return n, nil
		}
		return o.Conn.Read(p)
	}
	for {
		kept := copy(p, o.word)
		o.word = o.word[:0]
		whole := isFarewell(p[:kept])
		if whole {
			o.hurry(time.Now().Add(hangUpTime))
		}
		n, err := o.Conn.Read(p[kept:])
		if whole {
			o.hurry(time.Time{})
		}
		n += kept
		switch {
		case err == nil:
			at := farewellAt(p[:n])
			o.word = append(o.word, p[at:n]...)
			if at > 0 {
				return at, nil
			}
		case whole && n == kept && errors.Is(err, os.ErrDeadlineExceeded) && o.up.Load():
			return n, nil
		case whole && n == kept:
			return 0, errors.New("nats: the broker hung up: " + string(bytes.TrimSpace(p[:n])))
		default:
			return n, err
		}
	}
}

// hurry bounds the next read, unless the connection was closed: then it has a bound already.
func (o *Outlet) hurry(until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		_ = o.Conn.SetReadDeadline(until)
	}
}

// farewellAt returns where the last line begins, if it is one of the farewells or may become one, else the length.
func farewellAt(p []byte) int {
	from := max(len(p)-longestFarewell, 0)
	at := from + bytes.LastIndexByte(p[from:max(len(p)-1, from)], '\n') + 1
	for _, word := range farewells {
		if tail := p[at:]; len(tail) > 0 && len(tail) <= len(word) && bytes.EqualFold(tail, word[:len(tail)]) {
			return at
		}
	}
	return len(p)
}

func isFarewell(p []byte) bool {
	for _, word := range farewells {
		if bytes.EqualFold(p, word) {
			return true
		}
	}
	return false
}
