package embedded

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
)

// Option says one thing about a server or a cluster. An option may be used for any number of them. Of two that say the
// same thing the later one counts, except that [WithUsers] adds up; a fault of either is reported.
type Option func(*settings)

// WithAddr sets the address to listen on, "host:port". A port of 0 is a random one, an empty host the loopback
// interface: to be reached from other machines, a server must be told so by "0.0.0.0:4222".
// In a cluster the first server gets the port, the second the next one, and so on.
//
// By default 127.0.0.1 and a random port.
func WithAddr(addr string) Option {
	return func(st *settings) {
		host, portText, err := net.SplitHostPort(addr)
		if err != nil {
			st.faultf("WithAddr: %w", err)
			return
		}
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil {
			st.faultf("WithAddr: %q has no port of 0 to 65535", addr)
			return
		}
		if host == "" {
			host = loopback
		}
		st.host, st.port, st.addrSet = host, int(port), true
	}
}

// WithName sets the name of the server, which must be unique among the servers it has to do with. In a cluster it is
// the cluster's name, and the servers get it with -1, -2, and so on. It must not contain spaces, slashes or control
// characters.
//
// By default, or if name is empty, a random one.
func WithName(name string) Option {
	return func(st *settings) {
		if bad := badName(name); bad != "" {
			st.faultf("WithName: %q contains %s", name, bad)
			return
		}
		st.name = name
	}
}

// WithJetStream turns JetStream on, to store its data below dir, which is made if it does not exist and kept at
// Shutdown. No two servers may use the same one at a time. If dir is empty, the data live in a directory of the
// system's for temporary files until Shutdown.
//
// In a cluster each server has a folder of its name in dir; if the data are to outlive the cluster, give the cluster a
// name ([WithName]), too.
//
// By default JetStream is off, unless the configuration text turns it on; its store_dir is then a temporary directory
// if it does not say otherwise.
func WithJetStream(dir string) Option {
	return func(st *settings) { st.jetStream, st.storeDir = true, dir }
}

// WithConfig adds NATS configuration, as of the nats-server program's file. The other options win over it.
//
// These rules protect the process and the host whatever the text says: its logging to files and to syslog is ignored
// (see [WithLogger]), there are no signal handlers, a listener whose host is not given is on 127.0.0.1 only, and a port
// for clients that is not given, or 0, is a random one. Relative paths are relative to the working directory.
//
// In a cluster the text goes for each server; where it speaks of the cluster's addresses and routes it is ignored.
//
// By default there is none.
func WithConfig(text string) Option {
	return func(st *settings) { st.text = text }
}

// WithLogger sends the server's log to l, with its name as attribute "server". Notices become Info, what would have
// ended the nats-server program [LevelFatal]; debug and trace lines ([LevelTrace]) are made only if l is enabled for
// them when the server starts. The handler is called with the server's locks held, so it must not use the server, not
// even through a connection.
//
// By default, or if l is nil, there is no log.
func WithLogger(l *slog.Logger) Option {
	return func(st *settings) { st.log = logOutput{l} }
}

// WithTLS makes the server require TLS of those who connect by socket. The configuration, which is copied, must have a
// certificate. Connections within the process may do without, being no traffic, and routes between the servers of a
// cluster are plain: they stay on the loopback interface.
//
// By default there is no TLS.
func WithTLS(c *tls.Config) Option {
	return func(st *settings) {
		if c == nil {
			st.faultf("WithTLS: nil configuration")
			return
		}
		if len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
			st.faultf("WithTLS: no certificate")
			return
		}
		st.tls = c.Clone()
	}
}

// WithMaxPayload sets the size of the largest message, header and payload, in bytes. The limit is 64 MiB, unless the
// configuration text raises max_pending.
//
// By default 1 MiB.
func WithMaxPayload(bytes int) Option {
	return func(st *settings) {
		if bytes <= 0 {
			st.faultf("WithMaxPayload: %d bytes is not a size", bytes)
			return
		}
		st.maxPayload = bytes
	}
}

// WithoutListener makes a server without a socket for clients: [Server.Connect] is the only way to it, and
// [Server.URL] is empty. Other listeners of the configuration text, such as its websocket, remain. It does not go with
// what needs the socket: WithAddr, WithTLS and clusters, be they of [StartCluster] or of the text.
//
// By default the server listens.
func WithoutListener() Option {
	return func(st *settings) { st.noListener = true }
}

// WithUsers requires every connection to be of one of the users: its password is checked, and it may do what the user
// may. Each use adds users, also to those that the configuration text lists. All belong to the global account;
// for accounts, use [WithConfig].
//
// By default everybody may connect and do everything.
func WithUsers(users ...User) Option {
	users = append([]User(nil), users...)
	return func(st *settings) {
		if len(users) == 0 {
			st.faultf("WithUsers: no users") // else a list that came out empty would open the server to all
		}
		st.users = append(st.users, users...)
	}
}

// User may connect with a name and a password.
type User struct {
	Name     string
	Password string // plain, or its bcrypt hash; must not be empty

	// What the user may publish to and subscribe to. The zero values allow everything.
	Publish   Permission
	Subscribe Permission

	// Replies allows the user to publish this many replies to each message received, wherever its reply subject is,
	// for two minutes; a negative number is no limit. Other than that, the user may publish to what Publish.Allow
	// names, and to nothing if that is nil.
	Replies int
}

// Permission is what a user may do: what Allow names, or everything if it is nil, but for what Deny names. An Allow that
// is empty without being nil allows nothing. The elements are subjects, wildcards included; for subscriptions also
// "subject queue", which is for members of that queue group only.
type Permission struct {
	Allow []string
	Deny  []string
}

// badName says what of name can't be in the name of a server, or of a folder, and is empty if the name is good.
func badName(name string) string {
	if name == "." || name == ".." {
		return "nothing but dots"
	}
	for _, r := range name {
		switch {
		case r <= ' ' || r == 0x7f:
			return "a space or control character"
		case r == '/' || r == '\\':
			return "a slash"
		}
	}
	return ""
}

func (st *settings) faultf(format string, args ...any) {
	st.faults = append(st.faults, fmt.Errorf("embedded: "+format, args...))
}
