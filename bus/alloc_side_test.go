package bus_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// TestAllocCaller counts what a call allocates at its caller's, with nobody else in the process: of the client library the
// message, its subject and its bytes.
func TestAllocCaller(t *testing.T) {
	if eager() {
		t.Skip("it counts the allocations of calls that go alone")
	}
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := newBroker(t)
	b, err := bus.Connect(p.url(), bus.WithCodec(codec.Raw), quiet())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	echo := endpoint.Caller[[]byte, []byte](b, "svc.echo", endpoint.Timeout(1e12))
	body := []byte("hello")
	n := allocations(func() {
		got, err := echo(t.Context(), body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatal(got, err)
		}
	})
	t.Logf("a call allocates %.2f times at its caller's", n)
	assert.True(t, n < 3.1)
}

// TestAllocService is the same for who serves: the context, and of the client library the message, both its subjects and its
// bytes.
func TestAllocService(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := newBroker(t)
	b, err := bus.Connect(p.url(), bus.WithCodec(codec.Raw), quiet())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.echo", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) { return r, nil }))
	request := p.request()
	n, size := allocated(func() { p.call(request) })
	t.Logf("a call allocates %.2f times where it is served, %.0f bytes", n, size)
	assert.True(t, n < 5.1)
	assert.True(t, size < 270)
}

// broker speaks as much of a broker's part as one connection needs, and allocates nothing while it does. A request it
// answers itself, with its own bytes.
type broker struct {
	l       net.Listener
	conn    net.Conn
	inboxes map[string]string // sids, by subject without its .*
	echo    string            // the sid of svc.echo
	out     []byte
	done    chan struct{} // has an element when a reply came
}

func newBroker(t testing.TB) *broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	p := &broker{l: l, inboxes: map[string]string{}, out: make([]byte, 0, 4096), done: make(chan struct{}, 1)}
	t.Cleanup(func() { _ = l.Close() })
	go p.run()
	return p
}

func (p *broker) url() string { return "nats://" + p.l.Addr().String() }

func (p *broker) run() {
	var err error
	if p.conn, err = p.l.Accept(); err != nil {
		return
	}
	defer func() { _ = p.conn.Close() }()
	_, _ = io.WriteString(p.conn, `INFO {"server_id":"p","version":"2.10.0","headers":true,"max_payload":1048576,"proto":1}`+"\r\n")
	in := bufio.NewReaderSize(p.conn, 64<<10)
	for err == nil {
		var line []byte
		if line, err = in.ReadSlice('\n'); err == nil {
			err = p.take(bytes.TrimRight(line, "\r\n"), in)
		}
	}
}

func (p *broker) take(line []byte, in *bufio.Reader) error {
	switch {
	case bytes.HasPrefix(line, []byte("PING")):
		_, err := io.WriteString(p.conn, "PONG\r\n")
		return err
	case bytes.HasPrefix(line, []byte("SUB ")):
		f := bytes.Fields(line)
		subject, sid := string(f[1]), string(f[len(f)-1])
		p.inboxes[strings.TrimSuffix(subject, ".*")] = sid
		if subject == "svc.echo" {
			p.echo = sid
		}
	case bytes.HasPrefix(line, []byte("PUB ")):
		return p.publish(line[len("PUB "):], in)
	case bytes.HasPrefix(line, []byte("HPUB ")):
		return p.told(line[len("HPUB "):], in)
	}
	return nil
}

// told takes what has headers: an ack, which says where to reply; or the answer to a call in a frame that was acked, as on a busy
// machine.
func (p *broker) told(line []byte, in *bufio.Reader) error {
	n := 0
	for _, d := range line[bytes.LastIndexByte(line, ' ')+1:] {
		n = 10*n + int(d-'0')
	}
	_, err := in.Discard(n + len("\r\n"))
	if bytes.Count(line, []byte(" ")) == 2 {
		p.answered()
	}
	return err
}

// answered says that a reply came.
func (p *broker) answered() {
	select {
	case p.done <- struct{}{}:
	default: // one answer in several messages
	}
}

// publish answers a request, and counts a reply.
func (p *broker) publish(line []byte, in *bufio.Reader) error {
	at := bytes.LastIndexByte(line, ' ')
	n := 0
	for _, d := range line[at+1:] {
		n = 10*n + int(d-'0')
	}
	_, reply, asked := bytes.Cut(line[:at], []byte(" "))
	if !asked {
		_, err := in.Discard(n + len("\r\n"))
		p.answered()
		return err
	}
	prefix := reply[:bytes.LastIndexByte(reply, '.')]
	p.out = append(append(append(p.out[:0], "MSG "...), reply...), ' ')
	p.out = append(append(p.out, p.inboxes[string(prefix)]...), line[at:]...)
	p.out = append(p.out, "\r\n"...)
	body := len(p.out)
	p.out = p.out[:body+n+len("\r\n")]
	if _, err := io.ReadFull(in, p.out[body:]); err != nil {
		return err
	}
	_, err := p.conn.Write(p.out)
	return err
}

// call sends a request and waits for its reply.
func (p *broker) call(request []byte) {
	_, _ = p.conn.Write(request)
	<-p.done
}

// request is one for svc.echo, as a caller of ours sends it.
func (p *broker) request() []byte {
	token := wire.AppendToken(wire.AppendID(nil, 1, 1), &wire.Request{
		HasTimeout: true, Timeout: time.Minute, HasSent: true, Sent: time.Now().UnixMilli(), MediaType: codec.Raw.Name(), Ack: true,
	})
	return fmt.Appendf(nil, "MSG svc.echo %s peer.inbox.%s 5\r\nhello\r\n", p.echo, token)
}
