package bus_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// stick makes the way to the server take some bytes and then nothing.
func stick(n *bustest.Net, link string) {
	n.Link(link).Up.Window(64 << 10)
	n.Link(link).Up.Freeze()
}

// Row 23: what can't be written waits up to a bound, and beyond it calls are told so at once, not after a minute.
func TestRow23StuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, callers = 64 << 10, 500
		n, service, caller := far(t)
		var ran atomic.Int32
		serve(t, service, "svc.len", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			ran.Add(1)
			return []byte(fmt.Sprint(len(r))), nil
		}))
		stick(n, "caller")
		call := echoer(caller, "svc.len")
		var refused, lost atomic.Int32
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
				defer cancel()
				start := time.Now()
				_, err := call(ctx, make([]byte, size))
				if endpoint.OutcomeOf(err) == endpoint.NotSent {
					e := failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonWriteBacklog, endpoint.NotSent)
					assert.True(t, e.RetryAfter > 0)
					assert.True(t, time.Since(start) <= 520*time.Millisecond, time.Since(start).String())
					refused.Add(1)
					return
				}
				failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
				assert.Equal(t, time.Since(start), 4*time.Second)
				lost.Add(1)
			})
		}
		time.Sleep(time.Second)
		assert.True(t, caller.Waiting() <= bus.MaxWaiting+size, fmt.Sprint(caller.Waiting()))
		for range 100 { // it is known by now: nobody waits
			takes(t, 0, func() {
				_, err := call(t.Context(), make([]byte, size))
				failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonWriteBacklog, endpoint.NotSent)
			})
		}
		wg.Wait()
		assert.Equal(t, refused.Load()+lost.Load(), int32(callers))
		assert.True(t, lost.Load() <= bus.MaxWaiting/size+1, fmt.Sprint(lost.Load()))
		time.Sleep(5 * time.Second) // the patience with one write: the connection is given up
		takes(t, 0, func() {
			_, err := call(t.Context(), make([]byte, size))
			failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		})
		n.Link("caller").Up.Thaw()
		time.Sleep(10 * time.Second)
		_, err := call(t.Context(), make([]byte, size))
		assert.NoError(t, err)
		assert.Equal(t, ran.Load(), int32(1))
	})
}

// A network that is slow but takes something holds callers back, and refuses none of them.
func TestSlowNetworkHoldsCallersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, callers = 256 << 10, 100 // 25 MiB in all
		n, service, caller := far(t)
		serve(t, service, "svc.len", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) { return nil, nil }))
		n.Link("caller").Up.Window(64 << 10)
		n.Link("caller").Up.Bandwidth(10 << 20)
		call := echoer(caller, "svc.len")
		start := time.Now()
		var most atomic.Int64
		each(callers, func(int) error {
			_, err := call(t.Context(), make([]byte, size))
			most.Store(max(most.Load(), int64(caller.Waiting())))
			assert.NoError(t, err)
			return nil
		})
		assert.True(t, time.Since(start) < 4*time.Second, time.Since(start).String())
		assert.True(t, most.Load() <= bus.MaxWaiting+size, fmt.Sprint(most.Load()))
		synctest.Wait()
		assert.Equal(t, caller.Waiting(), 0)
	})
}

// Who gives up waiting for room was not sent, and says why in its own words.
func TestGivingUpOnRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		serve(t, service, "svc.len", rawEndpoint(echo))
		n.Link("caller").Up.Window(32 << 10)
		n.Link("caller").Up.Bandwidth(2 << 20)
		call := echoer(caller, "svc.len")
		var wg sync.WaitGroup
		defer wg.Wait()
		for range 20 {
			wg.Go(func() { _, _ = call(t.Context(), make([]byte, 512<<10)) })
		}
		time.Sleep(time.Millisecond)
		for _, end := range []endpoint.Code{endpoint.Canceled, endpoint.DeadlineExceeded} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if end == endpoint.Canceled {
				time.AfterFunc(20*time.Millisecond, cancel)
			}
			start := time.Now()
			_, err := call(ctx, make([]byte, 512<<10))
			cancel()
			assert.ErrorIs(t, err, end)
			assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
			assert.True(t, time.Since(start) <= 100*time.Millisecond, time.Since(start).String())
		}
	})
}

// Replies that find no room wait for it: a service that is cut off for a while loses none of them.
func TestRepliesWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, callers = 512 << 10, 40 // 20 MiB in all
		n, service, caller := far(t)
		serve(t, service, "svc.big", rawEndpoint(func(context.Context, []byte) ([]byte, error) { return make([]byte, size), nil }))
		n.Link("service").Up.Window(64 << 10)
		n.Link("service").Up.Bandwidth(8 << 20)
		call := echoer(caller, "svc.big")
		each(callers, func(int) error {
			reply, err := call(t.Context(), nil)
			assert.NoError(t, err)
			assert.Equal(t, len(reply), size)
			return nil
		})
		assert.True(t, service.Waiting() <= bus.MaxWaiting+size)
	})
}

// slowDialer dials when it is let.
type slowDialer struct {
	dialing chan struct{}
	let     chan struct{}
}

func (d *slowDialer) Dial(network, address string) (net.Conn, error) {
	d.dialing <- struct{}{}
	<-d.let
	return net.Dial(network, address)
}

// Row 5: nobody waits while nats.go dials, although it holds its lock then.
func TestRow05NobodyWaitsForADial(t *testing.T) {
	s := bustest.Server(t)
	d := &slowDialer{dialing: make(chan struct{}, 100), let: make(chan struct{}, 100)}
	d.let <- struct{}{}
	b, err := bus.Connect(s.URL(), quiet(), quickly(), bus.WithNATS(nats.SetCustomDialer(d)))
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	<-d.dialing
	serve(t, b, "svc.echo", rawEndpoint(echo))
	call := echoer(b, "svc.echo")
	assert.NoError(t, s.Restart())
	<-d.dialing // and there it stays
	timed(t, soon, func() {
		for range 100 {
			_, err := call(t.Context(), nil)
			failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		}
	})
	close(d.let)
	assert.Eventually(t, func() bool { _, err := call(t.Context(), nil); return err == nil })
}

func TestBigAndManyOverTLS(t *testing.T) {
	server, client := certificates(t)
	s := bustest.Server(t, embedded.WithTLS(server), embedded.WithMaxPayload(8<<20))
	for name, opt := range map[string]nats.Option{
		"after INFO": nats.Secure(client),
		"with a dialer": func(o *nats.Options) error {
			o.CustomDialer = &net.Dialer{Timeout: time.Second}
			return nats.Secure(client)(o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			service, err := bus.Connect(s.URL(), quiet(), bus.WithNATS(opt))
			assert.NoError(t, err)
			t.Cleanup(func() { _ = service.Close() })
			caller, err := bus.Connect(s.URL(), quiet(), bus.WithNATS(opt))
			assert.NoError(t, err)
			t.Cleanup(func() { _ = caller.Close() })
			state, err := caller.TLSConnectionState()
			assert.NoError(t, err)
			assert.Equal(t, state.Version, uint16(tls.VersionTLS13))
			serve(t, service, "svc.echo", rawEndpoint(echo))
			call := echoer(caller, "svc.echo")
			each(20, func(i int) error {
				body := bytes.Repeat([]byte{byte(i)}, 1+i*100_000)
				got, err := call(t.Context(), body)
				for errors.Is(err, endpoint.ResourceExhausted) && endpoint.OutcomeOf(err) == endpoint.NotSent && t.Context().Err() == nil {
					got, err = call(t.Context(), body) // on a busy machine the broker reads nothing for a while
				}
				assert.NoError(t, err)
				assert.True(t, bytes.Equal(got, body))
				return nil
			})
		})
	}
}

func TestConnectByName(t *testing.T) {
	s := bustest.Server(t)
	url := strings.Replace(s.URL(), "127.0.0.1", "localhost", 1)
	for _, opts := range [][]nats.Option{nil, {nats.SkipHostLookup()}, {nats.DontRandomize()}, {nats.MultipathTCP(true)}} {
		b, err := bus.Connect(url, quiet(), bus.WithNATS(opts...))
		assert.NoError(t, err)
		assert.NoError(t, b.Close())
	}
}

// certificates makes TLS for a server on this machine, and for its clients.
func certificates(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NoError(t, err)
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	assert.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	assert.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
}
