package embedded_test

import (
	"bytes"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

func startCluster(t testing.TB, n int, opts ...embedded.Option) *embedded.Cluster {
	t.Helper()
	c, err := embedded.StartCluster(n, opts...)
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	return c
}

func TestStartCluster(t *testing.T) {
	out := &buffer{}
	began := time.Now()
	c := startCluster(t, 3, embedded.WithName("west"), embedded.WithLogger(slog.New(slog.NewTextHandler(out, nil))))
	t.Logf("formed in %v", time.Since(began))
	assert.Equal(t, len(c.Servers()), 3)
	assert.Equal(t, strings.Count(c.URL(), "nats://127.0.0.1:"), 3)
	for i, s := range c.Servers() {
		assert.True(t, s == c.Server(i), "order")
		assert.Equal(t, s.Name(), "west-"+strconv.Itoa(i+1))
		assert.Equal(t, connect(t, s).ConnectedClusterName(), "west")
	}
	echo(t, connect(t, c.Server(0)), "svc.echo")
	for _, s := range c.Servers() {
		nc := dial(t, s.URL())
		assert.Eventually(t, answered(nc, "svc.echo"), s.Name())
	}
	for _, bad := range []string{"level=WARN", "level=ERROR"} {
		assert.True(t, !strings.Contains(out.String(), bad), out.String())
	}
}

func TestStartClusterOfOne(t *testing.T) {
	c := startCluster(t, 1)
	assert.Equal(t, c.URL(), c.Server(0).URL())
	assert.NoError(t, dial(t, c.URL()).Flush())
}

func TestStartClusterFaults(t *testing.T) {
	_, err := embedded.StartCluster(0, embedded.WithoutListener(), embedded.WithMaxPayload(-1))
	assert.Contains(t, err.Error(), "0 is no number of servers", "WithoutListener", "WithMaxPayload")
	_, err = embedded.StartCluster(3, embedded.WithAddr("127.0.0.1:65534"))
	assert.Contains(t, err.Error(), "no port for each server")
}

func TestStartClusterOnConsecutivePorts(t *testing.T) {
	for { // until two neighbours are free
		port := freePort(t)
		first, err := strconv.Atoi(port)
		assert.NoError(t, err)
		c, err := embedded.StartCluster(2, embedded.WithAddr("127.0.0.1:"+port))
		if err != nil && strings.Contains(err.Error(), "address already in use") {
			continue
		}
		assert.NoError(t, err)
		t.Cleanup(c.Shutdown)
		assert.Equal(t, c.Server(1).URL(), "nats://"+net.JoinHostPort("127.0.0.1", strconv.Itoa(first+1)))
		return
	}
}

func TestClusterIsClosedToStrangers(t *testing.T) {
	c := startCluster(t, 2, embedded.WithName("west"))
	out := &buffer{}
	start(t, embedded.WithLogger(slog.New(slog.NewTextHandler(out, nil))), embedded.WithConfig(
		`cluster { name: west, port: -1, routes: ["nats://`+c.Server(0).NATS().ClusterAddr().String()+`"] }`))
	assert.Eventually(t, func() bool { return strings.Contains(out.String(), "Authorization Violation") })
	assert.Equal(t, c.Server(0).NATS().NumRoutes(), 4)
}

func TestClusterSurvivesItsMembers(t *testing.T) {
	c := startCluster(t, 3, embedded.WithConfig(`max_payload: 4096, cluster { pool_size: 1 }`))
	client := dial(t, c.URL(), nats.ReconnectWait(time.Millisecond), nats.MaxReconnects(-1))
	echo(t, client, "svc.echo")
	for i, s := range c.Servers() {
		url := s.URL()
		s.Shutdown()
		other := connect(t, c.Server((i+1)%3))
		assert.Eventually(t, answered(other, "svc.echo"), "without "+s.Name())
		assert.NoError(t, s.Restart())
		assert.Equal(t, s.URL(), url)
		back := connect(t, s)
		assert.Eventually(t, answered(back, "svc.echo"), "with "+s.Name())
	}
}

func TestClusterWithJetStream(t *testing.T) {
	if testing.Short() {
		t.Skip("the election takes seconds")
	}
	dir := t.TempDir()
	c := startCluster(t, 3, embedded.WithJetStream(dir), embedded.WithName("west"))
	js, err := jetstream.New(connect(t, c.Server(1)))
	assert.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "jobs", Subjects: []string{"jobs.>"}, Replicas: 3})
	assert.NoError(t, err)
	_, err = js.Publish(t.Context(), "jobs.1", []byte("x"))
	assert.NoError(t, err)
	assert.NoError(t, c.Server(2).Restart())
	_, err = js.Publish(t.Context(), "jobs.2", []byte("x"))
	assert.NoError(t, err)
}

func TestClusterShutdown(t *testing.T) {
	c := startCluster(t, 3, embedded.WithLogger(slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil))))
	c.Server(1).Shutdown()
	c.Shutdown()
	c.Shutdown()
	for _, s := range c.Servers() {
		assert.True(t, s.NATS() == nil, "down")
	}
}
