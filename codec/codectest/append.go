package codectest

import (
	"bytes"
	"strings"

	"postbus.example/codec"
)

func (s *suite) name() {
	name := s.c.Name()
	top, sub, ok := strings.Cut(name, "/")
	switch {
	case name != codec.MediaType(name):
		s.failf("Name() = %q, must be lower case and without parameters: %q", name, codec.MediaType(name))
	case !ok || !legalName(top) || !legalName(sub):
		s.failf("Name() = %q is no media type, such as application/json", name)
	}
	for range 3 {
		if again := s.c.Name(); again != name {
			s.failf("Name() = %q after %q, it must never change", again, name)
		}
	}
}

// legalName reports whether a part of a media type follows RFC 6838, section 4.2.
func legalName(s string) bool {
	for i, c := range []byte(s) {
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("!#$&-^_.+", rune(c))) {
			return false
		}
	}
	return s != "" && len(s) <= 127
}

func (s *suite) roundTrip() {
	for _, sample := range s.samples {
		v := sample()
		for range 2 { // two encodings may differ, for the order of a map, but not in what they mean
			data, ok := s.encoding(v)
			if !ok {
				break
			}
			s.means(data, v, "Append(nil, …)")
		}
	}
}

// means notes if data does not decode to want.
func (s *suite) means(data []byte, want any, how string) {
	got := blank(want)
	if err := s.decode(data, got); err != nil {
		s.failf("Decode of what %s made of %T: %v", how, want, err)
	} else if !s.equal(got, want) {
		s.failf("%s, then Decode: got %+v, want %+v (%T)", how, got, want, want)
	}
}

const prefix = "what stands before"

func (s *suite) appendToPrefix() {
	for _, sample := range s.samples {
		v := sample()
		plain, ok := s.encoding(v)
		if !ok {
			continue
		}
		for _, spare := range []int{0, 1, len(plain) / 2, len(plain), len(plain) + 1, 2*len(plain) + 512} {
			s.appendInto(append(make([]byte, 0, len(prefix)+spare), prefix...), v)
			s.appendInto(make([]byte, 0, spare), v)
		}
	}
	for _, bad := range s.unencodable {
		dst := append(make([]byte, 0, 512), prefix...)
		_, err := s.append(dst, bad())
		if !panicked(err) && string(dst) != prefix {
			s.failf("Append of an unencodable %T changed the first len(dst) bytes", bad())
		}
	}
}

func (s *suite) appendInto(dst []byte, v any) {
	before := bytes.Clone(dst)
	out, err := s.append(dst, v)
	switch {
	case err != nil:
		s.failf("Append(%d bytes, %T): %v", len(dst), v, err)
	case !bytes.HasPrefix(out, before):
		s.failf("Append(%d bytes with capacity %d, %T) must return them with the encoding after them, got %q", len(dst), cap(dst), v, out)
	case !bytes.Equal(dst, before):
		s.failf("Append(%d bytes with capacity %d, %T) changed them in place", len(dst), cap(dst), v)
	default:
		s.means(out[len(before):], v, "Append to a prefix")
	}
}

func (s *suite) appendLeavesMessage() {
	for _, sample := range s.samples {
		v := sample()
		data, ok := s.encoding(v)
		if !ok {
			continue
		}
		if !s.equal(v, sample()) {
			s.failf("Append changed its message: %+v, was %+v", v, sample())
			continue
		}
		overwrite(data)
		if !s.equal(v, sample()) {
			s.failf("Append returned memory of its message: overwriting the encoding of %T changed it", v)
		}
	}
}

// appendRetainsNothing keeps the results of many calls and sees whether later ones, or the buffers' owners, reach
// into them.
func (s *suite) appendRetainsNothing() {
	for _, sample := range s.samples {
		first, ok := s.encoding(sample())
		if !ok {
			continue
		}
		kept := bytes.Clone(first)
		dst := make([]byte, 0, 4*len(first)+64)
		if _, err := s.append(dst, sample()); err != nil {
			s.failf("Append: %v", err)
		}
		overwrite(dst[:cap(dst)])
		untouched := bytes.Clone(dst[:cap(dst)])
		for _, other := range s.samples {
			out, _ := s.append(nil, other())
			overwrite(out) // its owner may: it must not be the memory of first
		}
		if !bytes.Equal(first, kept) {
			s.failf("a later Append changed what Append returned for %T", sample())
		}
		if !bytes.Equal(dst[:cap(dst)], untouched) {
			s.failf("Append retained dst: a later call wrote to it")
		}
		s.means(first, sample(), "Append, and others after it,")
		s.means(kept, sample(), "Append")
	}
}

func overwrite(b []byte) {
	for i := range b {
		b[i] = 0xa5
	}
}
