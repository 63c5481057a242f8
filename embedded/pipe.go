package embedded

import (
	"net"
	"sync"
	"sync/atomic"
)

const greetingLimit = 64 << 10 // bytes; no login is longer

// pipeEnd is the client's end of a connection within the process.
//
// A net.Pipe holds nothing: a write waits until the other end reads. A server that refuses a client stops reading and
// writes the reason, while the client still writes its greeting. Each would wait for the other until the server gives
// up after ten seconds, and the reason would be lost. So writes do not wait until the server has answered the first
// one. From then on they go straight to the pipe: a goroutine in between would cost each message its share.
type pipeEnd struct {
	net.Conn
	wrote  atomic.Bool // the greeting is on its way
	direct atomic.Bool // the greeting is over

	mu       sync.Mutex
	answered bool          // the server has said something since wrote; nothing is queued after that
	queue    []byte        // what of the greeting is not yet handed to the pipe
	idle     chan struct{} // closed when the goroutine that empties the queue has ended; nil if there is none
	failed   error         // why that goroutine could not write
}

// Read implements net.Conn.
func (p *pipeEnd) Read(b []byte) (int, error) {
	wrote := p.wrote.Load() // before reading: what was said earlier is no answer
	n, err := p.Conn.Read(b)
	if wrote && n > 0 && !p.direct.Load() {
		p.mu.Lock()
		p.answered = true
		p.mu.Unlock()
	}
	return n, err
}

// Write implements net.Conn.
func (p *pipeEnd) Write(b []byte) (int, error) {
	if !p.direct.Load() {
		queued, err := p.greet(b)
		if err != nil {
			return 0, err
		}
		if queued {
			return len(b), nil
		}
	}
	return p.Conn.Write(b)
}

// greet queues b if the greeting isn't over; else it waits until the pipe is free.
func (p *pipeEnd) greet(b []byte) (queued bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.answered && p.failed == nil && len(p.queue)+len(b) <= greetingLimit {
		p.wrote.Store(true)
		p.queue = append(p.queue, b...)
		if p.idle == nil {
			p.idle = make(chan struct{})
			go p.flush(p.idle)
		}
		return true, nil
	}
	p.answered = true
	if idle := p.idle; idle != nil {
		p.mu.Unlock()
		<-idle // a Close of either end ends it, too
		p.mu.Lock()
	}
	if p.failed == nil {
		p.direct.Store(true)
	}
	return false, p.failed
}

// flush writes the queue to the pipe until it is empty.
func (p *pipeEnd) flush(done chan struct{}) {
	defer close(done)
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 && p.failed == nil {
		b := p.queue
		p.queue = nil
		p.mu.Unlock()
		_, err := p.Conn.Write(b)
		p.mu.Lock()
		p.failed = err
	}
	p.idle = nil
}
