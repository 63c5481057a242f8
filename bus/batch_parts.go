package bus

import (
	"sync"
	"time"
)

// part is an answer to a frame, to some of its calls. Its memory serves others once it was sent.
type part struct {
	data  []byte          // a frame
	since time.Time       // when that of the calls came
	waits []time.Duration // how long from then the caller of each waits
}

// parts are the frames of an operation that have answers which wait.
type parts struct {
	mu    sync.Mutex
	wait  []*inbound
	timer *time.Timer
	rooms sync.Pool // of *part
}

// empty returns a part with room for so many answers, of so many bytes in all.
func (p *parts) empty(answers, size int) *part {
	if room, ok := p.rooms.Get().(*part); ok {
		return room
	}
	return &part{data: make([]byte, 0, size), waits: make([]time.Duration, 0, answers)}
}

// sent takes back the memory of a part.
func (p *parts) sent(room *part) {
	room.data, room.waits = room.data[:0], room.waits[:0]
	p.rooms.Put(room)
}

func (p *parts) add(in *inbound) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait = append(p.wait, in)
	if len(p.wait) == 1 {
		p.timer = reset(p.timer, partTime, p.flush)
	}
}

// flush sends what waits, some of it after a shorter time.
func (p *parts) flush() {
	p.mu.Lock()
	wait := p.wait
	p.wait = nil
	p.mu.Unlock()
	for _, in := range wait {
		in.flush()
	}
}
