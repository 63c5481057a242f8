package embedded_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

// No exceptions: what a server starts, Shutdown ends.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, opts ...embedded.Option) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(opts...)
	assert.NoError(t, err)
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t testing.TB, s *embedded.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := s.Connect(opts...)
	assert.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func dial(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	assert.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// echo answers on subject until the connection is closed.
func echo(t testing.TB, nc *nats.Conn, subject string) {
	t.Helper()
	_, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(m.Data) })
	assert.NoError(t, err)
	assert.NoError(t, nc.Flush())
}

func ask(nc *nats.Conn, subject string) error {
	_, err := nc.Request(subject, []byte("hello"), 5*time.Second)
	return err
}

// answered asks with little patience: what is sent to a server that is just going is lost without a word.
func answered(nc *nats.Conn, subject string) func() bool {
	return func() bool {
		_, err := nc.Request(subject, []byte("hello"), 100*time.Millisecond)
		return err == nil
	}
}

func TestStart(t *testing.T) {
	s := start(t)
	echo(t, connect(t, s), "svc.echo")
	reply, err := dial(t, s.URL()).Request("svc.echo", []byte("hello"), 5*time.Second)
	assert.NoError(t, err)
	assert.Equal(t, string(reply.Data), "hello")

	host, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL(), "nats://"))
	assert.NoError(t, err)
	assert.Equal(t, host, "127.0.0.1")
	assert.True(t, port != "4222" && port != "0", "port "+port)
}

func TestStartEachServerIsItsOwn(t *testing.T) {
	a, b := start(t), start(t)
	assert.True(t, a.Name() != b.Name(), "names differ")
	assert.True(t, a.URL() != b.URL(), "URLs differ")
	echo(t, connect(t, a), "svc.echo")
	assert.ErrorIs(t, ask(connect(t, b), "svc.echo"), nats.ErrNoResponders)
}

func TestStartIsFast(t *testing.T) {
	best := time.Hour
	for range 5 { // the machine may be busy with other things: one good try proves it
		began := time.Now()
		s := start(t)
		nc := connect(t, s)
		assert.NoError(t, nc.Flush())
		best = min(best, time.Since(began))
	}
	t.Logf("start and connect in %v", best)
	assert.True(t, best < 20*time.Millisecond, "starts within 20 ms, took "+best.String())
}

func TestWithoutListener(t *testing.T) {
	s := start(t, embedded.WithoutListener())
	assert.Equal(t, s.URL(), "")
	assert.True(t, s.NATS().Addr() == nil, "no socket")
	echo(t, connect(t, s), "svc.echo")
	assert.NoError(t, ask(connect(t, s), "svc.echo"))
	assert.NoError(t, s.Restart())
	assert.NoError(t, connect(t, s).Flush())
}

func TestWithAddr(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	addr := l.Addr().String()

	_, err = embedded.Start(embedded.WithAddr(addr))
	assert.ErrorIs(t, err, syscall.EADDRINUSE)
	assert.Contains(t, err.Error(), "embedded: ", addr, "address already in use")

	assert.NoError(t, l.Close())
	s := start(t, embedded.WithAddr(addr))
	assert.Equal(t, s.URL(), "nats://"+addr)
	assert.NoError(t, dial(t, s.URL()).Flush())
}

func TestWithAddrHosts(t *testing.T) {
	for _, c := range []struct{ addr, url, listens string }{
		{":0", "nats://127.0.0.1:", "127.0.0.1:"},
		{"localhost:0", "nats://localhost:", "127.0.0.1:"},
		{"0.0.0.0:0", "nats://127.0.0.1:", "[::]:"},
	} {
		t.Run(c.addr, func(t *testing.T) {
			s := start(t, embedded.WithAddr(c.addr))
			assert.True(t, strings.HasPrefix(s.URL(), c.url), s.URL())
			got := strings.Replace(s.NATS().Addr().String(), "0.0.0.0:", "[::]:", 1) // without IPv6
			assert.True(t, strings.HasPrefix(got, c.listens), got)
			assert.NoError(t, dial(t, s.URL()).Flush())
		})
	}
}

func TestWithName(t *testing.T) {
	s := start(t, embedded.WithName("hub:1"), embedded.WithConfig(`server_name: other`))
	assert.Equal(t, s.Name(), "hub:1")
	assert.Equal(t, connect(t, s).ConnectedServerName(), "hub:1")
}

func TestWithMaxPayload(t *testing.T) {
	nc := connect(t, start(t, embedded.WithMaxPayload(4096)))
	assert.Equal(t, nc.MaxPayload(), int64(4096))
	assert.ErrorIs(t, nc.Publish("a", make([]byte, 4097)), nats.ErrMaxPayload)
}

func TestWithJetStreamInADirectory(t *testing.T) {
	dir := t.TempDir()
	s := start(t, embedded.WithJetStream(dir))
	keep(t, s, "jobs.1")
	s.Shutdown()
	assert.Equal(t, stored(t, start(t, embedded.WithJetStream(dir))), uint64(1))
}

func TestWithJetStreamInATemporaryDirectory(t *testing.T) {
	for name, opt := range map[string]embedded.Option{
		"option": embedded.WithJetStream(""),
		"text":   embedded.WithConfig(`jetstream: enabled`),
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			s := start(t, opt)
			keep(t, s, "jobs.1")
			assert.NoError(t, s.Restart())
			assert.Equal(t, stored(t, s), uint64(1))
			s.Shutdown()
			left, err := filepath.Glob(filepath.Join(tmp, "*"))
			assert.NoError(t, err)
			assert.Equal(t, len(left), 0)

			assert.NoError(t, s.Restart(), "restart after Shutdown")
			assert.NoError(t, connect(t, s).Flush())
		})
	}
}

func TestWithJetStreamWhereNoDirectoryCanBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	assert.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := embedded.Start(embedded.WithJetStream(file))
	assert.True(t, err != nil, "error")
	assert.Contains(t, err.Error(), "JetStream", file)
}

// keep stores a message in the stream "jobs", which it makes.
func keep(t testing.TB, s *embedded.Server, subject string) {
	t.Helper()
	js, err := jetstream.New(connect(t, s))
	assert.NoError(t, err)
	_, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "jobs", Subjects: []string{"jobs.>"}})
	assert.NoError(t, err)
	_, err = js.Publish(t.Context(), subject, []byte("x"))
	assert.NoError(t, err)
}

// stored returns the number of messages in the stream "jobs".
func stored(t testing.TB, s *embedded.Server) uint64 {
	t.Helper()
	js, err := jetstream.New(connect(t, s))
	assert.NoError(t, err)
	stream, err := js.Stream(t.Context(), "jobs")
	assert.NoError(t, err)
	return stream.CachedInfo().State.Msgs
}

func TestShutdown(t *testing.T) {
	s := start(t)
	other := dial(t, s.URL(), nats.NoReconnect())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(s.Shutdown)
	}
	wg.Wait()
	s.Shutdown()
	assert.True(t, s.NATS() == nil, "down")
	_, err := s.Connect()
	assert.Contains(t, err.Error(), "not running")
	_, err = net.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
	assert.Eventually(t, other.IsClosed, "client")
}

func TestShutdownAfterLameDuckMode(t *testing.T) {
	s := start(t)
	s.NATS().LameDuckShutdown() // without clients it is over at once
	s.Shutdown()
	assert.NoError(t, s.Restart())
	assert.NoError(t, connect(t, s).Flush())
}

func TestRestart(t *testing.T) {
	s := start(t)
	url, name, before := s.URL(), s.Name(), s.NATS()
	inside, outside := connect(t, s), dial(t, s.URL(), nats.ReconnectWait(time.Millisecond), nats.MaxReconnects(-1))
	echo(t, inside, "svc.echo")

	assert.NoError(t, s.Restart())
	assert.Equal(t, s.URL(), url)
	assert.Equal(t, s.Name(), name)
	assert.True(t, s.NATS() != before, "a new server")
	assert.Eventually(t, answered(outside, "svc.echo"), "both clients are back")
}

func TestRestartKeepsEveryPort(t *testing.T) {
	s := start(t, embedded.WithConfig(`
		http: -1
		websocket { port: -1, no_tls: true }
		leafnodes { port: -1 }
		cluster { name: solo, port: -1 }
	`))
	state := func() []string {
		ns := s.NATS()
		return []string{ns.Addr().String(), ns.MonitorAddr().String(), ns.ClusterAddr().String(), ns.WebsocketURL()}
	}
	before := state()
	for _, addr := range before {
		assert.Contains(t, addr, "127.0.0.1:")
	}
	assert.NoError(t, s.Restart())
	assert.Equal(t, state(), before)
}

func TestRestartWaitsForItsPort(t *testing.T) {
	s := start(t)
	addr := strings.TrimPrefix(s.URL(), "nats://")
	s.Shutdown()
	thief, err := net.Listen("tcp", addr)
	assert.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Restart() }()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	assert.NoError(t, thief.Close())
	assert.NoError(t, <-done)
	assert.NoError(t, dial(t, s.URL()).Flush())
}

func TestConcurrentUse(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for _, f := range []func(){
		s.Shutdown,
		func() {
			if err := s.Restart(); err != nil {
				t.Error(err)
			}
		},
		func() {
			if nc, err := s.Connect(); err == nil {
				nc.Close()
			} else if !errors.Is(err, nats.ErrNoServers) && !strings.Contains(err.Error(), "embedded: ") {
				t.Error(err)
			}
		},
	} {
		wg.Go(func() {
			for ctx.Err() == nil {
				f()
			}
		})
	}
	wg.Wait()
}
