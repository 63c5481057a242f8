package bustest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
)

// bySocket is whether the tests go over sockets wherever they don't care.
func bySocket() bool { return os.Getenv("POSTBUS_TEST_TCP") != "" }

// unheard makes a server without a socket, except where the tests go over sockets.
func unheard() embedded.Option {
	if bySocket() {
		return embedded.WithAddr("127.0.0.1:0")
	}
	return embedded.WithoutListener()
}

// connect is bustest.Connect, but over a socket where the tests go over sockets and the server has one for everybody.
func connect(t testing.TB, s *embedded.Server, opts ...bus.Option) *bus.Bus {
	t.Helper()
	if bySocket() && strings.HasPrefix(s.URL(), "nats://") {
		opts = append([]bus.Option{bus.WithNATS(socket(s))}, opts...)
	}
	return bustest.Connect(t, s, opts...)
}

// socket has a connection go to a server over its socket, and to no other, as in process.
func socket(s *embedded.Server) nats.Option {
	return func(o *nats.Options) error {
		o.InProcessServer, o.Url, o.IgnoreDiscoveredServers = nil, s.URL(), true
		return nil
	}
}

// alone is a bus on a server of its own, as bustest.New makes it.
func alone(t testing.TB, opts ...bus.Option) *bus.Bus {
	t.Helper()
	return connect(t, bustest.Server(t, unheard()), opts...)
}
