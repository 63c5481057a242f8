package wire_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// publisher is a connection of nats.go to a broker that only takes notes: what nats.go makes of a message on the wire.
type publisher struct {
	nc     *nats.Conn
	blocks chan []byte // the header blocks of what was published
}

// InProcessConn makes a connection for nats.go; see nats.InProcessServer.
func (p *publisher) InProcessConn() (net.Conn, error) {
	client, server := net.Pipe()
	go p.note(server)
	return client, nil
}

// note plays the broker until the connection ends.
func (p *publisher) note(c net.Conn) {
	defer close(p.blocks)
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	if _, err := io.WriteString(c, `INFO {"server_id":"x","version":"2.14.3","proto":1,"headers":true,"max_payload":1048576}`+"\r\n"); err != nil {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		var subject string
		var head, total int
		switch {
		case strings.HasPrefix(line, "PING"):
			if _, err := io.WriteString(c, "PONG\r\n"); err != nil {
				return
			}
		case strings.HasPrefix(line, "HPUB"):
			if _, err := fmt.Sscanf(line, "HPUB %s %d %d", &subject, &head, &total); err != nil {
				return
			}
			b := make([]byte, total+2)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			p.blocks <- b[:head]
		}
	}
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{blocks: make(chan []byte, 1)}
	nc, err := nats.Connect("", nats.InProcessServer(p), nats.NoReconnect(), nats.Timeout(5*time.Second))
	assert.NoError(t, err)
	p.nc = nc
	t.Cleanup(func() {
		nc.Close()
		for range p.blocks { // until the broker left
		}
	})
	return p
}

// through sends headers through nats.go's writer and reader.
func (p *publisher) through(t *testing.T, h wire.Headers) wire.Headers {
	t.Helper()
	assert.NoError(t, p.nc.PublishMsg(&nats.Msg{Subject: "x", Header: nats.Header(h), Data: []byte("body")}))
	assert.NoError(t, p.nc.Flush())
	got, err := nats.DecodeHeadersMsg(<-p.blocks)
	assert.NoError(t, err)
	return wire.Headers(got)
}

// TestNATSCarriesHeaders sends what is written here through nats.go, byte for byte: nothing may change on the way.
func TestNATSCarriesHeaders(t *testing.T) {
	p := newPublisher(t)
	for _, message := range []string{
		"", "plain", " spaced ", "two\nlines", "a: b", "\r\nRpc-Outcome: not_executed\r\n\r\n", "é\u2028\u0085", "bad \xff", strings.Repeat("é", 600), "\x00\x7f\t",
	} {
		for code := endpoint.Canceled; code <= endpoint.Unauthenticated; code++ {
			e := code.New(message).With(endpoint.Detail{Type: "a.B", Value: []byte{1}}).WithReason("backlog_full").
				WithOutcome(endpoint.NotExecuted).WithRetryAfter(time.Second)
			h := wire.Headers{}
			body, err := wire.WriteError(h, e)
			assert.NoError(t, err)
			got := p.through(t, h)
			assert.Equal(t, got, h, message)
			var app endpoint.Header
			assert.Equal(t, wire.ReadReply(got, body, &app), wire.ReadReply(h, body, &app))
		}
	}

	h := wire.Headers{}
	wire.WriteRequest(h, &full)
	var app endpoint.Header
	app.Add("X-Empty", "")
	app.Add("X-Twice", "1")
	app.Add("X-Twice", "2")
	wire.WriteApp(h, &app)
	assert.Equal(t, p.through(t, h), h)
}

// TestNATSReadsNoResponders takes the broker's line as nats.go decodes it.
func TestNATSReadsNoResponders(t *testing.T) {
	for block, want := range map[string]bool{
		"NATS/1.0 503\r\nNats-Subject: svc.add\r\n\r\n":               true,
		"NATS/1.0 503 No Responders\r\nNats-Subject: svc.add\r\n\r\n": true,
		"NATS/1.0 503\r\n\r\n":                                        false,
		"NATS/1.0\r\nStatus: 503\r\n\r\n":                             false,
		"NATS/1.0 503\r\nStatus: 503\r\nNats-Subject: x\r\n\r\n":      false,
		"NATS/1.0 408 Request Timeout\r\nNats-Subject: x\r\n\r\n":     false,
	} {
		h, err := nats.DecodeHeadersMsg([]byte(block))
		assert.NoError(t, err)
		var app endpoint.Header
		r := wire.ReadReply(wire.Headers(h), nil, &app)
		assert.Equal(t, r.Err != nil && r.Err.Reason() == endpoint.ReasonNoResponders, want, block)
	}
}
