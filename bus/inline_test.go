package bus

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// hasty is a dispatcher whose jobs take as long as their subjects say, or end their goroutine.
type hasty struct {
	dispatcher
	seen sync.Mutex
	ran  []string // and by whom
}

func newHasty(limit int) *hasty {
	h := &hasty{}
	h.dispatcher = dispatcher{limit: limit, backlog: 100, wait: time.Minute, run: h.do}
	return h
}

func (h *hasty) do(j job) {
	by := " worker"
	if j.by.wake == nil {
		by = " inline"
	}
	h.seen.Lock()
	h.ran = append(h.ran, j.msg.Subject+by)
	h.seen.Unlock()
	if j.msg.Subject == "exit" {
		runtime.Goexit()
	}
	took, _ := time.ParseDuration(j.msg.Subject)
	time.Sleep(took)
}

// read offers jobs and runs them as who reads does.
func (h *hasty) read(subjects ...string) (inline bool) {
	jobs := make([]job, len(subjects))
	for i, s := range subjects {
		jobs[i] = job{arrival: arrival{msg: &nats.Msg{Subject: s}}, received: time.Now()}
	}
	runs, _ := h.offer(jobs...)
	if runs != nil {
		runs.RunInline()
	}
	return runs != nil
}

func (h *hasty) saw() []string {
	synctest.Wait()
	h.seen.Lock()
	defer h.seen.Unlock()
	ran := h.ran
	h.ran = nil
	return ran
}

// bubble gives a test virtual time, and a dispatcher that comes to its end.
func bubble(t *testing.T, limit int, f func(h *hasty)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		h := newHasty(limit)
		f(h)
		<-h.close()
	})
}

// Only who was seen to be quick is run by who reads.
func TestInlineIsEarned(t *testing.T) {
	bubble(t, 10, func(h *hasty) {
		h.inline.unseen = earned
		for range earned {
			assert.True(t, !h.read("1us"))
			time.Sleep(time.Millisecond)
		}
		assert.Equal(t, slices.Compact(h.saw()), []string{"1us worker"})
		assert.True(t, h.read("1us"))
		assert.Equal(t, h.saw(), []string{"1us inline"})
		for range 100 {
			h.read("25us")
			time.Sleep(time.Millisecond)
		}
		h.saw()
		assert.True(t, !h.read("1us"), "they are not quick any more")
		time.Sleep(time.Millisecond)
		for range 100 {
			h.read("1us")
			time.Sleep(time.Millisecond)
		}
		h.saw()
		assert.True(t, h.read("1us"), "and are again")
		h.inline.never = true
		assert.True(t, !h.read("1us"))
	})
}

// Who reads has no time for more than a few; what is left has workers, and what comes meanwhile.
func TestInlineHasLittleTime(t *testing.T) {
	bubble(t, 10, func(h *hasty) {
		assert.True(t, h.read("150us", "60us", "10us", "11us"))
		assert.Equal(t, h.saw(), []string{"150us inline", "60us inline", "10us worker"})
		assert.True(t, !h.read("12us"), "a worker is at work")
		time.Sleep(time.Second)
		assert.Equal(t, h.saw(), []string{"11us worker", "12us worker"})
	})
}

// Who reads is not to be busy with it all the time: other processors are there for that.
func TestInlineTakesHalfOfTheTime(t *testing.T) {
	bubble(t, 10, func(h *hasty) {
		start, inline := time.Now(), 0
		for time.Since(start) < time.Second {
			if !h.read("19us") {
				break
			}
			inline++
			time.Sleep(10 * time.Microsecond)
		}
		assert.Equal(t, inline, int(tally/2/(19*time.Microsecond))+1)
		time.Sleep(shared - time.Millisecond)
		assert.True(t, !h.read("1us"))
		time.Sleep(2 * time.Millisecond)
		for range 1000 {
			assert.True(t, h.read("15us"))
			time.Sleep(20 * time.Microsecond)
		}
	})
}

// What blocks is known for longer each time, and forgotten when it did not for as long.
func TestInlineAfterOneBlocked(t *testing.T) {
	bubble(t, 10, func(h *hasty) {
		for _, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 64} {
			assert.True(t, h.read("1us"))
			h.Distrust()
			time.Sleep(time.Duration(seconds)*time.Second - 2*time.Microsecond)
			assert.True(t, !h.read("1us"))
			time.Sleep(3 * time.Microsecond)
		}
		time.Sleep(mostLost + time.Second)
		h.Distrust()
		time.Sleep(leastLost + time.Microsecond)
		assert.True(t, h.read("1us"))
	})
}

// A handler that ends the goroutine of who reads gives its place back, and the others are run.
func TestInlineGoexit(t *testing.T) {
	bubble(t, 1, func(h *hasty) {
		var wg sync.WaitGroup
		wg.Go(func() { h.read("1us", "exit", "2us", "3us") })
		wg.Wait()
		assert.Equal(t, h.saw(), []string{"1us inline", "exit inline", "2us worker"})
		time.Sleep(time.Millisecond)
		assert.True(t, h.read("4us"))
		assert.Equal(t, h.saw(), []string{"3us worker", "4us inline"})
	})
}

// Who reads is one of those who are at work, of whom there is a limit.
func TestInlineKeepsTheLimit(t *testing.T) {
	bubble(t, 1, func(h *hasty) {
		runs, _ := h.offer(job{arrival: arrival{msg: &nats.Msg{Subject: "1us"}}, received: time.Now()})
		h.push(job{arrival: arrival{msg: &nats.Msg{Subject: "2us"}}, received: time.Now()}) // which has a worker come
		runs.RunInline()
		time.Sleep(time.Millisecond)
		assert.Equal(t, h.saw(), []string{"1us worker", "2us worker"})
		go h.read("10ms")
		synctest.Wait()
		assert.True(t, !h.read("1us"), "it is at work")
		time.Sleep(time.Second)
		assert.Equal(t, h.saw(), []string{"10ms inline", "1us worker"})
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
