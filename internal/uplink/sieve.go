package uplink

import (
	"bytes"
	"math"
	"slices"
	"time"
)

// Items of streams are most of what a client reads that has some, and nats.go takes four allocations for the one header of each.
// Replies are the rest of what it reads. So the outlet takes them out of what is read, and passes on what is left:
//
//	network ──► receive ──► sieve ──► nats.go ──► subscription ──► deliver
//	                          ├──► Line: the very next item of an open stream, with its number and nothing else
//	                          └──► Taker: requests and replies without headers
//
// What is out of the ordinary in any way goes the usual way: an item that says more than its number, or is of a stream that is not
// open, and each that comes while one before it, or an end, is still on that way. So order is kept, and what is wrong is found there.

const (
	sieved   = 8 << 10 // bytes of a message from which on the usual way costs little more
	longLine = 8 << 10 // bytes of a line that are waited for
)

// sieve knows where it is in what is read. It is for one reader.
type sieve struct {
	on   bool   // what is read is the protocol, and it was seen from the beginning of a line on
	skip int    // bytes to pass on that belong to a message
	kept []byte // the beginning of what is not whole yet
	out  Taker
	now  time.Time // of this read, zero: not asked for
	fed  Line      // that got an item and was not told yet

	subject []byte // of the last item
	line    Line   // that took it, and is fed then

	ready []Runner // that have something to be run by who reads
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
	seq, ok := itemNumber(data[:n])
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
func (s *sieve) tell(l Line) {
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
