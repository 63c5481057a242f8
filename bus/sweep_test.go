package bus

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// stage is a dispatcher whose jobs take as long as they are told.
type stage struct {
	dispatcher
	mu    sync.Mutex
	takes map[string]time.Duration
	acked map[string]time.Duration // after receipt
	early atomic.Int32             // acks of what was answered
	said  map[string]bool
}

func newStage(limit int) *stage {
	s := &stage{takes: map[string]time.Duration{}, acked: map[string]time.Duration{}, said: map[string]bool{}}
	s.dispatcher = dispatcher{limit: limit, backlog: 1000, wait: time.Hour, run: s.do, refuse: func(job, string) {}}
	s.acks(func(k *control) {
		s.mu.Lock()
		defer s.mu.Unlock()
		name := k.msg.Subject
		if s.said[name] || s.acked[name] != 0 {
			s.early.Add(1)
		}
		at, _ := time.Parse(time.RFC3339Nano, string(k.msg.Data))
		s.acked[name] = time.Since(at)
		k.id = 1
	})
	return s
}

func (s *stage) do(j job) {
	name := j.msg.Subject
	c := endpoint.NewCall(&endpoint.Spec{}, name, endpoint.ServerSide)
	j.by.begin(c)
	s.mu.Lock()
	d := s.takes[name]
	s.mu.Unlock()
	if d > 0 {
		<-time.After(d)
	}
	call := j.by.speak()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said[name] = true
	if (call != 0) != (s.acked[name] != 0) {
		s.early.Add(1)
	}
}

func (s *stage) send(name string, takes time.Duration) {
	s.mu.Lock()
	s.takes[name] = takes
	s.mu.Unlock()
	now := time.Now()
	s.push(job{arrival: arrival{msg: &nats.Msg{Subject: name, Data: []byte(now.Format(time.RFC3339Nano))}}, received: now})
}

// What takes less than ten milliseconds from receipt to answer is never acked; what takes more than a sweep longer is, once,
// running or waiting.
func TestSweep(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		gaps := rapid.SliceOfN(rapid.IntRange(0, 8000), 1, 60).Draw(rt, "gaps")
		takes := rapid.SliceOfN(rapid.IntRange(0, 30_000), len(gaps), len(gaps)).Draw(rt, "takes")
		synctest.Test(t, func(t *testing.T) {
			s := newStage(limit)
			ends := map[string]time.Duration{} // after receipt
			free := make([]time.Time, limit)
			for i, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Microsecond)
				name, d := fmt.Sprint(i), time.Duration(takes[i])*time.Microsecond
				s.send(name, d)
				first := 0 // of the workers, who is free first
				for w := range free {
					if free[w].Before(free[first]) {
						first = w
					}
				}
				now := time.Now()
				if free[first].Before(now) {
					free[first] = now
				}
				free[first] = free[first].Add(d)
				ends[name] = free[first].Sub(now)
			}
			<-s.close()
			synctest.Wait()
			const slack = 2 * time.Millisecond // the watchdog's, which adds workers
			for name, end := range ends {
				at, acked := s.acked[name]
				switch {
				case acked && (at < ackAfter || at > ackAfter+ackPause+slack):
					rt.Fatalf("%s is acked after %v", name, at)
				case !acked && limit == 1 && end > ackAfter+ackPause+slack: // with more, which worker takes it is not told
					rt.Fatalf("%s took %v and is not acked", name, end)
				case acked && end < ackAfter-slack && limit == 1:
					rt.Fatalf("%s took %v and is acked", name, end)
				}
			}
			if n := s.early.Load(); n != 0 {
				rt.Fatalf("%d acks after an answer, or twice, or unheard of", n)
			}
			if s.first != nil || s.last != nil || s.swept != 0 {
				rt.Fatalf("somebody is in line still")
			}
		})
	})
}

// When all is quiet, nothing ticks.
func TestSweepRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(2)
		for range 3 {
			s.send("quick", 0)
			s.send("slow", time.Second)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			assert.True(t, !s.sweeps, "it rests")
		}
		<-s.close()
	})
}

// A job that has answered and is not at its end yet, because it hangs in the connection or in a middleware, is not acked; the
// next one of its worker is.
func TestNoAckAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acked []string
		d := dispatcher{limit: 1, backlog: 10, wait: time.Hour, refuse: func(job, string) {}}
		d.run = func(j job) {
			j.by.begin(endpoint.NewCall(&endpoint.Spec{}, "svc.x", endpoint.ServerSide))
			if j.msg.Subject == "slow" {
				<-time.After(time.Second)
			}
			j.by.speak()
			<-time.After(time.Second)
		}
		d.acks(func(k *control) { acked = append(acked, k.msg.Subject) })
		for _, name := range []string{"quick", "slow", "quick"} {
			d.push(job{arrival: arrival{msg: &nats.Msg{Subject: name}}, received: time.Now()})
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		<-d.close()
		assert.Equal(t, acked, []string{"slow"})
	})
}
