//go:build !goexperiment.jsonv2

package codec

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"
)

// reuseUpTo is the size of data up to which a decoder is reused. What it saves does not grow with the message, while
// what it costs does: a look at the data before, and a copy of it.
const reuseUpTo = 128

// jsonReader is a decoder that is kept with what it reads from, for the state that json.Unmarshal makes anew each time.
type jsonReader struct {
	data []byte
	dec  *json.Decoder
}

// Read hands out data.
func (r *jsonReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

var jsonReaders = sync.Pool{New: func() any {
	r := new(jsonReader)
	r.dec = json.NewDecoder(r)
	return r
}}

// unmarshal is json.Unmarshal, cheaper for small messages. A Decoder differs from it in three things. It takes what
// stands before a mistake, so only what holds exactly one object or array is given to it. It counts offsets over
// all values it ever read, so json.Unmarshal words the error if the syntax is wrong: until then the message was not
// touched. And it remembers its errors, so it is kept only if it had none. A panic of an UnmarshalJSON takes it along.
func unmarshal(data []byte, v any) error {
	if len(data) > reuseUpTo {
		return json.Unmarshal(data, v)
	}
	value := bytes.TrimRight(data, " \t\r\n") // a space left over would move the offsets of the next message
	if !oneValue(value) {
		return json.Unmarshal(data, v)
	}
	r := jsonReaders.Get().(*jsonReader)
	r.data = value
	err := r.dec.Decode(v)
	if err == nil {
		jsonReaders.Put(r)
		return nil
	}
	if !json.Valid(data) {
		return json.Unmarshal(data, v)
	}
	return err
}

// oneValue reports whether data, if it starts with an object or an array without a mistake, ends where that ends. It is
// no check of the syntax.
func oneValue(data []byte) bool {
	for depth, i := 0, 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			n := text(data[i+1:])
			if n < 0 {
				return false
			}
			i += n + 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				return depth == 0 && i == len(data)-1
			}
		case ' ', '\t', '\r', '\n':
		default:
			if depth == 0 {
				return false
			}
		}
	}
	return false
}

// text returns where the string that data starts in ends, -1 for nowhere: at the first quote behind an even number of
// backslashes.
func text(data []byte) int {
	for end := 0; ; end++ {
		n := bytes.IndexByte(data[end:], '"')
		if n < 0 {
			return -1
		}
		end += n
		slashes := 0
		for slashes < end && data[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return end
		}
	}
}
