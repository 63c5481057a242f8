// Package embedded runs NATS servers inside this process: srv, err := embedded.Start().
//
// A server listens on the loopback interface at a port of the system's choice, installs no signal handlers, writes no
// log, and never ends the process, whatever its configuration says. It is a real server, the same code as the
// nats-server program: good for tests, for programs that bring their bus along, and for several services in one binary.
//
//	srv, err := embedded.Start()
//	if err != nil { … }
//	defer srv.Shutdown()
//	nc, err := srv.Connect() // in process: no socket; other processes dial srv.URL()
//
// Start is for one server, [StartCluster] for several that share their traffic. What they should be is said by options,
// or, where no option fits, in NATS's own configuration language with [WithConfig]. All faults of the options are
// reported together.
//
// # Reading the source
//
// embedded.go is the life of one server, option.go what may be asked of it, settings.go how that becomes nats-server's
// options, log.go its log, pipe.go the connections within the process, cluster.go several servers.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	startTimeout   = 10 * time.Second      // for listeners and routes, which take milliseconds
	rebindTimeout  = 2 * time.Second       // for a port that somebody borrowed while the server was down
	reconnectDelay = 10 * time.Millisecond // a pipe has no crowd to hold back
	pollInterval   = 500 * time.Microsecond
)

// errDown is what Connect meets between Shutdown and Restart.
var errDown = errors.New("embedded: the server is not running")

// Server is a NATS server in this process. Make one with [Start]; the zero value is of no use.
// All methods may be called concurrently.
type Server struct {
	settings *settings
	name     string
	url      string
	formed   func() error // waits until the cluster has taken the server back; nil outside a cluster

	running atomic.Pointer[server.Server] // nil while down

	mu      sync.Mutex // held during each change between up and down
	ports   ports      // as bound by the first start, and from then on
	perPeer int        // routes to each other member of a cluster
	tempDir string     // "" if there is none
}

// Start starts a server and returns when it can be connected to, typically after one millisecond.
//
// By default it listens on 127.0.0.1 at a random port, accepts everybody there, stores nothing and is silent. It has a
// name of its own, so any number may run side by side. The caller must end it with [Server.Shutdown].
//
// The error holds every fault of the options ([errors.Join]), or why the server did not start; an address in use is
// named and is syscall.EADDRINUSE to [errors.Is]. Nothing is left running then.
func Start(opts ...Option) (*Server, error) {
	return startServer(newSettings(opts))
}

func startServer(st *settings) (*Server, error) {
	s := &Server{settings: st}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return nil, errors.Join(err, s.removeTempDir())
	}
	return s, nil
}

// Name returns the server's name, unique unless [WithName] or the configuration text chose it. Restart keeps it.
func (s *Server) Name() string { return s.name }

// URL returns the address other processes connect to, such as "nats://127.0.0.1:41523", or "tls://…" if the server
// requires TLS. It stays the same through Shutdown and Restart. A server that listens on all interfaces is named by
// the loopback address.
//
// It is empty for a server [WithoutListener]. nats.Connect takes an empty URL for nats://127.0.0.1:4222, perhaps
// somebody else's server, so use [Server.Connect] for such a one.
func (s *Server) URL() string { return s.url }

// Connect connects to the server within the process: no socket, no TLS, a fifth of the latency of loopback. Users and
// permissions apply as for any connection.
//
// By default the connection tries to reconnect every 10 ms without end, so it survives [Server.Restart]; options
// change that, and win over everything but the way to the server. Close it before Shutdown, unless a Restart is to come.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := []nats.Option{
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectDelay),
		nats.ReconnectJitter(reconnectDelay, reconnectDelay),
		nats.IgnoreDiscoveredServers(), // other members of a cluster are not at the end of this pipe
	}
	all = append(append(all, opts...), nats.InProcessServer(s))
	nc, err := nats.Connect("nats://in-process", all...) // for display only; s.URL() may ask for TLS
	if err != nil {
		return nil, fmt.Errorf("embedded: connect to server %s: %w", s.name, err)
	}
	return nc, nil
}

// InProcessConn returns the client's end of a new connection within the process, for nats.InProcessServer. Unlike the
// server underneath, it serves reconnects after [Server.Restart], too, and a client that is refused learns why. It must
// be read from: what the server can't get rid of holds up Shutdown for ten seconds. Most callers want [Server.Connect].
func (s *Server) InProcessConn() (net.Conn, error) {
	ns := s.running.Load()
	if ns == nil {
		return nil, errDown
	}
	c, err := ns.InProcessConn()
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	return &pipeEnd{Conn: c}, nil
}

// NATS returns the nats-server underneath, for what this package has no word for, such as Varz, LameDuckShutdown or
// DisconnectClientByID. It is nil while the server is down, and another one after each Restart.
func (s *Server) NATS() *server.Server { return s.running.Load() }

// Shutdown disconnects all clients, ends the server and waits until all it started has ended. A temporary directory
// of [WithJetStream] is removed. It may be called more than once; each call returns when the server is down.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down()
	_ = s.removeTempDir() // there is nothing the caller could do about it
}

// Restart ends the server, if it runs, and starts it anew at the same addresses, with the same name and options.
// Clients that reconnect find it again; JetStream keeps what it stored, unless it was in a temporary directory and
// Shutdown came in between. In a cluster, it returns when the routes to the members that run are back.
//
// After an error the server is down, and Restart may be tried again. An address that is taken meanwhile is waited for
// up to two seconds.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down()
	for end := time.Now().Add(rebindTimeout); ; time.Sleep(pollInterval) {
		err := s.up()
		if err == nil {
			break
		}
		// An outgoing connection of any process may own the port for a moment, be it of a client that looks for us.
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return err
		}
	}
	if s.formed == nil {
		return nil
	}
	if err := s.formed(); err != nil {
		s.down()
		return err
	}
	return nil
}

// up starts the server. s.mu is held, and the server is down.
func (s *Server) up() error {
	o, err := s.settings.options() // made anew each time: a server writes to its options and keeps them
	if err != nil {
		return err
	}
	s.ports.pin(o)
	if o.JetStream && o.StoreDir == "" {
		if err := s.makeTempDir(); err != nil {
			return err
		}
		o.StoreDir = s.tempDir
	}
	ns, err := launch(o, s.settings.log)
	if err != nil {
		return err
	}
	if s.name == "" { // the first start: nothing of this changes later, and nobody knows the server yet
		s.name, s.ports, s.url = o.ServerName, portsOf(ns, o), clientURL(o)
	}
	s.perPeer = routesPerPeer(o)
	s.running.Store(ns)
	return nil
}

// down ends the server if it runs. s.mu is held.
func (s *Server) down() {
	if ns := s.running.Swap(nil); ns != nil {
		stop(ns)
	}
}

func (s *Server) makeTempDir() (err error) {
	if s.tempDir == "" {
		if s.tempDir, err = os.MkdirTemp("", "postbus-embedded-"); err != nil {
			return fmt.Errorf("embedded: WithJetStream: %w", err)
		}
	}
	return nil
}

func (s *Server) removeTempDir() error {
	if s.tempDir == "" {
		return nil
	}
	dir := s.tempDir
	s.tempDir = ""
	return os.RemoveAll(dir)
}

// launch starts a server of o, which is the server's from here on.
func launch(o *server.Options, log logOutput) (*server.Server, error) {
	ns, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	l, hasRoutes := log.logger(o.ServerName), o.Cluster.Port != 0 // later it would be a race with the server
	ns.SetLoggerV2(l, o.Debug || l.debug(), o.Trace || l.trace(), o.TraceVerbose)
	ns.Start()
	if err := awaitReady(ns, l, hasRoutes); err != nil {
		stop(ns)
		return nil, fmt.Errorf("embedded: server %s did not start: %w", o.ServerName, err)
	}
	return ns, nil
}

// awaitReady returns when ns accepts connections. Server.ReadyForConnections would do the same in steps of 25 ms and
// keep the reason of a failure to itself. It isn't needed: Start binds all listeners before it returns but that for
// routes, and tells the logger of each that failed.
func awaitReady(ns *server.Server, l *logger, hasRoutes bool) error {
	err := l.fatal()
	if !hasRoutes {
		return err
	}
	// Also after an error: Shutdown does not close a listener that is about to be made, so wait for it.
	limit := startTimeout
	if err != nil {
		limit = 100 * time.Millisecond
	}
	bound := poll(limit, func() bool { return ns.ClusterAddr() != nil || err == nil && l.fatal() != nil })
	if err := l.fatal(); err != nil {
		return err
	}
	if !bound {
		return fmt.Errorf("no listener for routes within %v", limit)
	}
	return nil
}

func stop(ns *server.Server) {
	ns.Shutdown()
	ns.WaitForShutdown() // Shutdown returns at once if somebody else called it, such as lame duck mode
}

// poll waits until cond holds, up to limit, and says whether it did.
func poll(limit time.Duration, cond func() bool) bool {
	for end := time.Now().Add(limit); !cond(); time.Sleep(pollInterval) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
