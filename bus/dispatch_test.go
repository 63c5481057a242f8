package bus

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"postbus.example/internal/assert"
)

// rig is a dispatcher whose jobs run until they are told to end.
type rig struct {
	dispatcher
	mu      sync.Mutex
	running map[string]chan bool // closed: return; a value: end the goroutine
	ran     []string
	refused map[string]string // with the reason
}

func newRig(limit, backlog int, wait time.Duration) *rig {
	r := &rig{running: map[string]chan bool{}, refused: map[string]string{}}
	r.dispatcher = dispatcher{limit: limit, backlog: backlog, wait: wait, run: r.do, refuse: r.say}
	return r
}

func (r *rig) do(j job) {
	end := make(chan bool, 1)
	r.mu.Lock()
	r.running[j.msg.Subject] = end
	r.ran = append(r.ran, j.msg.Subject)
	r.mu.Unlock()
	if <-end {
		runtime.Goexit()
	}
}

func (r *rig) say(j job, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[j.msg.Subject] = reason
}

func (r *rig) send(id string) {
	r.push(job{arrival: arrival{msg: &nats.Msg{Subject: id}}, received: time.Now()})
}

func (r *rig) end(id string, goexit bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if goexit {
		r.running[id] <- true
	} else {
		close(r.running[id])
	}
	delete(r.running, id)
}

func (r *rig) runs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.running))
}

func (r *rig) says() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.refused)
}

// settleTime is more than the watchdog needs to hire all that there may be.
const settleTime = 50 * time.Millisecond

// step is one thing that happens to a dispatcher.
type step struct {
	kind string
	n    int
}

// TestDispatcherModel compares with a list: the first limit of what is there run, up to backlog others wait in order, none
// longer than the wait; nothing is lost, run twice, or refused without need.
func TestDispatcherModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(rt, "limit")
		backlog := rapid.IntRange(0, 8).Draw(rt, "backlog")
		wait := time.Duration(rapid.IntRange(1, 10).Draw(rt, "wait")) * 100 * time.Millisecond
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.SampledFrom([]string{"push", "push", "end", "goexit", "sleep"}).Draw(rt, "kind"), rapid.IntRange(1, 10).Draw(rt, "n")}
		}), 1, 40).Draw(rt, "steps")
		var fault string
		synctest.Test(t, func(*testing.T) { fault = model(limit, backlog, wait, steps) })
		if fault != "" {
			rt.Fatal(fault)
		}
	})
}

func model(limit, backlog int, wait time.Duration, steps []step) (fault string) {
	type entry struct {
		id string
		at time.Time
	}
	r := newRig(limit, backlog, wait)
	var there []entry // in order; the running ones are in runs
	runs, refused := map[string]bool{}, map[string]string{}
	next := 0
	settle := func() { // what a list does
		kept := there[:0]
		for _, e := range there {
			switch {
			case runs[e.id]:
				kept = append(kept, e)
			case len(runs) < limit:
				runs[e.id] = true
				kept = append(kept, e)
			case time.Since(e.at) >= wait:
				refused[e.id] = reasonBacklogWait
			default:
				kept = append(kept, e)
			}
		}
		there = kept
	}
	for i, s := range steps {
		switch s.kind {
		case "push":
			for range s.n {
				id := fmt.Sprintf("%03d", next)
				next++
				if len(there) >= limit+backlog {
					refused[id] = reasonBacklogFull
				} else {
					there = append(there, entry{id, time.Now()})
				}
				r.send(id)
			}
			settle()
		case "end", "goexit":
			for _, id := range slices.Sorted(maps.Keys(runs))[:min(s.n, len(runs))] {
				delete(runs, id)
				there = slices.DeleteFunc(there, func(e entry) bool { return e.id == id })
				r.end(id, s.kind == "goexit")
			}
			settle() // those that waited take the places
		case "sleep":
			time.Sleep(time.Duration(s.n) * 97 * time.Millisecond)
		}
		time.Sleep(settleTime)
		synctest.Wait()
		settle()
		if got, want := fmt.Sprint(r.runs()), fmt.Sprint(slices.Sorted(maps.Keys(runs))); got != want {
			fault = fmt.Sprintf("step %d %v: %v run, want %v", i, s, got, want)
		}
		if got, want := fmt.Sprint(r.says()), fmt.Sprint(refused); got != want {
			fault = fmt.Sprintf("step %d %v: refused %v, want %v", i, s, got, want)
		}
		if got, want := r.waiting(), len(there)-len(runs); got != want {
			fault = fmt.Sprintf("step %d %v: %d wait, want %d", i, s, got, want)
		}
		if fault != "" {
			break
		}
	}
	done := r.close()
	r.send("late")
	late := r.says()["late"]
	r.drop(reasonDraining)
	for _, id := range r.runs() {
		r.end(id, false)
	}
	<-r.close() // the same channel
	<-done
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if fault == "" && (late != reasonDraining || len(r.ran)+len(r.refused) != next+1 || r.waiting() != 0) {
		fault = fmt.Sprintf("%d ran, %d were refused of %d, %d wait", len(r.ran), len(r.refused), next+1, r.waiting())
	}
	return fault
}

// Quick jobs from many sides at once: none is lost, the limit holds.
func TestDispatcherUnderLoad(t *testing.T) {
	const pushers, each, limit = 8, 5000, 4
	var running, most, ran, refused atomic.Int64
	d := &dispatcher{limit: limit, backlog: 64, wait: time.Minute}
	d.run = func(job) {
		for n := running.Add(1); ; {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		if ran.Add(1)%100 == 0 {
			time.Sleep(50 * time.Microsecond)
		}
		running.Add(-1)
	}
	d.refuse = func(job, string) { refused.Add(1) }
	var wg sync.WaitGroup
	for range pushers {
		wg.Go(func() {
			for range each {
				d.push(job{arrival: arrival{msg: &nats.Msg{}}, received: time.Now()})
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	select {
	case <-d.close():
	case <-time.After(10 * time.Second):
		t.Fatal("it does not come to an end")
	}
	assert.Equal(t, ran.Load()+refused.Load(), int64(pushers*each))
	assert.True(t, most.Load() <= limit, fmt.Sprint(most.Load(), " at once"))
	assert.True(t, ran.Load() > 0 && running.Load() == 0)
}

// A handler that blocks holds up the others for no longer than the watchdog sleeps.
func TestDispatcherHelpsOutWhenAHandlerBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(10, 10, time.Minute)
		start := time.Now()
		for i := range 10 {
			r.send(fmt.Sprint(i))
		}
		for len(r.runs()) < 10 {
			time.Sleep(watchEvery / 4)
			assert.True(t, time.Since(start) < 10*watchEvery, "all run soon")
		}
		for _, id := range r.runs() {
			r.end(id, false)
		}
		<-r.close()
	})
}

// Handlers that are quick enough for one worker each millisecond, yet too slow for what comes, must get help before the
// ring is full.
func TestDispatcherHiresForAGrowingRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refused, late atomic.Int64
		d := &dispatcher{
			limit: 1024, backlog: 4096, wait: time.Second,
			refuse: func(job, string) { refused.Add(1) },
			run: func(j job) {
				if j.by.started.Sub(j.received) > 100*time.Millisecond {
					late.Add(1)
				}
				time.Sleep(40 * time.Microsecond)
			},
		}
		for range 20_000 {
			d.push(job{received: time.Now()})
			time.Sleep(20 * time.Microsecond)
		}
		<-d.close()
		assert.Equal(t, refused.Load(), int64(0), "refused")
		assert.Equal(t, late.Load(), int64(0), "late")
	})
}

// A worker whose handler blocks is not waited for: what comes next gets one of its own, without a tick of the watchdog.
func TestDispatcherSeesBlockedWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		var running atomic.Int32
		d := &dispatcher{limit: 100, backlog: 100, wait: time.Minute, run: func(job) {
			running.Add(1)
			<-block
		}}
		d.push(job{arrival: arrival{msg: &nats.Msg{}}, received: time.Now()})
		synctest.Wait()
		time.Sleep(2 * stalled)
		start := time.Now()
		d.push(job{arrival: arrival{msg: &nats.Msg{}}, received: start})
		synctest.Wait()
		assert.Equal(t, running.Load(), int32(2))
		assert.Equal(t, time.Since(start), time.Duration(0))
		close(block)
		<-d.close()
	})
}

// What has come to its end has no timers any more, which would keep it in memory for as long as a job may wait.
func TestDispatcherEndsWithItsTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(1, 5, time.Hour)
		r.acks(func(*control) {})
		r.send("a")
		r.send("b") // waits, for an hour at most
		synctest.Wait()
		empty := r.close()
		r.end("a", false)
		synctest.Wait()
		r.end("b", false)
		<-empty
		for name, timer := range map[string]*time.Timer{"watch": r.watch, "oldest": r.oldest, "sweeper": r.sweeper} {
			assert.True(t, timer == nil || !timer.Stop(), name)
		}
		assert.True(t, r.oldest != nil)
	})
}
