package bus

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"
)

// Items of streams are most of what a client reads that has some, and nats.go takes four allocations for the one header of each.
// Replies are the rest of what it reads. So the outlet takes them out of what is read, and passes on what is left:
//
//	network ──► receive ──► sieve ──► nats.go ──► subscription ──► deliver
//	                          ├──► line: the very next item of an open stream, with its number and nothing else
//	                          └──► slot: a reply without headers, see shortcut.go
//
// What is out of the ordinary in any way goes the usual way: an item that says more than its number, or is of a stream that is not
// open, and each that comes while one before it, or an end, is still on that way. So order is kept, and what is wrong is found there.

const (
	sieved     = 8 << 10 // bytes of a message from which on the usual way costs little more
	longLine   = 8 << 10 // bytes of a line that are waited for
	itemHeader = "NATS/1.0\r\nRpc-Seq: "
	endHeader  = "\r\nRpc-End: "

	maxItemHead = len(itemHeader) + 20 + len("\r\n\r\n") // bytes that count as payload
)

// sieve knows where it is in what is read. It is for one reader.
type sieve struct {
	on   bool   // what is read is the protocol, and it was seen from the beginning of a line on
	skip int    // bytes to pass on that belong to a message
	kept []byte // the beginning of what is not whole yet
	out  taker
	now  time.Time // of this read, zero: not asked for
	fed  liner     // that got an item and was not told yet

	subject []byte // of the last item
	line    liner  // that took it, and is fed then

	ready []runner // that have something to be run by who reads
}

// taker takes what is read. It must not block, and the bytes are not its own.
type taker interface {
	// Item takes an item, and returns whose it is; nil if it is to go the usual way. Of those that do, and of ends, Detour tells: what
	// comes after them must not be earlier.
	Item(subject []byte, seq uint64, body []byte, now time.Time) liner
	Detour(subject []byte)

	// Plain takes a message without headers; false if it is to go the usual way. Of all that do, Passes tells. What it returns
	// besides has something that who reads is to run.
	Plain(subject, reply, body []byte) (runner, bool)
	Passes(subject []byte)
}

// liner is an end of a stream that items are for.
type liner interface {
	// Next takes an item, if it is the next one and none is to go the usual way.
	Next(seq uint64, body []byte, now time.Time) bool

	// Told is called when all that was read for it was given to it, or what came next was another's.
	Told()
}

// runner has something for who reads to run, the handlers of an endpoint.
type runner interface {
	RunInline() // runs what waits, as long as it is quick
	Distrust()  // is told that one of them blocks: none is to be run inline for a while
	TakeOver()  // has others see to what waits
}

// sift takes items out of p and returns how many bytes are to be passed on, which are moved to its beginning.
func (s *sieve) sift(p []byte) int {
	out, from, at := 0, 0, 0 // passed on are p[:out], and p[from:at] when it is moved there
	for at < len(p) && s.on {
		if s.skip > 0 {
			n := min(s.skip, len(p)-at)
			s.skip, at = s.skip-n, at+n
			continue
		}
		size, whole := s.message(p[at:])
		switch {
		case !whole: // the rest comes with the next read
			s.kept = append(s.kept, p[at:]...)
			out += copy(p[out:], p[from:at])
			s.rest()
			return out
		case size > 0: // it was an item
			out += copy(p[out:], p[from:at])
			at += size
			from = at
		}
	}
	s.rest()
	return out + copy(p[out:], p[from:])
}

// message looks at what begins p: an item that was taken has a size; other messages and lines are to be skipped.
func (s *sieve) message(p []byte) (size int, whole bool) {
	end := bytes.IndexByte(p[:min(len(p), longLine)], '\n') + 1
	if end == 0 {
		s.on = len(p) < longLine
		return 0, !s.on
	}
	line := p[:end]
	switch line[0] {
	case 'M', 'H':
		n, ok := lastNumber(line)
		if !ok {
			s.on = false
			return 0, true
		}
		all := end + n + len("\r\n")
		kind, subject, rest := address(line)
		if all <= sieved && s.out != nil {
			if len(p) < all {
				return 0, false
			}
			data := p[end : end+n]
			if string(kind) == "MSG" && s.plain(subject, rest, data) || string(kind) == "HMSG" && s.item(subject, rest, data) {
				return all, true
			}
		}
		if s.out != nil {
			s.out.Passes(subject)
		}
		s.skip = all
	default:
		s.skip = end
	}
	return 0, true
}

// lastNumber reads the number at the end of a line.
func lastNumber(line []byte) (n int, ok bool) {
	end := len(line) - len("\r\n")
	if end < 1 || line[end] != '\r' {
		return 0, false
	}
	at := bytes.LastIndexByte(line[:end], ' ') + 1
	v, ok := number(line[at:end])
	return int(v), ok && v <= math.MaxInt32
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

// address reads the line of a message: what kind it is, its subject, and what stands behind the number of the subscription.
func address(line []byte) (kind, subject, rest []byte) {
	kind, rest, _ = bytes.Cut(line[:len(line)-len("\r\n")], []byte{' '})
	subject, rest, _ = bytes.Cut(rest, []byte{' '})
	_, rest, _ = bytes.Cut(rest, []byte{' '})
	return kind, subject, rest
}

// plain reports whether somebody took a message without headers.
func (s *sieve) plain(subject, rest, data []byte) bool {
	reply, _, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		reply = nil // this was the size
	}
	d, ok := s.out.Plain(subject, reply, data)
	if d != nil && !slices.Contains(s.ready, d) {
		s.ready = append(s.ready, d)
	}
	return ok
}

// item reports whether a message is an item that somebody took.
func (s *sieve) item(subject, rest, data []byte) bool {
	length, _, _ := bytes.Cut(rest, []byte{' '})
	n, ok := number(length) // a reply subject is none
	if !ok || n > uint64(len(data)) || len(rest) <= len(length)+1 || bytes.IndexByte(rest[len(length)+1:], ' ') >= 0 {
		return false
	}
	text, ok := bytes.CutPrefix(data[:n], []byte(itemHeader))
	if ok {
		text, ok = bytes.CutSuffix(text, []byte("\r\n\r\n"))
	}
	var seq uint64
	if ok {
		seq, ok = number(text)
	}
	switch {
	case ok && s.take(subject, seq, data[n:]):
		return true
	case ok, bytes.Contains(data[:n], []byte(endHeader)):
		s.out.Detour(subject)
	}
	return false
}

// take reports whether somebody took an item.
func (s *sieve) take(subject []byte, seq uint64, body []byte) bool {
	if s.now.IsZero() {
		s.now = time.Now()
	}
	if s.line != nil && bytes.Equal(s.subject, subject) && s.line.Next(seq, body, s.now) {
		return true
	}
	if s.line = s.out.Item(subject, seq, body, s.now); s.line == nil {
		return false
	}
	s.subject = append(s.subject[:0], subject...)
	s.tell(s.line)
	return true
}

// tell lets the consumer of a line know when all that was read is there, or what came next is another's.
func (s *sieve) tell(l liner) {
	if s.fed != nil && s.fed != l {
		s.fed.Told()
	}
	s.fed = l
}

// rest is what is done before the next read, which may take long.
func (s *sieve) rest() {
	s.tell(nil)
	s.line = nil
}

// appendItem writes what stands before the body of an item that has a number and nothing else.
func appendItem(dst []byte, to string, seq uint64, size int) []byte {
	var room [20]byte
	digits := strconv.AppendUint(room[:0], seq, 10)
	n := len(itemHeader) + len(digits) + len("\r\n\r\n")
	dst = append(append(append(dst, "HPUB "...), to...), ' ')
	dst = append(strconv.AppendInt(dst, int64(n), 10), ' ')
	dst = append(strconv.AppendInt(dst, int64(n+size), 10), "\r\n"...)
	return append(append(append(dst, itemHeader...), digits...), "\r\n\r\n"...)
}
