package uplink

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
)

// putter is an outlet of a socket, past its handshake.
func putter(t *testing.T) (*Outlet, net.Conn) {
	t.Helper()
	near, far := sockets(t)
	o := newOutlet(near, time.Minute)
	assert.NoError(t, o.SetDeadline(time.Time{}))
	return o, far
}

// post puts a message as a call does.
func post(t *testing.T, o *Outlet, head, body string) {
	t.Helper()
	for !o.Reserve(len(head) + len(body) + 2) {
		time.Sleep(time.Millisecond)
	}
	_, err := o.Put([]byte(head), []byte(body), time.Now())
	assert.NoError(t, err)
}

// What many put, and others write, arrives whole and in the order of each.
func TestPutKeepsTheOrder(t *testing.T) {
	o, far := putter(t)
	keepsOrder(t, o, bufio.NewReader(far), 32, 400)
	assert.Equal(t, heldBy(o), 0)
	assert.NoError(t, o.Close())
}

// keepsOrder has callers put messages, each so many, a quarter of them write, and reads all of it.
func keepsOrder(t *testing.T, o *Outlet, lines *bufio.Reader, callers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range each {
				body := strings.Repeat("x", 1+(n*97)%3000)
				if i%4 == 0 {
					_, err := fmt.Fprintf(o, "%d %d %s\r\n", i, n, body)
					assert.NoError(t, err)
					continue
				}
				post(t, o, fmt.Sprintf("%d %d ", i, n), body)
			}
		})
	}
	next := make([]int, callers)
	for range callers * each {
		line, err := lines.ReadString('\n')
		assert.NoError(t, err)
		var i, n int
		var body string
		_, err = fmt.Sscanf(line, "%d %d %s\r\n", &i, &n, &body)
		assert.NoError(t, err)
		assert.Equal(t, n, next[i])
		assert.Equal(t, len(body), 1+(n*97)%3000)
		next[i]++
	}
	wg.Wait()
	assert.Eventually(t, func() bool { return o.waiting.Load() == 0 })
}

// What is put while somebody writes never gets into what is being written, whatever the sizes: a burst leaves no buffer behind
// that is in use twice.
func TestPutWhileItWrites(t *testing.T) {
	o, _ := putter(t)
	var want, got bytes.Buffer
	lines, deep := 0, 0
	put := func(size int) {
		lines++
		head := fmt.Sprintf("%d ", lines)
		body := string(noise(size + lines))
		_, _ = want.WriteString(head + body + "\r\n")
		post(t, o, head, body)
	}
	sizes := []int{10, 20 * writeChunk, 30, 40, 50, 17 * writeChunk, 60, 70}
	o.attempt = func(p []byte) (int, error) {
		if deep < len(sizes) {
			deep++
			put(sizes[deep-1])
			put(sizes[deep-1])
		}
		return got.Write(p)
	}
	put(1)
	put(1)
	assert.Equal(t, deep, len(sizes))
	assert.True(t, bytes.Equal(got.Bytes(), want.Bytes()))
	assert.Equal(t, o.waiting.Load(), int64(0))
	assert.NoError(t, o.Close())
}

// A peer that reads nothing holds nobody up: what does not go waits, and is refused where too much does.
func TestPutDoesNotWaitForThePeer(t *testing.T) {
	o, far := putter(t)
	body := noise(8 << 10)
	want := 0
	for o.Reserve(len(body) + 2) {
		_, err := o.Put(nil, body, time.Now())
		assert.NoError(t, err)
		want += len(body) + 2
	}
	assert.True(t, want > maxWaiting)
	assert.True(t, o.waiting.Load() <= maxWaiting)
	got := make([]byte, want)
	_, err := io.ReadFull(far, got)
	assert.NoError(t, err)
	assert.True(t, bytes.Equal(got[:len(body)], body))
	assert.Eventually(t, func() bool { return o.waiting.Load() == 0 })
	assert.NoError(t, o.Close())
}

func TestPutIntoWhatIsGone(t *testing.T) {
	o, _ := putter(t)
	o.down(false) // its reader met the end
	_, err := o.Put([]byte("x"), nil, time.Now())
	assert.ErrorIs(t, err, nats.ErrDisconnected)
	assert.NoError(t, o.Close())
	_, err = o.Put([]byte("x"), nil, time.Now())
	assert.ErrorIs(t, err, net.ErrClosed)
	o.mu.Lock()
	assert.Equal(t, len(o.buf), 0)
	o.mu.Unlock()
}

// What was put before it was closed is written, whoever was to write it.
func TestPutBeforeClose(t *testing.T) {
	o, far := putter(t)
	o.mu.Lock()
	o.gathering = true // by somebody who does not come back
	o.mu.Unlock()
	post(t, o, "last ", "words")
	assert.NoError(t, o.Close())
	got, err := io.ReadAll(far)
	assert.NoError(t, err)
	assert.Equal(t, string(got), "last words\r\n")
}

func TestStepsBackWhileItIsWorthIt(t *testing.T) {
	now := time.Now()
	var g Gatherer
	g.Judge(now, tooLong, tooLong, 0)
	assert.True(t, !now.Before(g.until), "not too long")
	g.Judge(now, 2*time.Millisecond, tooLong, 200)
	assert.True(t, !now.Before(g.until), "long, and worth it")
	g.Judge(now, 2*time.Millisecond, tooLong, 1)
	assert.Equal(t, g.until.Sub(now), leastRest, "neither")
	for range 20 {
		g.Judge(now, 2*time.Millisecond, tooLong, 1)
	}
	assert.Equal(t, g.until.Sub(now), mostRest)
	for range 40 {
		g.Judge(now, tooLong, tooLong, 0)
	}
	g.Judge(now, 2*time.Millisecond, tooLong, 1)
	assert.Equal(t, g.until.Sub(now), leastRest, "forgotten")
}

// A frame is worth its calls to who judges whether it was right to step back.
func TestGatheredFramesCountByTheirCalls(t *testing.T) {
	o := newOutlet(&pieces{end: io.EOF}, time.Minute)
	o.up.Store(true)
	assert.True(t, o.Hold())
	assert.NoError(t, o.PutFrame([]byte("PUB x 1\r\n"), []byte("a"), 32))
	_, err := o.Put([]byte("PUB x 1\r\n"), []byte("b"), time.Now())
	assert.NoError(t, err)
	assert.Equal(t, o.frames, 33)
}
