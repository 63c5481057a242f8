package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	clusterAttempts  = 5                // ports for routes are found by trying, so they may be lost again
	jetStreamTimeout = 60 * time.Second // for the election of a leader, which takes seconds
)

// Cluster is some servers in this process that share their traffic. Make one with [StartCluster].
// All methods may be called concurrently.
type Cluster struct {
	servers []*Server
}

// StartCluster starts n servers with the same options, connects each with all others, and returns when that is done,
// typically after twenty milliseconds; with JetStream, when streams can be made, which may take some seconds.
//
// The routes between them are on the loopback interface and take a secret that no one else has. n is 1 or more; a
// cluster of one is a plain server. The caller must end it with [Cluster.Shutdown]. Errors are as for [Start].
//
// A subscription made at one server is known at the others a moment later, not at once: a request right after it may
// meet no responders.
func StartCluster(n int, opts ...Option) (*Cluster, error) {
	st := newSettings(opts)
	if n < 1 {
		st.faultf("StartCluster: %d is no number of servers", n)
	}
	if st.noListener {
		st.faultf("StartCluster does not go with WithoutListener")
	}
	st.others = max(0, n-1)
	if _, err := st.options(); err != nil {
		return nil, err
	}
	if n == 1 {
		s, err := startServer(st)
		if err != nil {
			return nil, err
		}
		return &Cluster{servers: []*Server{s}}, nil
	}
	for attempt := 1; ; attempt++ {
		c, err := startCluster(n, st)
		if err == nil {
			return c, nil
		}
		if attempt == clusterAttempts || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

func startCluster(n int, st *settings) (*Cluster, error) {
	free, err := freePorts(n)
	if err != nil {
		return nil, err
	}
	m := &mesh{ports: free, secret: rand.Text()}
	c := &Cluster{}
	for i := range n {
		one := *st
		one.member = &member{m, i}
		s, err := startServer(&one)
		if err != nil {
			c.Shutdown()
			return nil, err
		}
		s.formed = func() error { return c.awaitRoutes(s) }
		c.servers = append(c.servers, s)
	}
	if err := c.awaitFormed(); err != nil {
		c.Shutdown()
		return nil, err
	}
	m.complete.Store(true)
	return c, nil
}

// Servers returns the servers in the order they were started, those that are down included.
func (c *Cluster) Servers() []*Server { return slices.Clone(c.servers) }

// Server returns the i-th server, counted from 0. It panics if there is none, as a slice does.
func (c *Cluster) Server(i int) *Server { return c.servers[i] }

// URL returns the URLs of all servers separated by commas, as nats.Connect takes them: a connection made with it goes
// to one of them, and to another one when that is shut down.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.servers))
	for i, s := range c.servers {
		urls[i] = s.URL()
	}
	return strings.Join(urls, ",")
}

// Shutdown shuts all servers down at once and waits for them. It may be called more than once.
func (c *Cluster) Shutdown() {
	var wg sync.WaitGroup
	for _, s := range c.servers {
		wg.Go(s.Shutdown)
	}
	wg.Wait()
}

func (c *Cluster) awaitFormed() error {
	for _, s := range c.servers {
		if err := s.formed(); err != nil {
			return err
		}
	}
	return c.awaitJetStream()
}

// awaitRoutes waits until s has all its routes to the members that run.
func (c *Cluster) awaitRoutes(s *Server) error {
	have, want := 0, 0
	done := poll(startTimeout, func() bool {
		ns := s.NATS()
		if ns == nil {
			return false
		}
		others := 0
		for _, m := range c.servers {
			if m != s && m.NATS() != nil {
				others++
			}
		}
		have, want = ns.NumRoutes(), others*s.perPeer
		return have >= want
	})
	if !done {
		return fmt.Errorf("embedded: server %s has %d of %d routes to its cluster after %v", s.name, have, want, startTimeout)
	}
	return nil
}

// awaitJetStream waits until JetStream, if it is on, has a leader that knows what each server has room for: before
// that, it would refuse to place a stream. And each server must have caught up with it.
func (c *Cluster) awaitJetStream() error {
	if !c.servers[0].NATS().JetStreamIsClustered() {
		return nil
	}
	ok := poll(jetStreamTimeout, func() bool {
		led := false
		for _, s := range c.servers {
			ns := s.NATS()
			if !ns.JetStreamIsCurrent() {
				return false
			}
			led = led || len(ns.JetStreamClusterPeers()) == len(c.servers) // nil if it isn't the leader
		}
		return led
	})
	if !ok {
		return fmt.Errorf("embedded: StartCluster: JetStream has no leader of all servers after %v", jetStreamTimeout)
	}
	return nil
}

// mesh is how the members of a cluster find and trust each other.
type mesh struct {
	ports    []int  // where each listens for routes
	secret   string // against programs on this host that would like to be members
	complete atomic.Bool
}

// member is one server's place in the mesh.
type member struct {
	*mesh
	index int
}

// apply turns what the options say for each server into what they say for this one.
func (m *member) apply(o *server.Options) {
	base := o.ServerName
	o.ServerName = fmt.Sprintf("%s-%d", base, m.index+1)
	if o.Port > 0 {
		o.Port += m.index
	}
	if o.StoreDir != "" {
		o.StoreDir = filepath.Join(o.StoreDir, o.ServerName)
	}
	c := &o.Cluster
	if c.Name == "" {
		c.Name = base
	}
	c.Host, c.Port, c.ListenStr, c.Advertise = loopback, m.ports[m.index], "", ""
	if c.Username == "" {
		c.Username, c.Password = "route", m.secret
	}
	o.Routes = nil
	for i, port := range m.ports {
		if m.routesTo(i, o.JetStream) {
			o.Routes = append(o.Routes, &url.URL{
				Scheme: "nats", User: url.UserPassword(c.Username, c.Password), Host: net.JoinHostPort(loopback, strconv.Itoa(port)),
			})
		}
	}
}

// routesTo says whether the member is told of the i-th one. The first time it is told only of those that already run,
// for one that can't be reached is tried again after a second, and complained of. JetStream is told of all, itself
// included: it takes their number for the size of the cluster.
func (m *member) routesTo(i int, jetStream bool) bool {
	if jetStream {
		return true
	}
	return i != m.index && (i < m.index || m.complete.Load())
}

// routesPerPeer is the number of connections a server of o, checked by the server, has to each other one.
func routesPerPeer(o *server.Options) int {
	if o.Cluster.PoolSize > 0 {
		return o.Cluster.PoolSize + len(o.Cluster.PinnedAccounts)
	}
	return 1
}

// freePorts returns ports of the loopback interface that are free at the moment. Servers could choose their own, but
// then the first ones would not know the others', and have no way back to a cluster after a restart.
func freePorts(n int) ([]int, error) {
	found := make([]int, n)
	held := make([]net.Listener, 0, n) // until all are found: else one might be found twice
	defer func() {
		for _, l := range held {
			_ = l.Close() // fails only if it is closed already
		}
	}()
	for i := range found {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fmt.Errorf("embedded: StartCluster: %w", err)
		}
		held = append(held, l)
		found[i] = l.Addr().(*net.TCPAddr).Port
	}
	return found, nil
}
