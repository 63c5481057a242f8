package bus_test

import (
	"context"
	"encoding/binary"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// memory is what the program holds, goroutines included, once garbage is collected.
func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

const itemSize = 1 << 10

// flooding yields numbered items of 1 KiB as fast as they are taken, and counts them.
func flooding(produced *atomic.Int64) func(context.Context, []byte) iter.Seq2[[]byte, error] {
	return func(context.Context, []byte) iter.Seq2[[]byte, error] {
		return func(yield func([]byte, error) bool) {
			for i := uint64(0); ; i++ {
				item := make([]byte, itemSize)
				binary.BigEndian.PutUint64(item, i)
				if !yield(item, nil) {
					return
				}
				produced.Add(1)
			}
		}
	}
}

func bytesTail(b *bus.Bus, subject string, opts ...endpoint.Option) endpoint.ServerStream[[]byte, []byte] {
	return endpoint.ServerStreamCaller[[]byte, []byte](b, subject, append(opts, endpoint.Codec(codec.Raw))...)
}

// A consumer of one item a second holds back who produces: for a minute nothing is lost, nothing changes its place, and no side
// holds more than the credit that was given. The last seconds stand for all of them: what grows would have grown by then.
func slowConsumers(t *testing.T, service, caller *bus.Bus, n int, most int64) {
	t.Helper()
	const seconds, credit = 60, 64
	var produced, consumed atomic.Int64
	serve(t, service, "svc.flood", endpoint.NewServerStream(flooding(&produced), endpoint.Codec(codec.Raw), endpoint.Concurrency(n)))
	idle := memory()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			next := uint64(0)
			for item, err := range bytesTail(caller, "svc.flood")(context.Background(), nil) {
				assert.NoError(t, err)
				assert.Equal(t, len(item), itemSize)
				assert.Equal(t, binary.BigEndian.Uint64(item), next)
				consumed.Add(1)
				time.Sleep(time.Second)
				if next++; next == seconds {
					return
				}
			}
		})
	}
	var highest int64
	for range 5 {
		time.Sleep(seconds / 5 * time.Second * 9 / 10)
		highest = max(highest, memory()-idle)
		ahead := produced.Load() - consumed.Load()
		assert.True(t, ahead <= int64(n)*credit, "nobody is further ahead than the credit")
	}
	wg.Wait()
	t.Logf("%d streams: %.1f MiB above idle at most", n, float64(highest)/(1<<20))
	assert.True(t, highest < most, "memory stays flat")
	assert.Equal(t, consumed.Load(), int64(n*seconds))
}

func TestSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, service, caller := far(t)
		slowConsumers(t, service, caller, 1, 2<<20)
		allClean(t, service, caller)
	})
}

func TestManySlowConsumers(t *testing.T) {
	n := scaled(50, 1000)
	synctest.Test(t, func(t *testing.T) {
		_, service, caller := far(t)
		slowConsumers(t, service, caller, n, int64(n)*200<<20/1000)
		allClean(t, service, caller)
	})
}

// The same by real sockets, in real time.
func TestSlowConsumersBySocket(t *testing.T) {
	if !full() {
		t.Skip("takes a minute: POSTBUS_FULL=1")
	}
	service, caller := bySockets(t)
	slowConsumers(t, service, caller, 1000, 200<<20)
	nothingLeft(t, service, caller)
}

// The window of a consumer that is fast grows, so that a long way does not hold it back; of one that is slow again it shrinks.
func TestWindowsGrowAndShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		latency(n)
		var produced atomic.Int64
		serve(t, service, "svc.flood", endpoint.NewServerStream(flooding(&produced), endpoint.Codec(codec.Raw)))
		var at []time.Duration // when each thousandth came
		start, i, most := time.Now(), 0, stream.MaxWindow()
		for _, err := range bytesTail(caller, "svc.flood")(t.Context(), nil) {
			assert.NoError(t, err)
			if i++; i%1000 == 0 {
				at = append(at, time.Since(start))
			}
			if i == 20_000 {
				assert.Equal(t, caller.Grown(), int(most.Bytes-wire.DefaultGrant().Bytes))
				assert.True(t, at[19]-at[18] < at[0]/2, "the last thousand took less time than the first")
			}
			if i > 20_000 {
				time.Sleep(20 * time.Millisecond)
			}
			if i == 20_000+4*int(most.Messages) {
				assert.Equal(t, caller.Grown(), 0)
				assert.True(t, produced.Load() <= int64(i)+64, "nobody is further ahead than the credit")
				break
			}
		}
		allClean(t, service, caller)
	})
}

// bySockets are two buses with connections to a server's port.
func bySockets(t testing.TB) (service, caller *bus.Bus) {
	t.Helper()
	s := bustest.Server(t)
	connect := func() *bus.Bus {
		b, err := bus.Connect(s.URL(), quiet())
		assert.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, b.Close()) })
		return b
	}
	return connect(), connect()
}

func allClean(t *testing.T, service, caller *bus.Bus) {
	t.Helper()
	time.Sleep(time.Minute) // for tombs
	synctest.Wait()
	assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams(), 0)
	assert.Equal(t, caller.Grown()+service.Grown(), 0)
}

// Thousands of streams wait on one connection. Canceled at once they end at once, in few messages, and leave nothing behind: no
// goroutine, no slot, no memory.
func TestIdleStreamsAndAStorm(t *testing.T) {
	n := scaled(1000, 10_000)
	service, caller := bySockets(t)
	causes := make(chan error, n)
	serve(t, service, "svc.idle", endpoint.NewServerStream(func(ctx context.Context, _ []byte) iter.Seq2[[]byte, error] {
		return func(func([]byte, error) bool) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
		}
	}, endpoint.Codec(codec.Raw), endpoint.Concurrency(n)))
	tail := bytesTail(caller, "svc.idle")
	for round := range 2 { // the first one makes what is kept for the next
		before, goroutines := memory(), runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				for _, err := range tail(ctx, nil) {
					failed(t, err, endpoint.Canceled, "", endpoint.MaybeExecuted)
				}
			})
		}
		assert.Eventually(t, func() bool { return service.Streams() == n })
		assert.Eventually(t, func() bool { return caller.Slots() == n })
		open := memory()
		asked, answered := caller.Conn().Stats().OutMsgs, service.Conn().Stats().OutMsgs
		start := time.Now()
		cancel()
		wg.Wait()
		for range n {
			assert.ErrorIs(t, <-causes, endpoint.Canceled)
		}
		took := time.Since(start)
		nothingLeft(t, service, caller)
		asked, answered = caller.Conn().Stats().OutMsgs-asked, service.Conn().Stats().OutMsgs-answered
		assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+150 }, "goroutines are gone, but for workers that wait")
		after := memory()
		t.Logf("%d streams: %.1f KiB each; the storm took %v, %d messages of the caller's and %d of the service's; %.1f MiB stay",
			n, float64(open-before)/1024/float64(n), took.Round(time.Millisecond), asked, answered, float64(after-before)/(1<<20))
		assert.True(t, asked <= uint64(n/16+50), "cancels go together")
		assert.True(t, answered <= uint64(n+50), "one end for each at most")
		assert.True(t, round == 0 || after-before < (open-before)/3, "nothing stays") // less than a goroutine of each would be
	}
}

// Small items go past the client library, large ones don't, nor those that say of what type they are, and the connection's user
// publishes in between: all come in the order in which they were sent.
func TestItemsOfAllSizesKeepTheirOrder(t *testing.T) {
	service, caller := bySockets(t)
	size := func(i int) int { return []int{0, 10, 1000, 8 << 10, 100, 20 << 10, 1 << 10}[i*7919%23%7] }
	const n = 3000
	in := func(yield func([]byte, error) bool) {
		for i := range n {
			if !yield(binary.BigEndian.AppendUint32(make([]byte, size(i)), uint32(i)), nil) {
				return
			}
		}
	}
	for _, shared := range []bool{false, true} {
		subject := "svc.own"
		if shared {
			subject = "svc.shared"
		}
		serve(t, service, subject, endpoint.NewBidiStream(func(ctx context.Context, in iter.Seq2[[]byte, error]) iter.Seq2[[]byte, error] {
			return func(yield func([]byte, error) bool) {
				endpoint.FromContext(ctx).Reply.Set("first", "has headers")
				for item, err := range in {
					if err != nil || !yield(item, nil) {
						return
					}
					if shared {
						assert.NoError(t, service.Conn().Publish("elsewhere", item))
					}
				}
			}
		}, endpoint.Codec(codec.Raw)))
		call := endpoint.BidiStreamCaller[[]byte, []byte](caller, subject, endpoint.Codec(codec.Raw))
		i := 0
		for item, err := range call(t.Context(), in) {
			assert.NoError(t, err)
			assert.Equal(t, len(item), size(i)+4)
			assert.Equal(t, int(binary.BigEndian.Uint32(item[size(i):])), i)
			i++
		}
		assert.Equal(t, i, n)
	}
	nothingLeft(t, service, caller)
	assert.Equal(t, caller.Grown()+service.Grown(), 0)
}
