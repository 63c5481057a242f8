package uplink

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
)

// sockets returns the two ends of a connection over loopback.
func sockets(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	defer func() { _ = l.Close() }()
	near, err = net.Dial("tcp", l.Addr().String())
	assert.NoError(t, err)
	far, err = l.Accept()
	assert.NoError(t, err)
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Over a socket, some of what is written goes at once and some waits; nobody sees the difference.
func TestOutletKeepsTheOrder(t *testing.T) {
	near, far := sockets(t)
	o := newOutlet(near, time.Minute)
	want := noise(20 << 20)
	var got bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 300_000)
		for {
			n, err := far.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				return
			}
		}
	})
	for rest := want; len(rest) > 0; {
		n, err := o.Write(rest[:min(len(rest), 1+rand.IntN(100_000))])
		assert.NoError(t, err)
		rest = rest[n:]
	}
	assert.Eventually(t, func() bool { return o.waiting.Load() == 0 }) // what a Close does to what waits is another matter
	assert.NoError(t, o.Close())
	wg.Wait()
	assert.True(t, bytes.Equal(got.Bytes(), want))
	assert.Equal(t, o.waiting.Load(), int64(0))
}

func TestOutletDoesNotWaitForThePeer(t *testing.T) {
	near, far := sockets(t)
	o := newOutlet(near, time.Minute)
	want := noise(maxHeld - 1)
	start := time.Now()
	n, err := o.Write(want)
	assert.NoError(t, err)
	assert.Equal(t, n, len(want))
	assert.True(t, time.Since(start) < time.Second)
	got := make([]byte, len(want))
	_, err = io.ReadFull(far, got)
	assert.NoError(t, err)
	assert.True(t, bytes.Equal(got, want))
	assert.Eventually(t, func() bool { return o.waiting.Load() == 0 })
	_, err = o.Write([]byte("and on")) // the deadlines of the writer are gone with it
	assert.NoError(t, err)
	assert.NoError(t, o.Close())
}

func TestOutletOfAPeerThatLeft(t *testing.T) {
	near, far := sockets(t)
	o := newOutlet(near, time.Minute)
	assert.NoError(t, o.SetDeadline(time.Time{}))
	assert.True(t, o.up.Load())
	assert.NoError(t, far.Close())
	_, err := o.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF)
	assert.True(t, !o.up.Load(), "known before the client library does anything")
	assert.Eventually(t, func() bool { _, err := o.Write([]byte("x")); return err != nil })
	assert.NoError(t, o.Close())
}

// pipe returns an outlet of a connection that takes nothing unless the far end reads.
func pipe(patience time.Duration) (*Outlet, net.Conn) {
	near, far := net.Pipe()
	return newOutlet(near, patience), far
}

// Others than calls reserve nothing: they wait in Write, until there is room or the connection is gone.
func TestOutletIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, far := pipe(0)
		var wrote atomic.Int32
		wg := sync.WaitGroup{}
		wg.Go(func() {
			for range 20 {
				_, err := o.Write(make([]byte, 1<<20))
				if err != nil {
					assert.ErrorIs(t, err, net.ErrClosed)
					return
				}
				wrote.Add(1)
			}
		})
		time.Sleep(time.Hour)
		assert.Equal(t, wrote.Load(), int32(maxHeld>>20))
		_, err := io.ReadFull(far, make([]byte, 2<<20))
		assert.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, wrote.Load(), int32(maxHeld>>20+2))
		assert.Equal(t, o.waiting.Load(), int64(maxHeld))
		time.Sleep(time.Hour)
		assert.NoError(t, o.Close())
		wg.Wait()
		_ = far.Close()
	})
}

func TestOutletWritesWhatWaitsWhenItCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, far := pipe(time.Second)
		read := make(chan error, 1)
		go func() {
			_, err := o.Read(make([]byte, 1))
			read <- err
		}()
		want := noise(10 * writeChunk)
		_, err := o.Write(want)
		assert.NoError(t, err)
		start := time.Now()
		assert.NoError(t, o.Close())
		assert.ErrorIs(t, <-read, net.ErrClosed)
		assert.Equal(t, time.Since(start), 0, "neither Close nor Read waits")
		var got []byte
		for err == nil { // slowly: there is no limit to that
			time.Sleep(lingerTime / 2)
			buf := make([]byte, writeChunk)
			var n int
			n, err = far.Read(buf)
			got = append(got, buf[:n]...)
		}
		assert.ErrorIs(t, err, io.EOF)
		assert.True(t, bytes.Equal(got, want))
		_, err = o.Write([]byte("late"))
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.NoError(t, o.Close())
	})
}

func TestOutletDoesNotLingerForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, far := pipe(time.Hour)
		_, err := o.Write(noise(1000))
		assert.NoError(t, err)
		synctest.Wait()
		start := time.Now()
		assert.NoError(t, o.Close())
		time.Sleep(lingerTime + time.Millisecond)
		_, err = far.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
		assert.Equal(t, time.Since(start), lingerTime+time.Millisecond)

		o, far = pipe(time.Hour) // one that is stuck is closed at once: what waits would come too late anyway
		_, err = o.Write(noise(1000))
		assert.NoError(t, err)
		time.Sleep(StuckAfter + time.Millisecond)
		assert.NoError(t, o.Close())
		_, err = far.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
	})
}

func TestOutletLosesPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, far := pipe(5 * time.Second)
		assert.NoError(t, o.SetDeadline(time.Time{}))
		_, err := o.Write(noise(3 * writeChunk))
		assert.NoError(t, err)
		start := time.Now()
		for range 2 { // each chunk has the whole patience: a slow network is none that is stuck
			time.Sleep(4 * time.Second)
			_, err = io.ReadFull(far, make([]byte, writeChunk))
			assert.NoError(t, err)
		}
		_, err = o.Read(make([]byte, 1))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded, "the reader learns what the writer met")
		assert.Equal(t, time.Since(start), 13*time.Second)
		assert.True(t, !o.up.Load())
		assert.Equal(t, o.waiting.Load(), int64(0))
		_, err = o.Write([]byte("x"))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.NoError(t, o.Close())
	})
}

func TestReserve(t *testing.T) {
	o, far := pipe(time.Second)
	defer func() { _, _ = o.Close(), far.Close() }()
	assert.True(t, o.Reserve(100<<20), "a message of any size, when nothing waits")
	assert.True(t, !o.Reserve(1), "but nothing beside it")
	o.Release(100 << 20)
	assert.True(t, o.Reserve(maxWaiting/2))
	assert.True(t, o.Reserve(maxWaiting), "up to half is as good as nothing")
	o.Release(maxWaiting)
	assert.True(t, o.Reserve(maxWaiting/2))
	assert.True(t, !o.Reserve(1))
	o.Release(maxWaiting)
	assert.Equal(t, o.waiting.Load(), int64(0))
	(*Outlet)(nil).Release(1) // where there is no outlet there was nothing to reserve
}

// A peer that says nothing is given up. One whose words nobody reads, since this process is busy, is not.
func TestVigil(t *testing.T) {
	near, far := sockets(t)
	o := newOutlet(near, time.Minute)
	lost := make(chan bool, 1)
	o.silence, o.sever = 200*time.Millisecond, func(uint64, bool) { lost <- true }
	assert.NoError(t, o.SetDeadline(time.Time{}))
	_, err := far.Write([]byte("PONG\r\n"))
	assert.NoError(t, err)
	time.Sleep(5 * o.silence)
	assert.Equal(t, len(lost), 0, "it is there")
	_, err = o.Read(make([]byte, 1000))
	assert.NoError(t, err)
	<-lost
	_, err = o.Read(make([]byte, 1000))
	assert.ErrorIs(t, err, nats.ErrStaleConnection)
	assert.NoError(t, o.Close())
}

func TestSilence(t *testing.T) {
	assert.Equal(t, silenceOf(&nats.Options{PingInterval: 2 * time.Second, MaxPingsOut: 2}), 5500*time.Millisecond)
	assert.Equal(t, silenceOf(&nats.Options{PingInterval: time.Second}), 1750*time.Millisecond)
	assert.Equal(t, silenceOf(&nats.Options{MaxPingsOut: 2}), 0, "nobody pings")
}
