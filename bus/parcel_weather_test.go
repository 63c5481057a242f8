package bus_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Whatever happens to the net while messages in chunks are under way: a call that ends well has the right reply and was executed once, one
// that does not says the truth about that; all end in time, and nothing stays behind.
func TestLargeInAnyWeather(t *testing.T) {
	var whole, broken atomic.Int64
	for seed := range uint64(scaled(40, 2000)) {
		synctest.Test(t, func(t *testing.T) { largeWeather(t, seed, &whole, &broken) })
	}
	t.Logf("%d calls ended well, %d did not (full: %v)", whole.Load(), broken.Load(), full())
	assert.True(t, whole.Load() > 0 && broken.Load() > 0, "both happen")
}

// weatherReply is what the service makes of a request, which begins with its number and the length of the reply.
func weatherReply(id, size uint64) []byte {
	out := bytes.Repeat([]byte{byte(id)}, int(max(size, 8)))
	binary.BigEndian.PutUint64(out, id)
	return out
}

func largeWeather(t *testing.T, seed uint64, whole, broken *atomic.Int64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 23))
	opts := []bus.Option{bus.WithMaxMessage(2 * mib)}
	if seed%2 == 1 {
		opts = append(opts, bus.WithCompression())
	}
	n, service, caller := far(t, opts...)
	latency(n)
	var mu sync.Mutex
	ran := map[uint64]int{}
	serve(t, service, "svc.any", rawEndpoint(func(_ context.Context, q []byte) ([]byte, error) {
		id := binary.BigEndian.Uint64(q)
		mu.Lock()
		ran[id]++
		mu.Unlock()
		return weatherReply(id, binary.BigEndian.Uint64(q[8:])), nil
	}))
	for _, link := range []string{"service", "caller"} {
		n.Link(link).Up.Bandwidth(2 * mib)
		n.Link(link).Down.Bandwidth(2 * mib)
	}
	sizes := []int{16, 16, 300_000, mib - 100, mib + 1, 2 * mib}
	var calls sync.WaitGroup
	for id := range uint64(8) {
		q := noise(sizes[r.IntN(len(sizes))], id)
		reply := sizes[r.IntN(len(sizes))]
		binary.BigEndian.PutUint64(q, id)
		binary.BigEndian.PutUint64(q[8:], uint64(reply))
		begin, patience := time.Duration(r.IntN(3000))*time.Millisecond, time.Duration(1+r.IntN(30))*time.Second
		calls.Go(func() {
			time.Sleep(begin)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			start := time.Now()
			got, err := echoer(caller, "svc.any")(ctx, q)
			assert.True(t, time.Since(start) <= patience, "in time")
			time.Sleep(10 * time.Second) // what is late is here by then
			mu.Lock()
			times := ran[id]
			mu.Unlock()
			what := fmt.Sprint("seed ", seed, ", call ", id, ": ", err)
			switch outcome := endpoint.OutcomeOf(err); {
			case err == nil:
				whole.Add(1)
				assert.True(t, bytes.Equal(got, weatherReply(id, uint64(reply))), what)
				assert.Equal(t, times, 1, what)
				return
			case outcome == endpoint.Executed:
				assert.Equal(t, times, 1, what)
			case outcome == endpoint.MaybeExecuted:
				assert.True(t, times <= 1, what)
			default:
				assert.Equal(t, times, 0, what)
			}
			broken.Add(1)
		})
	}
	for range r.IntN(4) {
		time.Sleep(time.Duration(r.IntN(2500)) * time.Millisecond)
		link := n.Link([]string{"service", "caller"}[r.IntN(2)])
		switch r.IntN(3) {
		case 0:
			link.Cut()
		case 1:
			link.Up.Freeze()
			time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
			link.Up.Thaw()
		default:
			link.Down.Hole()
			time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
			link.Cut()
			link.Mend()
		}
	}
	calls.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()
	assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams()+service.Acked(), 0, fmt.Sprint("seed ", seed))
	assert.Equal(t, service.Free()+caller.Free(), int64(16*mib), fmt.Sprint("seed ", seed))
}
