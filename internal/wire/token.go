package wire

import (
	"fmt"
	"strconv"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/internal/traceparent"
)

// A reply token is id 1*( "~" key value ): the id finds the waiting call, the pairs are metadata that costs no header.

// MaxToken is the longest token that is read.
const MaxToken = 160

const (
	slotDigits   = 4
	secretDigits = 11 // 64 bits
	minID        = 12
	// MaxSlots is how many slots an id can name.
	MaxSlots = 62 * 62 * 62 * 62
)

// AppendID writes the id of a slot and its 64 random bits.
func AppendID(dst []byte, slot int, secret uint64) []byte {
	dst = appendBase62(dst, uint64(slot), slotDigits)
	return appendBase62(dst, secret, secretDigits)
}

// ParseID reads what AppendID wrote, from a token with or without pairs.
func ParseID(token string) (slot int, secret uint64, ok bool) {
	const n = slotDigits + secretDigits
	if len(token) < n || len(token) > n && token[n] != '~' {
		return 0, 0, false
	}
	s, ok1 := parseBase62(token[:slotDigits])
	secret, ok2 := parseBase62(token[slotDigits:n])
	return int(s), secret, ok1 && ok2
}

// AppendToken writes the pairs of r behind an id.
func AppendToken(dst []byte, r *Request) []byte {
	if r.HasTimeout {
		dst = AppendTimeout(append(dst, '~', 'd'), r.Timeout)
	}
	if r.HasSent && r.Sent >= 0 && r.Sent < maxSent { // a clock before 1970 has nothing to say
		dst = strconv.AppendInt(append(dst, '~', 's'), r.Sent, 36)
	}
	if c, ok := MediaLetter(r.MediaType); ok {
		dst = append(dst, '~', 'm', c)
	}
	if r.Ack {
		dst = append(dst, '~', 'a', '1')
	}
	if r.Tell {
		dst = append(dst, '~', 'i', '1')
	}
	if r.MaxReply > 0 {
		key := byte('r')
		if r.TakesS2 {
			key = 'z'
		}
		dst = strconv.AppendUint(append(dst, '~', key), r.MaxReply, 36)
	}
	if b, ok := packTrace(r.Trace); ok {
		dst = appendTrace(append(dst, '~', 't'), b)
	}
	return dst
}

// mediaLetters are the media types with a letter of their own, append-only. JSON needs none: a valid token without a
// letter says JSON.
var mediaLetters = [...]struct {
	letter byte
	name   string
}{{'p', "application/proto"}, {'c', "application/cbor"}, {'r', "application/octet-stream"}}

// JSONType is the media type of a valid token that names none.
const JSONType = "application/json"

// MediaLetter returns the letter of a media type.
func MediaLetter(mediaType string) (byte, bool) {
	for _, m := range mediaLetters {
		if m.name == mediaType {
			return m.letter, true
		}
	}
	return 0, false
}

// ParseToken reads a reply subject's last token. A token of another form is foreign and says nothing: r stays what it was.
// Unknown keys are skipped, and so is a trace that can't be read, as a bad traceparent is. A key of ours that is repeated, or
// can't be read, is an error for the caller; of such a token r has only that the caller is one of ours, and what it asked
// to be told.
func ParseToken[T text](token T, r *Request) *endpoint.Error {
	if at, ok := idLength(token); ok {
		return readPairs(token[at:], r)
	}
	return nil
}

// idLength returns how long the id is that a token begins with; false for what has not the form of one of ours.
func idLength[T text](token T) (n int, ok bool) {
	n, ok = part(token, 0)
	return n, ok && n >= minID && n < len(token) && len(token) <= MaxToken
}

// readPairs reads what follows the id of a token.
func readPairs[T text](token T, r *Request) *endpoint.Error {
	out, at := Request{Own: true}, 0
	var seen uint32 // a bit for each key
	why, bad := "", ""
	for at < len(token) { // and a tilde is there
		from := at + 1
		if from == len(token) || token[from] < 'a' || token[from] > 'z' {
			return nil
		}
		read, known, sound := setPair(&out, token, from)
		end, ok := part(token, read) // what is left of a pair that was not read to its end
		if !ok {
			return nil
		}
		at = end
		bit := uint32(1) << (token[from] - 'a')
		switch {
		case bad != "": // the first fault is told
		case !sound || at != read:
			why, bad = "can't be read", string(token[from:at])
		case known && seen&bit != 0:
			why, bad = "is repeated", string(token[from:at])
		}
		seen |= bit
	}
	if bad != "" { // known only now to be ours: a later pair could have made it foreign
		*r = Request{Own: true, Tell: out.Tell}
		return fault(endpoint.ReasonMalformedHeader, fmt.Sprintf("reply token: %q in it %s", bad, why))
	}
	*r = out
	return nil
}

// text is a token, in a subject or in a frame.
type text interface{ string | []byte }

// part returns where the part of a token ends that begins at from, and whether it is made of digits alone.
func part[T text](token T, from int) (end int, ok bool) {
	var all byte
	for end = from; end < len(token) && token[end] != '~'; end++ {
		all |= worth(token[end])
	}
	return end, all < noDigit
}

// setPair takes the pair of a token whose key is there. It returns how far it read, the end of the pair if all is well, whether
// the key is ours, and whether what was read is sound.
func setPair[T text](r *Request, token T, key int) (end int, known, sound bool) {
	at := key + 1
	switch token[key] {
	case 'd':
		r.Timeout, end, r.HasTimeout = readTimeout(token, at)
		return end, true, r.HasTimeout
	case 's':
		r.Sent, end, r.HasSent = readSent(token, at)
		return end, true, r.HasSent
	}
	end, ok := part(token, at)
	if !ok {
		return at, false, false // and foreign
	}
	known, sound = setWhole(r, token[key], token[at:end])
	return end, known, sound
}

// setWhole takes the pairs whose values are not read digit by digit.
func setWhole[T text](r *Request, key byte, v T) (known, sound bool) {
	switch key {
	case 'm':
		r.MediaType = mediaOf(v)
		return true, len(v) > 0
	case 'a':
		r.Ack = yes(v)
	case 'i':
		r.Tell = yes(v)
	case 'r', 'z':
		r.MaxReply, sound = parseSize(string(v), 36)
		r.TakesS2 = key == 'z'
		return true, sound
	case 't':
		if b, ok := parseTrace(v); ok && isTrace(&b) {
			r.Trace = unpackTrace(b)
		}
	default:
		return false, true
	}
	return true, true
}

func yes[T text](v T) bool { return len(v) == 0 || len(v) == 1 && v[0] == '1' }

// mediaOf returns the media type of a letter. One that is not known here is still not JSON: it gets a type that no codec
// has, so that the call is refused by the name of what it wanted, rather than decoded as something else.
func mediaOf[T text](letter T) string {
	if len(letter) == 1 {
		for i := range mediaLetters {
			if m := &mediaLetters[i]; letter[0] == m.letter {
				return m.name
			}
		}
	}
	return "unknown/" + string(letter)
}

// maxSent is the year 2248. Later send times can't be told from now in nanoseconds without overflow.
const maxSent = 1 << 43

// parseSent reads unix milliseconds that a clock can show, in digits alone.
func parseSent(v string) (int64, bool) {
	if v == "" || !alnum(v[:1]) { // ParseInt would take a sign
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil && n < maxSent
}

// readSent is parseSent in base 36, of digits in either case, and returns where they end. A token has one in each call.
func readSent[T text](token T, from int) (n int64, end int, ok bool) {
	for end = from; end < len(token); end++ {
		d := worth(token[end])
		if d >= noDigit {
			break
		}
		if d >= 36 {
			d -= 26 // a small letter
		}
		if n = n*36 + int64(d); n >= maxSent {
			return 0, end, false
		}
	}
	return n, end, end > from
}

// packTrace takes a traceparent of version 00: 16 bytes trace id, 8 bytes span id, flags.
func packTrace(tp string) (b [25]byte, ok bool) {
	b, ok = traceparent.Read(tp)
	return b, ok && isTrace(&b)
}

// isTrace tells a trace from one whose ids are zeros, as ValidTrace does.
func isTrace(b *[25]byte) bool {
	return [16]byte(b[:16]) != [16]byte{} && [8]byte(b[16:24]) != [8]byte{}
}

func unpackTrace(b [25]byte) string { return traceparent.Write((*traceparent.Parts)(&b)) }

// traceLength is that of a traceparent of version 00.
const traceLength = traceparent.Length

// noTrace is a trace id that is none, and in part a span id that is none.
const noTrace = "00000000000000000000000000000000"

// ValidTrace checks the form of a W3C traceparent: as long as those of version 00, of any version but ff, with a trace id and a
// span id that are not all zeros.
func ValidTrace(tp string) bool {
	if len(tp) != traceLength || tp[2] != '-' || tp[35] != '-' || tp[52] != '-' {
		return false
	}
	for i := range len(tp) {
		c := tp[i]
		if i != 2 && i != 35 && i != 52 && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return tp[:2] != "ff" && tp[3:35] != noTrace && tp[36:52] != noTrace[:16]
}

// Sampled reports whether a traceparent has the sampled flag. Such a one travels as a header, so that any peer and the
// broker's own tracing see it.
func Sampled(tp string) bool {
	if len(tp) != traceLength {
		return false
	}
	flag := strings.IndexByte("0123456789abcdef", tp[traceLength-1])
	return flag > 0 && flag&1 == 1 && ValidTrace(tp) // in this order: most are not sampled
}
