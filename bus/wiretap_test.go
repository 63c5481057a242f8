package bus_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

// wiretap hears everything that is published in an account, and holds it against what may be.
type wiretap struct {
	nc    *nats.Conn
	roots []string // of instances that are there, with the dot

	mu     sync.Mutex
	heard  int
	faults []string
}

// listen begins to listen. The ids are those of instances of service svc.
func listen(t testing.TB, s *embedded.Server, ids ...string) *wiretap {
	t.Helper()
	w := &wiretap{nc: foreign(t, s)}
	for _, id := range ids {
		w.roots = append(w.roots, "_RPC.svc."+id+".")
	}
	sub, err := w.nc.Subscribe(">", w.hear)
	assert.NoError(t, err)
	assert.NoError(t, sub.SetPendingLimits(-1, -1))
	assert.NoError(t, w.nc.Flush())
	return w
}

func (w *wiretap) hear(m *nats.Msg) {
	why := w.fault(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard++
	if why != "" && len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf("%.80q: %s: %.80q %.200v", m.Subject, why, m.Data, m.Header))
	}
}

// fault says what is wrong with a message, "" if nothing is. Strangers of our tests publish to requests' subjects, to roots and
// to inboxes, so that whatever else is heard is the bus's doing; and they never publish what looks like a reply of ours
// anywhere but to an inbox.
func (w *wiretap) fault(m *nats.Msg) string {
	answer := m.Header.Get("Nats-Service-Error") != "" || m.Header.Get("Rpc-Ack") != "" && m.Reply != "" || strings.HasPrefix(string(m.Data), `{"Sum"`) ||
		strings.HasPrefix(string(m.Data), `{"type":"io.nats.micro`)
	switch {
	case strings.HasPrefix(m.Subject, "_RI."), strings.HasPrefix(m.Subject, "_INBOX."):
		return ""
	case answer:
		return "a reply where no caller listens"
	case strings.HasPrefix(m.Subject, "svc."), strings.HasPrefix(m.Subject, "$SRV."):
		return ""
	case strings.HasPrefix(m.Subject, "_RPC."):
		for _, root := range w.roots {
			if strings.HasPrefix(m.Subject, root) {
				return ""
			}
		}
		return "an instance that there is none of"
	}
	return "nobody publishes there"
}

// end checks what was heard. What is published after it was called is not.
func (w *wiretap) end(t testing.TB, publishers ...*nats.Conn) {
	t.Helper()
	for _, nc := range publishers {
		assert.NoError(t, nc.FlushTimeout(10*time.Second))
	}
	assert.NoError(t, w.nc.FlushTimeout(10*time.Second))
	sub := w.nc.NewInbox() // the tap's own: when it has heard this, it has heard all
	n := w.count()
	assert.NoError(t, w.nc.Publish(sub, nil))
	assert.Eventually(t, func() bool { return w.count() > n })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.faults {
		t.Error(f)
	}
	t.Logf("%d messages heard", w.heard)
}

func (w *wiretap) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

func TestWiretapHears(t *testing.T) {
	service, _, s := pair(t)
	for subject, wrong := range map[string]bool{
		"$JS.API.STREAM.DELETE.ORDERS": true, "$SYS.x": true, "trap": true, "_RPC.svc.i9.c.x": true, "_RPC.svc." + service.ID() + ".c.x": false,
		"svc.add": false, "_RI.cli.x": false,
	} {
		w := listen(t, s, service.ID())
		nc := foreign(t, s)
		assert.NoError(t, nc.Publish(subject, nil))
		assert.NoError(t, nc.Flush())
		assert.Eventually(t, func() bool { return w.count() > 0 }, subject)
		w.mu.Lock()
		assert.Equal(t, len(w.faults) > 0, wrong, subject)
		w.mu.Unlock()
	}
	for _, m := range []*nats.Msg{
		{Subject: "svc.add", Data: []byte(`{"Sum":3}`)},
		{Subject: "svc.add", Header: nats.Header{"Nats-Service-Error": {"x"}}},
		{Subject: "$SRV.PING", Data: []byte(`{"type":"io.nats.micro.v1.ping_response"}`)},
	} {
		assert.True(t, (&wiretap{}).fault(m) != "", m.Subject)
	}
}
