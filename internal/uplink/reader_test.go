package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/internal/assert"
)

// hands run what is said to one endpoint: who reads does, until it is found that they block, or a worker.
type hands struct {
	limit int

	mu      sync.Mutex
	todo    []string
	running int
	slow    bool
	ran     []string // and by whom
}

func (h *hands) offer(what string) Runner {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.todo = append(h.todo, what)
	if !h.slow && h.running == 0 {
		return h
	}
	h.hire()
	return nil
}

// hire has a worker run what waits (lock held).
func (h *hands) hire() {
	if h.running < h.limit && len(h.todo) > 0 {
		h.running++
		go h.run(" worker")
	}
}

func (h *hands) run(by string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.todo) > 0 {
		what := h.todo[0]
		h.todo, h.ran = h.todo[1:], append(h.ran, what+by)
		h.mu.Unlock()
		took, _ := time.ParseDuration(what)
		time.Sleep(took)
		h.mu.Lock()
	}
	h.running--
}

func (h *hands) RunInline() {
	h.mu.Lock()
	free := h.running == 0
	if free {
		h.running++
	}
	h.mu.Unlock()
	if free {
		h.run(" inline")
	}
}

func (h *hands) Distrust() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = true
}

func (h *hands) TakeOver() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hire()
}

// saw is what ran since it was last asked, once all that there is to do is done or blocks.
func (h *hands) saw() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	ran := h.ran
	h.ran = nil
	return ran
}

// idle reports whether all was run.
func (h *hands) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running == 0 && len(h.todo) == 0
}

// taken runs what is said to svc.a, and to svc.more if there is one, and takes nothing else.
type taken struct {
	*hands
	more *hands
}

func (k *taken) Plain(subject, _, body []byte) (Runner, bool) {
	to := k.hands
	if string(subject) == "svc.more" {
		to = k.more
	} else if string(subject) != "svc.a" {
		return nil, false
	}
	return to.offer(string(body)), true
}

func (k *taken) Item([]byte, uint64, []byte, time.Time) Line { return nil }
func (k *taken) Passes([]byte)                               {}
func (k *taken) Detour([]byte)                               {}

// opening is an outlet that has read its first lines, and whose reader takes.
func opening(c net.Conn, k Taker) *Outlet {
	o := newOutlet(c, time.Minute)
	o.up.Store(true)
	o.sieve.on = true
	o.takes = &atomic.Pointer[Taker]{}
	o.takes.Store(&k)
	return o
}

// Whatever is read by whom, what is to be run is run in order, and all else gets to nats.go as it is.
func TestReaderPassesOn(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 9))
		k := &taken{hands: &hands{limit: 1}} // several would not keep the order
		var all, rest strings.Builder
		var want []string
		for range 500 {
			body := strings.Repeat("x", r.IntN(300))
			switch r.IntN(4) {
			case 0:
				m := fmt.Sprintf("MSG svc.b 3 a.reply %d\r\n%s\r\n", len(body), body)
				all.WriteString(m)
				rest.WriteString(m)
			case 1:
				all.WriteString("PING\r\n")
				rest.WriteString("PING\r\n")
			default:
				n := len(want)
				fmt.Fprintf(&all, "MSG svc.a 3 a.reply %d\r\n#%d\r\n", len(fmt.Sprint("#", n)), n)
				want = append(want, fmt.Sprint("#", n))
			}
		}
		o := opening(&pieces{rest: cut(r, all.String()), end: io.EOF}, k)
		var passed bytes.Buffer
		p := make([]byte, 2*sieved)
		for {
			n, err := o.Read(p)
			passed.Write(p[:n])
			if err != nil {
				assert.ErrorIs(t, err, io.EOF)
				break
			}
			assert.True(t, n > 0, "a read that read nothing")
		}
		assert.Eventually(t, k.idle)
		assert.Equal(t, passed.String(), rest.String())
		assert.Equal(t, len(k.ran), len(want))
		for i, ran := range k.ran {
			assert.Equal(t, strings.Fields(ran)[0], want[i])
		}
	}
}

// nats.go reads by itself again when there is nothing to run for long, until there is.
func TestReaderRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taken{hands: &hands{limit: 10}}
		near, far := net.Pipe()
		o := opening(near, k)
		var heard atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			p := make([]byte, 2*sieved)
			for {
				n, err := o.Read(p)
				heard.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		say := func(s string) {
			_, err := io.WriteString(far, s)
			assert.NoError(t, err)
			synctest.Wait()
		}
		for round := range 3 {
			say("PING\r\n")
			assert.True(t, o.reader.Load() == nil)
			say("MSG svc.a 3 a.reply 3\r\n1us\r\n")
			time.Sleep(time.Millisecond)
			assert.True(t, o.reader.Load() != nil)
			for range mostIdle {
				say("PING\r\n")
			}
			assert.True(t, o.reader.Load() == nil)
			assert.Equal(t, heard.Load(), int64((round+1)*(mostIdle+1)*len("PING\r\n")))
		}
		assert.Equal(t, len(k.saw()), 3)
		say("MSG svc.a 3 a.reply 3\r\n1us\r\n")
		assert.NoError(t, o.Close())
		wg.Wait()
		time.Sleep(time.Millisecond) // what runs comes to its end
	})
}

// What is left for nats.go is read as it was, however it comes and goes.
func TestReaderKeepsTheOrder(t *testing.T) {
	r := &reader{}
	r.news.L = &r.mu
	random := rand.New(rand.NewPCG(1, 2))
	want, got := noise(1<<20), []byte{}
	for rest := want; len(got) < len(want); {
		n := min(random.IntN(5000), len(rest))
		assert.True(t, r.pass(rest[:n], nil))
		rest = rest[n:]
		for r.from < len(r.left) && random.IntN(4) > 0 {
			p := make([]byte, 1+random.IntN(5000))
			n, err := r.read(p)
			assert.NoError(t, err)
			got = append(got, p[:n]...)
		}
	}
	assert.True(t, bytes.Equal(got, want))

	assert.True(t, r.pass(want, nil)) // much at once
	assert.True(t, cap(r.left) >= len(want))
	n, err := r.read(make([]byte, len(want)))
	assert.NoError(t, err)
	assert.Equal(t, n, len(want))
	assert.Equal(t, cap(r.left), 0, "it is not kept")
}

// solo is a connection that is read by one at a time.
type solo struct {
	net.Conn
	readers, most atomic.Int32
}

func (c *solo) Read(p []byte) (int, error) {
	c.most.Store(max(c.most.Load(), c.readers.Add(1)))
	defer c.readers.Add(-1)
	return c.Conn.Read(p)
}

// Who blocks keeps nobody else: what was read with it has workers, and what comes later is read by another.
func TestReaderHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taken{hands: &hands{limit: 10}, more: &hands{limit: 10}}
		end, far := net.Pipe()
		near := &solo{Conn: end}
		o := opening(near, k)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = o.Read(make([]byte, 2*sieved)) })
		say := func(s string) {
			_, err := io.WriteString(far, s)
			assert.NoError(t, err)
		}
		say("MSG svc.a 3 a.reply 3\r\n1us\r\nMSG svc.more 3 a.reply 2\r\n1h\r\nMSG svc.more 3 a.reply 3\r\n2us\r\n")
		synctest.Wait()
		assert.Equal(t, k.more.saw(), []string{"1h inline"})
		assert.Equal(t, len(k.saw()), 0)
		time.Sleep(2*watchEvery + time.Microsecond)
		assert.Equal(t, k.saw(), []string{"1us worker"})
		assert.Equal(t, k.more.saw(), []string{"2us worker"})
		say("MSG svc.a 3 a.reply 3\r\n3us\r\nMSG svc.more 3 a.reply 3\r\n4us\r\n")
		time.Sleep(time.Millisecond)
		assert.Equal(t, k.saw(), []string{"3us inline"})
		assert.Equal(t, k.more.saw(), []string{"4us worker"})
		time.Sleep(time.Hour) // and the one that was blocked does not read any more
		say("PING\r\n")
		assert.Equal(t, near.most.Load(), int32(1))
		assert.NoError(t, o.Close())
		wg.Wait()
	})
}

// A connection that is closed has no reader any more, though nobody reads what it has left.
func TestReaderOfAClosedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taken{hands: &hands{limit: 10}}
		near, far := net.Pipe()
		o := opening(near, k)
		p := make([]byte, 2*sieved)
		go func() { _, _ = io.WriteString(far, "MSG svc.a 3 a.reply 3\r\n1us\r\nPING\r\n") }()
		n, err := o.Read(p)
		assert.NoError(t, err)
		assert.Equal(t, string(p[:n]), "PING\r\n")
		go func() {
			for err := error(nil); err == nil; {
				_, err = far.Write(bytes.Repeat([]byte("PONG\r\n"), 1000))
			}
		}()
		time.Sleep(time.Millisecond) // by then the job has been run
		r := o.reader.Load()
		r.mu.Lock()
		left := len(r.left)
		r.mu.Unlock()
		assert.True(t, left > mostLeft && left < mostLeft+2*readRoom, "it is held back")
		assert.NoError(t, o.Close()) // and who is left behind fails the bubble
	})
}

// ends counts what is written.
type ends struct {
	net.Conn
	writes []string
	full   bool
}

func (c *ends) attempt(p []byte) (int, error) {
	if c.full {
		return 0, errors.New("broken")
	}
	c.writes = append(c.writes, string(p))
	return len(p), nil
}

// Replies of what was read together are written together, but for what is much.
func TestOutletLays(t *testing.T) {
	c := &ends{Conn: &pieces{end: io.EOF}}
	o := newOutlet(c, time.Minute)
	o.attempt = c.attempt
	o.up.Store(true)
	lay := func(s string) {
		assert.True(t, o.Reserve(len("PUB \r\n")+len(s)))
		assert.NoError(t, o.Lay([]byte("PUB "), []byte(s)))
	}
	lay("alone")
	assert.Equal(t, c.writes, []string{"PUB alone\r\n"})
	o.lays.Store(true)
	lay("a")
	lay("b")
	assert.Equal(t, len(c.writes), 1)
	o.layOff()
	assert.Equal(t, c.writes[1:], []string{"PUB a\r\nPUB b\r\n"})
	o.lays.Store(true)
	lay("c")
	lay(strings.Repeat("x", plenty))
	assert.Equal(t, len(c.writes), 3)
	assert.Equal(t, o.waiting.Load(), int64(0), "room is given back")
}
