package wire

import "postbus.example/endpoint"

// A Reader reads tokens as ParseToken does. Of tokens that say the same one after the other, as those of calls do that begin in the
// same millisecond, it reads the first. The zero value is ready; it is not for concurrent use.
type Reader struct {
	pairs []byte // that were read last, and what they say
	said  Request
}

// Token reads the last token of a reply subject.
func (d *Reader) Token(token string, r *Request) *endpoint.Error {
	if at, ok := idLength(token); ok {
		return readNext(d, token[at:], r)
	}
	return nil
}

// Call reads the name of an entry that is a call.
func (d *Reader) Call(e Entry, frame []byte, r *Request) *endpoint.Error {
	return readNext(d, Name(e, frame)[e.id:], r)
}

func readNext[T text](d *Reader, pairs T, r *Request) *endpoint.Error {
	if string(pairs) == string(d.pairs) {
		*r = d.said
		return nil
	}
	var said Request
	err := readPairs(pairs, &said)
	if said.Own {
		*r = said
	}
	if said.Own && err == nil {
		d.pairs, d.said = append(d.pairs[:0], pairs...), said
	}
	return err
}
