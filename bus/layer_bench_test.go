package bus

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

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
