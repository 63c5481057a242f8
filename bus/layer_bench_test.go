package bus

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// A call opens a slot, the callback of the replies delivers, the call closes the slot.
func BenchmarkReplyMux(b *testing.B) {
	m := testMux()
	msg := &nats.Msg{Data: []byte("x")}
	room := []byte(m.prefix)
	b.ReportAllocs()
	for b.Loop() {
		s, secret := m.open(request{}, nil)
		msg.Subject = string(wire.AppendID(room, s.index, secret)) // which nats.go allocates, too
		m.deliver(msg)
		<-s.ch
		m.close(s)
	}
}

// From the callback to the end of a handler that is quick: "one" waits for each, "many" keeps the ring filled.
func BenchmarkDispatcher(b *testing.B) {
	for name, ahead := range map[string]int64{"one": 1, "many": 100} {
		b.Run(name, func(b *testing.B) {
			done, begun := make(chan struct{}, ahead), atomic.Int64{}
			d := &dispatcher{
				limit: 64, backlog: 1000, wait: time.Minute,
				run:    func(job) { done <- struct{}{} },
				refuse: func(job, string) { panic("refused") },
			}
			msg := &nats.Msg{}
			b.ReportAllocs()
			for b.Loop() {
				if begun.Add(1) > ahead {
					<-done
				}
				d.push(job{arrival: arrival{msg: msg}, received: time.Now()})
			}
			for range min(begun.Load(), ahead) {
				<-done
			}
			<-d.close()
		})
	}
}

// A request is put into the connection and written, by one caller and by as many as there are processors.
func BenchmarkOutlet(b *testing.B) {
	head, body := []byte("PUB svc.add _INBOX.x.0123456789 20\r\n"), make([]byte, 20)
	size := len(head) + len(body) + 2
	put := func(b *testing.B, o *outlet) {
		b.Helper()
		for !o.Reserve(size) {
			time.Sleep(10 * time.Microsecond)
		}
		_, err := o.Put(head, body, time.Now())
		assert.NoError(b, err)
	}
	for name, over := range map[string]func(b *testing.B, near, far net.Conn) (*outlet, io.Reader){
		"plain": func(_ *testing.B, near, far net.Conn) (*outlet, io.Reader) { return newOutlet(near, time.Minute), far },
		"TLS": func(b *testing.B, near, far net.Conn) (*outlet, io.Reader) {
			b.Helper()
			return covered(b, near, far, time.Minute)
		},
	} {
		outletOf := func(b *testing.B) *outlet {
			b.Helper()
			near, far := sockets(b)
			o, peer := over(b, near, far)
			assert.NoError(b, o.SetDeadline(time.Time{}))
			done := closing(peer)
			b.Cleanup(func() { assert.NoError(b, o.Close()); <-done })
			return o
		}
		b.Run(name+"/one", func(b *testing.B) {
			o := outletOf(b)
			b.ReportAllocs()
			for b.Loop() {
				put(b, o)
			}
		})
		b.Run(name+"/many", func(b *testing.B) {
			o := outletOf(b)
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					put(b, o)
				}
			})
		})
	}
}

// closing reads to the end, and says when that came.
func closing(r io.Reader) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, r)
	}()
	return done
}
