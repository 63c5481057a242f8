package uplink

import (
	"io"
	"net"
	"testing"
	"time"

	"postbus.example/internal/assert"
)

// A request is put into the connection and written, by one caller and by as many as there are processors.
func BenchmarkOutlet(b *testing.B) {
	head, body := []byte("PUB svc.add _INBOX.x.0123456789 20\r\n"), make([]byte, 20)
	size := len(head) + len(body) + 2
	put := func(b *testing.B, o *Outlet) {
		b.Helper()
		for !o.Reserve(size) {
			time.Sleep(10 * time.Microsecond)
		}
		_, err := o.Put(head, body, time.Now())
		assert.NoError(b, err)
	}
	for name, over := range map[string]func(b *testing.B, near, far net.Conn) (*Outlet, io.Reader){
		"plain": func(_ *testing.B, near, far net.Conn) (*Outlet, io.Reader) { return newOutlet(near, time.Minute), far },
		"TLS": func(b *testing.B, near, far net.Conn) (*Outlet, io.Reader) {
			b.Helper()
			return covered(b, near, far, time.Minute)
		},
	} {
		outletOf := func(b *testing.B) *Outlet {
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
