package wire

import (
	"strconv"
	"strings"

	"postbus.example/endpoint"
)

// A message that is larger than the broker takes goes in chunks. One message announces how long it is, the receiver says that it
// may come, and where to; then it comes as the items of a stream do, paid for by credit in the same way.

// S2 is the one content encoding of chunks: each of them is a block of S2.
const S2 = "s2"

// MaxChunk is how many bytes of a message one chunk has at most.
const MaxChunk = 128 << 10

// ChunkSize is how many bytes of a message a sender puts into a chunk, of which the broker must take all, headers included.
func ChunkSize(maxPayload int64) int { return int(max(min(MaxChunk, maxPayload/2), 1)) }

// ChunkGrant is what a sender of chunks may be ahead of what was put together.
func ChunkGrant() Grant { return Grant{Messages: 2048, Bytes: 1 << 20} }

// parseSize reads how long a message is. Nothing is no message in chunks.
func parseSize(s string, base int) (uint64, bool) {
	n, err := strconv.ParseUint(s, base, 64) // takes no sign
	if err != nil || n == 0 || n > maxTotal {
		return 0, false
	}
	return n, true
}

// maxReply writes the value of Rpc-Max-Reply.
func maxReply(r *Request) string {
	v := strconv.FormatUint(r.MaxReply, 10)
	if r.TakesS2 {
		v += ";" + S2
	}
	return v
}

// parseMaxReply reads it: encodings that are not known are no harm.
func parseMaxReply(v string) (n uint64, s2, ok bool) {
	v, encodings, _ := strings.Cut(v, ";")
	for e := range strings.SplitSeq(encodings, ";") {
		s2 = s2 || strings.Trim(e, " \t") == S2
	}
	n, ok = parseSize(strings.TrimRight(v, " \t"), 10)
	return n, s2 && ok, ok
}

func writeSize(h Headers, size uint64, encoding string) {
	h[SizeHeader] = []string{strconv.FormatUint(size, 10)}
	if encoding != "" {
		h[Encoding] = []string{encoding}
	}
}

// takeEncoding takes the content encoding out of what is the application's.
func takeEncoding(app *endpoint.Header) string {
	v := strings.Trim(app.Get(Encoding), " \t")
	app.Del(Encoding)
	return v
}

// WriteAnnouncement adds to the headers of a reply, which has no body here, that it is so long and follows in chunks.
func WriteAnnouncement(h Headers, instance string, size uint64, encoding string) {
	h[Open] = []string{instance}
	writeSize(h, size, encoding)
}

// Announces reports whether the headers of a reply say that it comes in chunks.
func Announces(h Headers) bool {
	_, ok := fold(h, SizeHeader)
	return ok
}

// Arrived takes away what makes an announcement: the reply is here.
func Arrived(h Headers) {
	for name := range h {
		if strings.EqualFold(name, Encoding) || strings.EqualFold(name, SizeHeader) || strings.EqualFold(name, Open) {
			delete(h, name)
		}
	}
}

// readOpen reads what opens a stream, or says that a request in chunks may come, or that a reply comes so.
func readOpen(h Headers, instance string, body []byte, app *endpoint.Header) Frame {
	r := ReadReply(h, nil, app)
	f := Frame{Instance: instance, MediaType: r.MediaType}
	ok := word(instance) && instance != "" && len(body) == 0 && r.Err == nil
	if v, announced := fold(h, SizeHeader); announced {
		var sized bool
		f.Size, sized = parseSize(v, 10)
		f.Encoding = takeEncoding(app)
		ok = ok && sized
	}
	f.Kind = sound(OpenFrame, ok)
	return f
}
