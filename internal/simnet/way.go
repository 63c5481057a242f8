package simnet

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// Way is one direction of a Link. What is set counts for the connections that lie in the link and for those to come.
type Way struct {
	link *Link

	latency time.Duration
	rate    int // bytes in a second, 0: any
	window  int // bytes, 0: any
	frozen  bool
	hole    bool
}

// Latency sets how long a byte takes that is sent from now on; order is kept. By default no time.
func (w *Way) Latency(d time.Duration) { w.set(func(w *Way) { w.latency = d }) }

// Bandwidth sets how many bytes each connection can send in a second; 0 is any number, the default.
func (w *Way) Bandwidth(n int) { w.set(func(w *Way) { w.rate = n }) }

// Window sets how many bytes of each connection the way holds, as the buffers of two kernels do: beyond them, whoever
// sends waits. 0 is any number, the default. Mind what the sender's lock does to virtual time then; see Link.Connect.
func (w *Way) Window(n int) { w.set(func(w *Way) { w.window = n }) }

// Freeze lets nothing arrive until Thaw; nothing is lost, not even the end of a connection. So looks a network that
// loses everything for a while, or a process that is stopped.
func (w *Way) Freeze() { w.set(func(w *Way) { w.frozen = true }) }

// Thaw ends a Freeze: what was held up and is due arrives at once.
func (w *Way) Thaw() { w.set(func(w *Way) { w.frozen = false }) }

// Hole loses all that is sent from now on, and nobody is told: so looks a middlebox that forgot the connection. The end of
// a connection is lost, too. It lasts until Link.Mend.
func (w *Way) Hole() { w.set(func(w *Way) { w.hole = true }) }

// Held returns how many bytes are on the way.
func (w *Way) Held() int {
	w.link.mu.Lock()
	defer w.link.mu.Unlock()
	n := 0
	for c := range w.link.conns {
		n += c.stream(w).held
	}
	return n
}

func (w *Way) set(f func(*Way)) {
	w.link.mu.Lock()
	defer w.link.mu.Unlock()
	f(w)
	for c := range w.link.conns {
		c.stream(w).cond.Broadcast()
	}
}

func (w *Way) barred() bool { return w.frozen || w.hole }

func (c *Conn) stream(w *Way) *stream {
	if w == &c.link.Up {
		return &c.up
	}
	return &c.down
}

// stream is one direction of a connection. Two pumps run it: absorb reads what is sent and always goes on reading, within
// the window; deliver writes it when its time has come. The link's lock guards what changes.
type stream struct {
	way      *Way
	conn     *Conn
	from, to net.Conn
	cond     sync.Cond

	queue []parcel
	held  int       // bytes read and not yet written
	free  time.Time // when the line has room for the next byte
	lost  bool      // something fell into a hole, or nobody receives any more: the rest has no meaning
	ended bool      // nothing more will be read
}

// parcel is what was read at once; without bytes it is the end of the connection.
type parcel struct {
	bytes []byte
	due   time.Time
}

func (s *stream) absorb() {
	defer s.conn.leave()
	buf := make([]byte, 32<<10)
	for {
		n, err := s.from.Read(buf)
		if n > 0 {
			s.put(bytes.Clone(buf[:n]))
		}
		if err != nil {
			s.put(nil)
			return
		}
	}
}

// put takes bytes on the way, nil for the end.
func (s *stream) put(b []byte) {
	s.cond.L.Lock()
	defer s.cond.L.Unlock()
	defer s.cond.Broadcast()
	s.ended = b == nil
	w, began := s.way, s.conn.began
	for began && b != nil && w.window > 0 && s.held > 0 && s.held+len(b) > w.window && !s.conn.broken && !s.lost {
		s.cond.Wait()
	}
	if began && w.hole {
		s.lost = true
	}
	if s.lost || s.conn.broken {
		return
	}
	due := time.Now()
	if began {
		if s.free.Before(due) {
			s.free = due
		}
		if w.rate > 0 {
			s.free = s.free.Add(time.Duration(float64(len(b)) / float64(w.rate) * float64(time.Second)))
		}
		due = s.free.Add(w.latency)
	}
	s.queue = append(s.queue, parcel{b, due})
	s.held += len(b)
}

func (s *stream) deliver() {
	defer s.conn.leave()
	for {
		p, ok := s.next()
		if !ok {
			return
		}
		if p.bytes == nil {
			_ = s.to.Close()
			return
		}
		_, err := s.to.Write(p.bytes)
		s.arrived(p, err)
	}
}

// next waits for the next parcel that is due; there is none when the connection is cut or at its end.
func (s *stream) next() (parcel, bool) {
	s.cond.L.Lock()
	defer s.cond.L.Unlock()
	for {
		switch {
		case s.conn.broken || len(s.queue) == 0 && s.ended:
			return parcel{}, false
		case len(s.queue) == 0 || s.conn.began && s.way.frozen:
			s.cond.Wait()
			continue
		}
		wait := time.Until(s.queue[0].due)
		if wait <= 0 {
			p := s.queue[0]
			s.queue = s.queue[1:]
			return p, true
		}
		alarm := time.AfterFunc(wait, func() {
			s.cond.L.Lock()
			defer s.cond.L.Unlock()
			s.cond.Broadcast()
		})
		s.cond.Wait()
		alarm.Stop()
	}
}

// arrived makes room for more. Where nobody receives, all that is left goes nowhere.
func (s *stream) arrived(p parcel, err error) {
	s.cond.L.Lock()
	defer s.cond.L.Unlock()
	s.held -= len(p.bytes)
	if err != nil {
		s.lost = true
		s.queue, s.held = nil, 0
	}
	s.cond.Broadcast()
}
