package stream

import "errors"

// What is wrong with a chunk, besides what is wrong with an item.
var (
	ErrEmpty  = errors.New("a chunk is empty")
	ErrExcess = errors.New("more came than was announced")
)

// Assembly puts a message together whose length was announced. It takes memory for what came, and not for what was promised:
// four times as much at most. The zero value takes nothing.
type Assembly struct {
	total int
	buf   []byte
}

// firstRoom is what an assembly begins with, or less where less was announced.
const firstRoom = 256 << 10

// NewAssembly returns the assembly of a message of so many bytes. Whether that is too many is for others to say.
func NewAssembly(total int) Assembly { return Assembly{total: total} }

// Total returns how many bytes were announced.
func (a *Assembly) Total() int { return a.total }

// Room returns where the next chunk belongs, of so many bytes when it is decoded. Who asks fills it.
func (a *Assembly) Room(n int) ([]byte, error) {
	have := len(a.buf)
	switch {
	case n <= 0:
		return nil, ErrEmpty
	case n > a.total-have:
		return nil, ErrExcess
	case have+n > cap(a.buf):
		more := make([]byte, have, min(a.total, max(firstRoom, 4*have, have+n)))
		copy(more, a.buf)
		a.buf = more
	}
	a.buf = a.buf[:have+n]
	return a.buf[have : have+n : have+n], nil
}

// Whole returns the message, nil as long as some of it is missing. It is the caller's.
func (a *Assembly) Whole() []byte {
	if len(a.buf) < a.total {
		return nil
	}
	return a.buf
}
