package uplink

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"postbus.example/internal/assert"
)

// counted counts the system calls of an outlet.
func counted(o *Outlet) *int {
	n, attempt := new(int), o.attempt
	o.attempt = func(p []byte) (int, error) { // with the turn of who writes
		*n++
		return attempt(p)
	}
	return n
}

func posts(t *testing.T) (o *Outlet, writes *int, far *bufio.Scanner) {
	t.Helper()
	near, end := sockets(t)
	o = newOutlet(near, time.Minute)
	assert.NoError(t, o.SetDeadline(time.Time{}))
	t.Cleanup(func() { _ = o.Close() })
	return o, counted(o), bufio.NewScanner(end)
}

// However fast messages come, and whatever the timer does meanwhile, all go out in their order, and none waits for the next.
func TestPost(t *testing.T) {
	o, writes, far := posts(t)
	const n = 5000
	go func() {
		for i := range n {
			head := strconv.AppendInt([]byte("HPUB "), int64(i), 10)
			for !o.Reserve(len(head) + len(" body\r\n")) {
				time.Sleep(time.Millisecond)
			}
			assert.NoError(t, o.Post(head, []byte(" body")))
		}
	}()
	for i := range n {
		assert.True(t, far.Scan())
		assert.Equal(t, far.Text(), fmt.Sprintf("HPUB %d body", i))
	}
	assert.Eventually(t, func() bool { return o.waiting.Load() == 0 })
	o.mu.Lock()
	defer o.mu.Unlock()
	t.Logf("%d messages in %d system calls", n, *writes)
}

// Messages that come fast share system calls: one for each plenty of them.
func TestPostShares(t *testing.T) {
	o, writes, far := posts(t)
	const n, size = 1000, 1 << 10
	body := bytes.Repeat([]byte{'x'}, size-2)
	o.fast = burst // and nobody looks
	go func() {
		for range n {
			for !o.Reserve(size) {
				time.Sleep(time.Millisecond)
			}
			assert.NoError(t, o.Post(nil, body))
		}
		o.Flush()
	}()
	for range n {
		assert.True(t, far.Scan())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	assert.True(t, *writes <= n*size/plenty+1, strconv.Itoa(*writes))
}

// One that comes alone is written before post returns.
func TestPostAlone(t *testing.T) {
	o, _, far := posts(t)
	for range 20 {
		o.mu.Lock()
		o.posted = time.Time{} // the last one was long ago
		o.mu.Unlock()
		assert.True(t, o.Reserve(10))
		assert.NoError(t, o.Post([]byte("12345678"), nil))
		assert.Equal(t, o.waiting.Load(), int64(0))
		assert.True(t, far.Scan())
	}
}

// What was posted goes out when who sends has to wait, and when the connection is closed.
func TestPostAndFlush(t *testing.T) {
	o, _, far := posts(t)
	post := func() {
		o.mu.Lock()
		o.fast = burst // they come fast, and nobody looks
		o.mu.Unlock()
		assert.True(t, o.Reserve(10))
		assert.NoError(t, o.Post([]byte("12345678"), nil))
		assert.Equal(t, o.waiting.Load(), int64(10))
	}
	post()
	o.Flush()
	assert.Equal(t, o.waiting.Load(), int64(0))
	assert.True(t, far.Scan())
	post()
	assert.NoError(t, o.Close())
	assert.True(t, far.Scan())
	assert.ErrorIs(t, o.Post([]byte("late"), nil), net.ErrClosed)
	var none *Outlet
	none.Flush()
}
