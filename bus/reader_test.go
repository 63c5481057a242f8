package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// taken runs what is said to svc.a, and to svc.more if there is one, and takes nothing else.
type taken struct {
	*hasty
	more *hasty
}

func (k *taken) Plain(subject, _, body []byte) (runner, bool) {
	to := k.hasty
	if string(subject) == "svc.more" {
		to = k.more
	} else if string(subject) != "svc.a" {
		return nil, false
	}
	return to.offer(job{arrival: arrival{msg: &nats.Msg{Subject: string(body)}}, received: time.Now()})
}

func (k *taken) Item([]byte, uint64, []byte, time.Time) liner { return nil }
func (k *taken) Passes([]byte)                                {}
func (k *taken) Detour([]byte)                                {}

// opening is an outlet that has read its first lines, and whose reader takes.
func opening(c net.Conn, k taker) *outlet {
	o := newOutlet(c, time.Minute)
	o.up.Store(true)
	o.sieve.on = true
	o.takes = &atomic.Pointer[taker]{}
	o.takes.Store(&k)
	return o
}

// Whatever is read by whom, what is to be run is run in order, and all else gets to nats.go as it is.
func TestReaderPassesOn(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 9))
		k := &taken{hasty: newHasty(1)} // several would not keep the order
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
		k.backlog = len(want)
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
		<-k.close()
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
		k := &taken{hasty: newHasty(10)}
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
		<-k.close()
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
		k := &taken{hasty: newHasty(10), more: newHasty(10)}
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
		<-k.close()
		<-k.more.close()
	})
}

// A connection that is closed has no reader any more, though nobody reads what it has left.
func TestReaderOfAClosedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taken{hasty: newHasty(10)}
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
		<-k.close()
	})
}

// A handler that blocks does not keep others from being read, whatever it waits for, and its endpoint has workers from then on.
func TestReaderIsRelieved(t *testing.T) {
	for name, blocks := range map[string]func(ctx context.Context, call endpoint.Unary[[]byte, []byte]) error{
		"it sleeps": func(context.Context, endpoint.Unary[[]byte, []byte]) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		},
		"it calls by the connection": func(ctx context.Context, call endpoint.Unary[[]byte, []byte]) error {
			_, err := call(ctx, nil)
			return err
		},
		"it ends its goroutine": func(context.Context, endpoint.Unary[[]byte, []byte]) error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := embedded.Start()
			assert.NoError(t, err)
			t.Cleanup(s.Shutdown)
			service, client := opened(t, s.URL(), Eager(), WithoutFrames()), opened(t, s.URL(), WithoutFrames())
			raw := endpoint.Codec(codec.Raw)
			inside := endpoint.Caller[[]byte, []byte](service, "svc.other", raw)
			assert.NoError(t, service.Serve("svc.other", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) { return r, nil }, raw)))
			assert.NoError(t, service.Serve("svc.blocks", endpoint.New(func(ctx context.Context, r []byte) ([]byte, error) {
				return r, blocks(ctx, inside)
			}, raw)))
			other, blocked := endpoint.Caller[[]byte, []byte](client, "svc.other", raw), endpoint.Caller[[]byte, []byte](client, "svc.blocks", raw)
			for range 3 {
				var wg sync.WaitGroup
				wg.Go(func() {
					_, err := blocked(t.Context(), nil)
					if name == "it ends its goroutine" {
						assert.ErrorIs(t, err, endpoint.Internal)
						return
					}
					assert.NoError(t, err)
				})
				for range 20 {
					_, err := other(t.Context(), []byte("x"))
					assert.NoError(t, err)
				}
				wg.Wait()
			}
			op := (*service.taken.Load())["svc.blocks"]
			op.jobs.mu.Lock()
			defer op.jobs.mu.Unlock()
			assert.True(t, op.jobs.inline.rest > 0 || name == "it ends its goroutine", "it was found to block")
		})
	}
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
