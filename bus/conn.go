package bus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
)

// connDefaults are the settings of a connection that the bus owns.
func connDefaults(c *config) []nats.Option {
	opts := []nats.Option{
		nats.ReconnectBufSize(-1), // a request must not be sent after its caller gave up
		nats.MaxReconnects(-1),
		nats.PingInterval(2 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(5 * time.Second),
		nats.ReconnectOnFlusherError(),
		nats.IgnoreAuthErrorAbort(),
		nats.DrainTimeout(5 * time.Second),
		nats.CustomInboxPrefix(c.inboxPrefix + "." + newID()), // for those who use the connection: what may be guessed may be forged
	}
	if c.name != "" {
		opts = append(opts, nats.Name(c.name))
	}
	return opts
}

// lend gives the user's callbacks their connection, which from then on may have subscriptions of theirs, and logs what they have none
// for.
func (c *config) lend(o *nats.Options) error {
	for _, f := range []*nats.ConnHandler{&o.ConnectedCB, &o.ReconnectedCB, &o.DisconnectedCB, &o.DiscoveredServersCB, &o.LameDuckModeHandler} {
		if theirs := *f; theirs != nil {
			*f = func(nc *nats.Conn) { c.lent.Store(true); theirs(nc) }
		}
	}
	for _, f := range []*nats.ConnErrHandler{&o.DisconnectedErrCB, &o.ReconnectErrCB} {
		if theirs := *f; theirs != nil {
			*f = func(nc *nats.Conn, err error) { c.lent.Store(true); theirs(nc, err) }
		}
	}
	if theirs := o.AsyncErrorCB; theirs != nil {
		o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) { c.lent.Store(true); theirs(nc, sub, err) }
	} else {
		o.AsyncErrorCB = func(_ *nats.Conn, sub *nats.Subscription, err error) { c.grumble(sub, err) }
	}
	if o.DisconnectedErrCB == nil {
		o.DisconnectedErrCB = func(_ *nats.Conn, err error) {
			if err != nil {
				c.report(slog.LevelWarn, "nats connection lost", slog.Any("error", err))
			}
		}
	}
	if o.ReconnectedCB == nil {
		o.ReconnectedCB = func(nc *nats.Conn) {
			c.report(slog.LevelInfo, "nats connection back", slog.String("server", nc.ConnectedUrlRedacted()))
		}
	}
	return nil
}

// TLSConnectionState is what the TLS of the connection agreed on, whoever does it: Conn's method of this name knows of that
// which it does itself, and there is none on most connections that Connect makes. It fails as that does: without TLS with
// nats.ErrConnectionNotTLS, and while the connection is away with nats.ErrDisconnected.
func (b *Bus) TLSConnectionState() (tls.ConnectionState, error) {
	if o := b.up.Latest(); o != nil && b.nc.IsConnected() {
		if state, ours := o.TLS(); ours {
			return state, nil
		}
	}
	return b.nc.TLSConnectionState()
}

// redact leaves user information out of an URL, or a list of them.
func redact(url string) string {
	urls := strings.Split(url, ",")
	for i, u := range urls {
		if at := strings.LastIndexByte(u, '@'); at >= 0 {
			scheme := ""
			if s := strings.Index(u, "://"); s >= 0 && s < at {
				scheme = u[:s+3]
			}
			urls[i] = scheme + u[at+1:]
		}
	}
	return strings.Join(urls, ",")
}

// unauthenticated reports whether the broker said so: it does not know this client, or not any more. Of a certificate that
// it does not take it says so after the client's side of the handshake, by an alert or by hanging up.
func unauthenticated(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, e) {
			return true
		}
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" || errors.Is(err, nats.ErrTLS) && strings.Contains(err.Error(), "after TLS handshake")
}

// refusal is why the broker does not let this client back in, nil where it is just away. An adopted connection tells it by
// its last error; one of ours is not asked, since nats.go holds the lock of that while it dials.
func (b *Bus) refusal() error {
	if err := b.refused.Load(); err != nil {
		return *err
	}
	if b.owned {
		return nil
	}
	if err := b.nc.LastError(); unauthenticated(err) {
		return err
	}
	return nil
}

// connectError is what the broker, or the way to it, had to say to Connect and New.
func connectError(err error, doing string) error {
	code, reason := endpoint.Unavailable, endpoint.ReasonDisconnected
	switch {
	case unauthenticated(err):
		code, reason = endpoint.Unauthenticated, ""
	case errors.Is(err, nats.ErrPermissionViolation):
		code, reason = endpoint.PermissionDenied, ""
	}
	return code.Wrap(err, fmt.Sprintf("bus: %s: %v", doing, err)).WithReason(reason).WithOutcome(endpoint.NotSent)
}
