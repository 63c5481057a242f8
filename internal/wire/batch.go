package wire

import (
	"encoding/binary"
	"fmt"
	"strings"

	"postbus.example/endpoint"
)

// A batch frame is many small calls in one message, and its answer many replies: one entry after the other, each a name and a
// body, the length of either before it as an unsigned varint. The name of a call is its reply token, that of a reply the id
// which the token begins with.

// What a batch frame may have. A frame of replies may have as much, its bodies as well.
const (
	MaxEntries   = 32       // calls
	MaxEntryBody = 1 << 10  // bytes of a body
	MaxBatch     = 64 << 10 // bytes in all
)

// BatchSubject is where the frames of an endpoint go.
func BatchSubject(subject string) string { return subject + ".~f" }

// IsBatchSubject reports whether a subject is one where frames go.
func IsBatchSubject(subject string) bool { return strings.HasSuffix(subject, ".~f") }

// AppendEntry writes an entry behind others.
func AppendEntry[N string | []byte](dst []byte, name N, body []byte) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
	return append(binary.AppendUvarint(dst, uint64(len(body))), body...)
}

// EntrySize is how many bytes AppendEntry writes, at most.
func EntrySize(name, body int) int { return name + body + 2 + 3 }

// Entry is a part of a frame: where name and body are in it.
type Entry struct {
	name, body, end int32
	length, id      uint8 // of the name, and of the id in it once IsCall has found it
}

// Name is an entry's name in its frame.
func Name[F string | []byte](e Entry, frame F) F { return frame[e.name : e.name+int32(e.length)] }

// IsCall reports whether an entry's name is a reply token, whatever its pairs say.
func (e *Entry) IsCall(frame []byte) bool {
	name := Name(*e, frame)
	n, ok := idLength(name)
	e.id = uint8(n)
	return ok && n+1 < len(name)
}

// ID is the id of an entry that is a call, in its frame.
func (e *Entry) ID(frame []byte) []byte { return Name(*e, frame)[:e.id] }

// Body is the entry's body in its frame, of which it is a part; what is appended to it goes elsewhere.
func (e *Entry) Body(frame []byte) []byte { return frame[e.body:e.end:e.end] }

// ReadEntries appends the entries of a frame to dst. What is no frame, or more than one may have, is an error for who sent it.
func ReadEntries(dst []Entry, frame []byte) ([]Entry, *endpoint.Error) {
	if len(frame) > MaxBatch {
		return dst, badBatch(fmt.Sprintf("it has %d bytes, at most %d are taken", len(frame), MaxBatch))
	}
	first := len(dst)
	for at := 0; at < len(frame); {
		if len(dst)-first == MaxEntries {
			return dst, badBatch(fmt.Sprintf("it has more than %d entries", MaxEntries))
		}
		name, nameEnd, ok1 := span(frame, at, 1, MaxToken)
		body, end, ok2 := span(frame, int(nameEnd), 0, MaxEntryBody)
		if !ok1 || !ok2 {
			return dst, badBatch(fmt.Sprintf("entry %d can't be read", len(dst)-first+1))
		}
		dst = append(dst, Entry{name: name, length: uint8(nameEnd - name), body: body, end: end})
		at = int(end)
	}
	if len(dst) == first {
		return dst, badBatch("it is empty")
	}
	return dst, nil
}

// span reads a length and returns where what follows it begins and ends.
func span(b []byte, at, least, most int) (from, to int32, ok bool) {
	n, size := binary.Uvarint(b[at:])
	at += size
	if size <= 0 || n < uint64(least) || n > uint64(most) || n > uint64(len(b)-at) {
		return 0, 0, false
	}
	return int32(at), int32(at) + int32(n), true
}

// ReadEntryHeader returns which of the calls in a frame a message with these headers is about.
func ReadEntryHeader(h Headers) (id string, ok bool) { return fold(h, EntryHeader) }

func badBatch(why string) *endpoint.Error {
	return fault(endpoint.ReasonProtocol, "the batch frame is not read: "+why)
}
