package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Whatever happens to whom, and when: every call ends once and in time, its reply is its own, its outcome is true, nobody is
// said to be lost who was not, and nothing stays behind.
func TestAnyWeather(t *testing.T) {
	seeds := uint64(100)
	if full() {
		seeds = 5000
	}
	var sum tally
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.live(t)
			w.judge(t)
			sum.add(&w.tally)
		})
		if t.Failed() {
			t.Fatal("seed ", seed)
		}
	}
	t.Logf("%d calls: %v", sum.calls, sum.ends)
	for _, reason := range []string{"<nil>", endpoint.ReasonInstanceLost, endpoint.ReasonConnectionLost, endpoint.ReasonDisconnected} {
		assert.True(t, sum.ends[reason] > 0, "happens: "+reason)
	}
}

// tally counts how calls ended, by reason or code.
type tally struct {
	calls int
	ends  map[string]int
}

func (s *tally) add(o *tally) {
	if s.ends == nil {
		s.ends = map[string]int{}
	}
	s.calls += o.calls
	for k, n := range o.ends {
		s.ends[k] += n
	}
}

// world is some instances and callers, each at a link of its own, and what happened to them.
type world struct {
	tally

	r         *rand.Rand
	n         *bustest.Net
	instances []*bus.Bus // at the links i0, i1 …
	callers   []*bus.Bus // at the links c0, c1 …
	start     time.Time

	mu     sync.Mutex
	runs   map[string][]run // by call
	stroke map[string]time.Time
	log    []string
}

// run is one execution of a call.
type run struct {
	instance string
	at       time.Time
}

const (
	season = 10 * time.Second       // in which something happens
	skewed = 100 * time.Millisecond // of the clocks
)

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		tally: tally{ends: map[string]int{}}, r: rand.New(rand.NewPCG(seed, 4)), n: bustest.NewNet(t),
		runs: map[string][]run{}, stroke: map[string]time.Time{}, start: time.Now(),
	}
	for i := range 3 {
		b := w.n.Connect(fmt.Sprint("i", i), quiet(), bus.WithClockSkew(skewed))
		w.instances = append(w.instances, b)
		serve(t, b, "svc.work", rawEndpoint(func(ctx context.Context, body []byte) ([]byte, error) { return w.work(ctx, b.ID(), string(body)) }))
	}
	for i := range 2 {
		w.callers = append(w.callers, w.n.Connect(fmt.Sprint("c", i), quiet()))
	}
	for _, l := range w.links() {
		w.n.Link(l).Up.Latency(w.upTo(20 * time.Millisecond))
		w.n.Link(l).Down.Latency(w.upTo(20 * time.Millisecond))
	}
	return w
}

func (w *world) links() []string { return []string{"i0", "i1", "i2", "c0", "c1"} }

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.r.Int64N(int64(d))) }

// work is the handler. The body says which call it is, and how long it takes.
func (w *world) work(ctx context.Context, instance, body string) ([]byte, error) {
	id, long, _ := strings.Cut(body, " ")
	w.mu.Lock()
	w.runs[id] = append(w.runs[id], run{instance, time.Now()})
	w.mu.Unlock()
	ns, err := strconv.ParseInt(long, 10, 64)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(ns)):
		return []byte("re: " + id), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errand is a call: when it starts, what it asks for, when its caller leaves.
type errand struct {
	id                      string
	caller                  int
	start, long, limit, end time.Duration
}

// live lets calls and events happen, which are all chosen beforehand.
func (w *world) live(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 120 {
		e := errand{id: strconv.Itoa(i), caller: w.r.IntN(len(w.callers)), start: w.upTo(season), limit: 20*time.Millisecond + w.upTo(6*time.Second)}
		e.end = e.limit
		if w.r.IntN(4) > 0 {
			e.long = w.upTo([]time.Duration{20 * time.Millisecond, time.Second, 4 * time.Second}[w.r.IntN(3)])
		}
		if w.r.IntN(4) == 0 {
			e.end = w.upTo(e.limit)
		}
		wg.Go(func() { w.run(t, e) })
	}
	calm := w.r.IntN(4) == 0
	for range 1 + w.r.IntN(6) {
		event := w.event(calm)
		at := w.upTo(season)
		wg.Go(func() {
			time.Sleep(at)
			event()
		})
	}
	wg.Wait()
}

// event chooses something that happens to someone. In calm weather nobody's connection breaks.
func (w *world) event(calm bool) func() {
	name := w.links()[w.r.IntN(5)]
	l, long, kind := w.n.Link(name), w.upTo(3*time.Second), w.r.IntN(9)
	way := []*bustest.Way{&l.Up, &l.Down}[w.r.IntN(2)]
	if calm {
		kind %= 3
	}
	switch kind {
	case 0:
		return func() {
			w.note(name, "is slow for", long, false)
			way.Latency(long / 10)
			time.Sleep(long)
			way.Latency(0)
		}
	case 1:
		return func() { w.note(name, "is frozen one way for", long, false); way.Freeze(); time.Sleep(long); way.Thaw() }
	case 2:
		if i := int(name[1] - '0'); name[0] == 'i' && i > 0 {
			return func() { w.note(name, "drains", 0, false); _ = w.instances[i].Drain(context.Background()) }
		}
		return func() {
			w.note(name, "is frozen for", long, false)
			l.Up.Freeze()
			l.Down.Freeze()
			time.Sleep(long)
			l.Up.Thaw()
			l.Down.Thaw()
		}
	case 3, 4:
		return func() { w.note(name, "is cut", 0, true); l.Cut() }
	case 5, 6:
		return func() {
			w.note(name, "has a hole for", long, true)
			way.Hole()
			time.Sleep(long)
			l.Mend()
			l.Cut() // else the broker holds on to it until its own pings find out
		}
	case 7:
		return func() { w.note(name, "is dead", 0, true); kill(w.n, name) }
	default:
		return func() {
			for _, name := range w.links() {
				w.note(name, "has no broker for", long, true)
			}
			w.n.Server.Shutdown()
			time.Sleep(long)
			_ = w.n.Server.Restart()
		}
	}
}

// note takes down what happens to whom, and from when on its connection was not what it had been.
func (w *world) note(link, what string, long time.Duration, broken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprint(time.Since(w.start), ": ", link, " ", what, " ", long))
	if _, ok := w.stroke[link]; broken && !ok {
		w.stroke[link] = time.Now()
	}
}

// broken reports whether the connection of a link was lost before now.
func (w *world) broken(link string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.stroke[link]
	return ok
}

// linkOf returns the link of an instance.
func (w *world) linkOf(id string) string {
	for i, b := range w.instances {
		if b.ID() == id {
			return fmt.Sprint("i", i)
		}
	}
	return ""
}

// run runs an errand and holds what its caller is told against what happened.
func (w *world) run(t *testing.T, e errand) {
	t.Helper()
	time.Sleep(e.start)
	began := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(e.limit))
	defer cancel()
	if e.end < e.limit {
		time.AfterFunc(e.end, cancel)
	}
	ctx, report := endpoint.Observe(ctx)
	got, err := echoer(w.callers[e.caller], "svc.work")(ctx, fmt.Appendf(nil, "%s %d", e.id, e.long))
	took := time.Since(began)
	told := fmt.Sprintf("call %+v: %v after %v, %v", e, err, took, endpoint.OutcomeOf(err))
	if took > e.end {
		t.Errorf("%s: ended too late", told)
	}
	server, mine := w.linkOf(report.Instance), fmt.Sprint("c", e.caller)
	reason := reasonOf(err)
	switch {
	case err == nil && string(got) != "re: "+e.id:
		t.Errorf("%s: got %q", told, got)
	case reason == endpoint.ReasonInstanceLost && !w.broken(server):
		t.Errorf("%s: %s was there all the time", told, server)
	case reason == endpoint.ReasonConnectionLost && !w.broken(mine):
		t.Errorf("%s: %s was not lost", told, mine)
	case reason == endpoint.ReasonReplyLost && !w.broken(server) && !w.broken(mine):
		t.Errorf("%s: nothing happened to %s and %s", told, server, mine)
	}
	time.Sleep(20 * time.Second) // whatever is still to happen
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.ends[reason]++
	w.truth(t, e, began, err, told)
}

// truth holds the outcome against the executions (lock held).
func (w *world) truth(t *testing.T, e errand, began time.Time, err error, told string) {
	t.Helper()
	runs := w.runs[e.id]
	switch outcome := endpoint.OutcomeOf(err); {
	case len(runs) > 1:
		t.Errorf("%s: executed %d times", told, len(runs))
	case (err == nil || outcome == endpoint.Executed) && len(runs) == 0:
		t.Errorf("%s: was not executed", told)
	case err != nil && (outcome == endpoint.NotSent || outcome == endpoint.NotExecuted) && len(runs) > 0:
		t.Errorf("%s: was executed", told)
	}
	for _, r := range runs {
		if late := r.at.Sub(began.Add(e.limit)); late > skewed+time.Millisecond {
			t.Errorf("%s: started %v after its deadline", told, late)
		}
	}
}

// reasonOf is how a call ended, in a word.
func reasonOf(err error) string {
	e, ok := err.(*endpoint.Error) //nolint:errorlint // what calls return
	switch {
	case !ok:
		return fmt.Sprint(err)
	case e.Reason() != "":
		return e.Reason()
	}
	return e.Code.String()
}

// judge mends the world, and finds nothing left of what happened.
func (w *world) judge(t *testing.T) {
	t.Helper()
	for _, l := range w.links() {
		w.n.Link(l).Mend()
	}
	time.Sleep(20 * time.Second)
	for i, c := range w.callers {
		_, err := echoer(c, "svc.work")(t.Context(), []byte("last 0"))
		assert.NoError(t, err)
		time.Sleep(2 * time.Second)
		assert.Equal(t, c.Slots()+c.Watched()+c.Tombs(), 0, fmt.Sprint("caller ", i))
	}
	for i, b := range w.instances {
		assert.Equal(t, b.Acked()+b.Kept(), 0, fmt.Sprint("instance ", i))
		assert.Equal(t, statsOf(t, b, "svc.work").InFlight, int64(0), fmt.Sprint("instance ", i))
	}
	if t.Failed() {
		t.Log(strings.Join(w.log, "\n"))
	}
}
