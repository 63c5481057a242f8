package bus_test

import (
	"bufio"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// rawPublish publishes what no client library would: a block of headers as it is given.
func rawPublish(s *embedded.Server, subject, reply, block, body string) error {
	c, err := s.InProcessConn()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	lines := bufio.NewReader(c)
	if _, err := lines.ReadString('\n'); err != nil { // INFO
		return err
	}
	if _, err = fmt.Fprintf(c, "CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB %s %s %d %d\r\n%s%s\r\nPING\r\n",
		subject, reply, len(block), len(block)+len(body), block, body); err != nil {
		return err
	}
	_, err = lines.ReadString('\n') // PONG: it has been taken
	return err
}

// garbled are blocks that the client library hands over as if there were no headers at all.
var garbled = []string{
	"NATS/1.0\r\nRpc-Timeout: 0m\r\nno colon\r\n\r\n",
	"NATS/1.0 5\r\n\r\n",
	"GARBAGE!\r\nX: 1\r\n\r\n",
	"NATS/1.0\r\nX: 1\r\n",
}

func TestGarbledHeadersAreNotNone(t *testing.T) {
	service, caller, s := pair(t)
	var ran atomic.Int32
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		return add(ctx, r)
	}))
	nc := foreign(t, s)
	inbox, err := nc.SubscribeSync(nc.NewInbox())
	assert.NoError(t, err)
	assert.NoError(t, nc.Flush())
	ask := func(block string) *nats.Msg {
		t.Helper()
		assert.NoError(t, rawPublish(s, "svc.add", inbox.Subject, block, `{"A":1,"B":2}`))
		m, err := inbox.NextMsg(10 * time.Second)
		assert.NoError(t, err)
		return m
	}
	for i, block := range garbled {
		m := ask(block)
		assert.Equal(t, m.Header.Get("Rpc-Code"), "invalid_argument", block)
		assert.Equal(t, m.Header.Get("Rpc-Reason"), "malformed_header", block)
		assert.Equal(t, m.Header.Get("Rpc-Outcome"), "not_executed", block)
		assert.Equal(t, own(service).Malformed, uint64(i+1))
	}
	assert.Equal(t, ran.Load(), int32(0))
	assert.Equal(t, string(ask("NATS/1.0\r\n\r\n").Data), `{"Sum":3}`, "an empty block is none")

	for i, block := range garbled {
		subject := fmt.Sprintf("svc.add%d", i)
		respond(t, nc, subject, func(m *nats.Msg) { _ = rawPublish(s, m.Reply, "", block, `{"Sum":3}`) })
		_, err := adder(caller, subject)(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Internal, endpoint.ReasonProtocol, endpoint.MaybeExecuted)
		assert.Equal(t, own(caller).Malformed, uint64(i+1))
	}

	respond(t, nc, "$SRV.INFO", func(m *nats.Msg) {
		_ = rawPublish(s, m.Reply, "", garbled[0], `{"type":"io.nats.micro.v1.info_response","name":"x","id":"x","version":"1.0.0"}`)
	})
	found, err := caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 1, "ours alone")
	assert.Equal(t, own(caller).Malformed, uint64(len(garbled)+1))
}
