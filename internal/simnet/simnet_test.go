package simnet_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"postbus.example/internal/assert"
	"postbus.example/internal/simnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// link makes a link and a connection that lies in it. A bubble in which a pump is left behind panics.
func link(t *testing.T) (l *simnet.Link, client, server net.Conn) {
	t.Helper()
	l = simnet.New()
	t.Cleanup(l.Cut)
	client, server = connect(t, l)
	return l, client, server
}

func connect(t *testing.T, l *simnet.Link) (client, server net.Conn) {
	t.Helper()
	server, far := net.Pipe()
	c, err := l.Connect(far)
	assert.NoError(t, err)
	c.Begin()
	return c, server
}

// send writes and wants to be done at once.
func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	start := time.Now()
	_, err := io.WriteString(c, s)
	assert.NoError(t, err)
	assert.Equal(t, time.Since(start), 0, "nobody waits to send")
}

// arrives reads and wants it to have taken so long.
func arrives(t *testing.T, c net.Conn, s string, after time.Duration) {
	t.Helper()
	start := time.Now()
	got := make([]byte, len(s))
	_, err := io.ReadFull(c, got)
	assert.NoError(t, err)
	assert.Equal(t, string(got), s)
	assert.Equal(t, time.Since(start), after)
}

// silent wants nothing to arrive for an hour.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	assert.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
	n, err := c.Read(make([]byte, 1))
	var timeout net.Error
	assert.True(t, n == 0 && errors.As(err, &timeout) && timeout.Timeout(), "nothing, not even the end")
	assert.NoError(t, c.SetReadDeadline(time.Time{}))
}

func gone(t *testing.T, c net.Conn, after time.Duration) {
	t.Helper()
	start := time.Now()
	_, err := c.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF)
	assert.Equal(t, time.Since(start), after)
}

func TestPerfect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		send(t, client, "ping")
		send(t, server, "pong") // before it has read anything: a pipe alone would wait for ever
		arrives(t, server, "ping", 0)
		arrives(t, client, "pong", 0)
		assert.NoError(t, client.Close())
		gone(t, server, 0)
		synctest.Wait()
		assert.Equal(t, l.Conns(), 0)
	})
}

func TestLatencyEachWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Up.Latency(30 * time.Millisecond)
		l.Down.Latency(time.Second)
		send(t, client, "ping")
		arrives(t, server, "ping", 30*time.Millisecond)
		send(t, server, "pong")
		arrives(t, client, "pong", time.Second)

		send(t, server, "slow")
		synctest.Wait()
		l.Down.Latency(0)
		send(t, server, "quick")
		arrives(t, client, "slowquick", time.Second) // nothing overtakes

		send(t, client, "bye")
		assert.NoError(t, client.Close())
		arrives(t, server, "bye", 30*time.Millisecond)
		gone(t, server, 0)
	})
}

func TestLatencyOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Down.Latency(time.Minute)
		assert.NoError(t, server.Close())
		gone(t, client, time.Minute)
	})
}

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Up.Bandwidth(1000)
		l.Up.Latency(time.Second)
		send(t, client, strings.Repeat("a", 500))
		synctest.Wait()
		send(t, client, strings.Repeat("b", 1500))
		arrives(t, server, strings.Repeat("a", 500), 1500*time.Millisecond)
		arrives(t, server, strings.Repeat("b", 1500), 1500*time.Millisecond)
		time.Sleep(time.Hour) // an idle line saves nothing up
		send(t, client, strings.Repeat("c", 100))
		arrives(t, server, strings.Repeat("c", 100), 1100*time.Millisecond)
	})
}

func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Up.Freeze()
		send(t, client, "held up")
		silent(t, server)
		assert.Equal(t, l.Up.Held(), 7)
		send(t, server, "the other way")
		arrives(t, client, "the other way", 0)
		assert.NoError(t, client.Close())
		silent(t, server)
		l.Up.Thaw()
		arrives(t, server, "held up", 0)
		gone(t, server, 0)
	})
}

func TestFreezeOfWhatIsOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Up.Latency(time.Second)
		send(t, client, "x")
		time.Sleep(time.Second / 2)
		l.Up.Freeze()
		time.AfterFunc(time.Minute, l.Up.Thaw)
		arrives(t, server, "x", time.Minute)
	})
}

func TestHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Up.Latency(time.Second)
		send(t, client, "before")
		synctest.Wait()
		l.Up.Hole()
		send(t, client, "lost")
		arrives(t, server, "before", time.Second)
		silent(t, server)
		send(t, server, "the other way")
		arrives(t, client, "the other way", 0)

		l.Mend()
		send(t, client, "without what came before it this means nothing")
		silent(t, server)
		again, other := connect(t, l)
		send(t, again, "a new one works")
		arrives(t, other, "a new one works", time.Second)

		assert.NoError(t, client.Close())
		silent(t, server)
		assert.NoError(t, server.Close())
		synctest.Wait()
		assert.Equal(t, l.Conns(), 1)
	})
}

func TestHoleThatSwallowsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Down.Hole()
		assert.NoError(t, server.Close())
		silent(t, client)
	})
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Up.Window(1000)
		l.Up.Freeze()
		sent := make(chan time.Duration, 1)
		start := time.Now()
		go func() {
			for range 4 {
				_, _ = client.Write(make([]byte, 400))
			}
			sent <- time.Since(start)
		}()
		time.Sleep(time.Minute)
		assert.Equal(t, len(sent), 0, "the sender waits")
		assert.Equal(t, l.Up.Held(), 800)
		l.Up.Thaw()
		arrives(t, server, string(make([]byte, 1600)), 0)
		assert.Equal(t, <-sent, time.Minute)

		l.Up.Freeze() // a cut frees who waits
		go func() {
			_, err := client.Write(make([]byte, 100_000))
			assert.True(t, err != nil)
			sent <- 0
		}()
		synctest.Wait()
		l.Cut()
		<-sent
	})
}

func TestCut(t *testing.T) {
	for name, condition := range map[string]func(l *simnet.Link){
		"perfect": func(*simnet.Link) {},
		"slow":    func(l *simnet.Link) { l.Up.Latency(time.Hour); l.Down.Bandwidth(1) },
		"frozen":  func(l *simnet.Link) { l.Up.Freeze(); l.Down.Freeze() },
		"holed":   func(l *simnet.Link) { l.Up.Hole(); l.Down.Hole() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, client, server := link(t)
				condition(l)
				send(t, client, "lost")
				l.Cut()
				gone(t, client, 0)
				_, _ = io.ReadAll(server) // the perfect link may have delivered
				_, err := server.Write([]byte("x"))
				assert.True(t, err != nil, "the server knows, too")
				synctest.Wait()
				assert.Equal(t, l.Conns(), 0)
				assert.Equal(t, l.Up.Held(), 0)
				l.Mend()
				client, server = connect(t, l)
				send(t, client, "works")
				_, err = io.ReadFull(server, make([]byte, 5))
				assert.NoError(t, err)
			})
		})
	}
}

func TestWhoDoesNotListenHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, server := link(t)
		l.Down.Hole() // so that the client does not learn
		assert.NoError(t, server.Close())
		send(t, client, "into")
		synctest.Wait()
		send(t, client, "the void")
		synctest.Wait()
		assert.Equal(t, l.Up.Held(), 0)
	})
}

func TestUnreachable(t *testing.T) {
	for name, condition := range map[string]func(l *simnet.Link){
		"frozen up": func(l *simnet.Link) { l.Up.Freeze() },
		"hole down": func(l *simnet.Link) { l.Down.Hole() },
	} {
		synctest.Test(t, func(t *testing.T) {
			l := simnet.New()
			condition(l)
			server, far := net.Pipe()
			_, err := l.Connect(far)
			assert.ErrorIs(t, err, simnet.ErrUnreachable, name)
			gone(t, server, 0)
			l.Mend()
			connect(t, l)
			l.Cut()
		})
	}
}

func TestConditionsBeginWithBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := simnet.New()
		defer l.Cut()
		server, far := net.Pipe()
		client, err := l.Connect(far)
		assert.NoError(t, err)
		l.Up.Latency(time.Second)
		l.Up.Window(1)
		l.Down.Freeze()
		send(t, client, "hello")
		arrives(t, server, "hello", 0)
		send(t, server, "hello to you")
		arrives(t, client, "hello to you", 0)
		client.Begin()
		send(t, server, "wait")
		silent(t, client)
	})
}

// Whatever happens to a link: what arrives is a beginning of what was sent, in order, and nothing is left.
func TestAnyWeather(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			l, client, server := link(t)
			r := rand.New(rand.NewPCG(seed, 0))
			sent := make([]byte, 200_000)
			for i := range sent {
				sent[i] = byte(r.Uint32())
			}
			var got bytes.Buffer
			var wg sync.WaitGroup
			wg.Go(func() {
				for rest := sent; len(rest) > 0; {
					n, err := client.Write(rest[:min(len(rest), 1+int(rest[0])*50)])
					if rest = rest[n:]; err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
				_ = client.Close()
			})
			wg.Go(func() { _, _ = got.ReadFrom(server) })
			fatal := false
			for range 20 {
				time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
				switch r.IntN(12) {
				case 0:
					l.Up.Freeze()
				case 1, 2:
					l.Up.Thaw()
				case 3:
					l.Up.Latency(time.Duration(r.IntN(50)) * time.Millisecond)
				case 4:
					l.Up.Bandwidth(r.IntN(1_000_000))
				case 5:
					l.Up.Window(r.IntN(5000))
				case 6:
					l.Up.Hole()
					fatal = true
				case 7:
					if r.IntN(4) == 0 {
						l.Cut()
						fatal = true
					}
				}
			}
			l.Mend()
			if fatal {
				time.Sleep(time.Hour)
				l.Cut()
			}
			wg.Wait()
			assert.True(t, bytes.HasPrefix(sent, got.Bytes()), "in order")
			assert.True(t, fatal || got.Len() == len(sent), "whole")
			synctest.Wait()
			assert.Equal(t, l.Conns(), 0)
		})
	}
}
