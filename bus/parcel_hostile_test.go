package bus_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

const evilControl = "_RPC.svc.evil.c.abc"

// announced is an announcement of a reply of so many bytes.
func announced(size string, kv ...string) wire.Headers {
	h := wire.Headers{wire.Open: {"evil"}, wire.SizeHeader: {size}}
	for i := 0; i < len(kv); i += 2 {
		h[kv[i]] = []string{kv[i+1]}
	}
	return h
}

// evilReply answers calls to svc.evil as a hostile service: what it says is published with the control subject as Reply where it opens
// something; after the caller accepts it sends the rest. It tells of cancels.
func evilReply(t *testing.T, evil *nats.Conn, first wire.Headers, then frames) (cancels chan bool) {
	t.Helper()
	cancels = make(chan bool, 10)
	var to string
	respond(t, evil, "_RPC.svc.evil.>", func(m *nats.Msg) {
		switch m.Header.Get(wire.Ctl) {
		case wire.VerbCancel:
			cancels <- true
		case wire.VerbWindow:
			if m.Reply == "" || to == "" {
				return
			}
			to = ""
			for _, f := range then {
				again := ""
				if f.h[wire.Open] != nil {
					again = evilControl
				}
				_ = evil.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: again, Header: nats.Header(maps.Clone(f.h)), Data: []byte(f.body)})
			}
		}
	})
	respond(t, evil, "svc.evil", func(m *nats.Msg) {
		to = m.Reply
		_ = evil.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: evilControl, Header: nats.Header(maps.Clone(first))})
	})
	return cancels
}

// heavy adds headers that nobody asked for.
func heavy(h wire.Headers) wire.Headers {
	h = maps.Clone(h)
	h["X-Heavy"] = []string{strings.Repeat("x", 2<<10)}
	return h
}

// Whatever a service sends in the place of a large reply: the call ends with an error that says so, executed, the service is told to
// stop, and nothing stays behind.
func TestHostileLargeReplies(t *testing.T) {
	item := itemFrame
	for name, c := range map[string]struct {
		first  wire.Headers
		then   frames
		code   endpoint.Code
		reason string
		after  time.Duration
	}{
		"too large":           {announced("1048577"), nil, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, 0},
		"absurd":              {announced("4611686018427387904"), nil, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, 0},
		"no number":           {announced("-1"), nil, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"an unknown encoding": {announced("9", "Content-Encoding", "br"), nil, endpoint.Internal, endpoint.ReasonMediaType, 0},
		"a gap":               {announced("9"), frames{{item(1), "abc"}, {item(3), "ghi"}}, endpoint.DataLoss, "", 0},
		"a chunk twice":       {announced("9"), frames{{item(1), "abc"}, {item(1), "abc"}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"an empty chunk":      {announced("9"), frames{{item(1), ""}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"more than announced": {announced("9"), frames{{item(1), "abcdefghij"}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"no S2":               {announced("9", "Content-Encoding", "s2"), frames{{item(1), "\xff\xff\xff\xff\x7f"}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"an S2 bomb":          {announced("9", "Content-Encoding", "s2"), frames{{item(1), "\x80\x80\x80\x40\x00"}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"headers for nothing": {announced("9"), frames{{heavy(item(1)), "abc"}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"another open":        {announced("9"), frames{{announced("8"), ""}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"an error after all":  {announced("9"), frames{{item(1), "abc"}, {refusalHeaders(), "{}"}}, endpoint.NotFound, "", 0},
		"an open once more":   {announced("9"), frames{{item(1), "abc"}, {announced("9"), ""}, {refusalHeaders(), "{}"}}, endpoint.NotFound, "", 0},
		"silence":             {announced("9"), frames{{item(1), "abc"}}, endpoint.Unavailable, endpoint.ReasonInstanceSilent, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				caller, evil := n.Connect("caller", quiet(), bus.WithMaxMessage(mib)), n.Dial("evil")
				cancels := evilReply(t, evil, c.first, c.then)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				_, err := echoer(caller, "svc.evil")(ctx, nil)
				outcome := endpoint.Executed
				if name == "no number" {
					outcome = endpoint.MaybeExecuted
				}
				failed(t, err, c.code, c.reason, outcome)
				assert.True(t, time.Since(start) <= c.after+2*time.Second, time.Since(start).String())
				time.Sleep(time.Minute)
				synctest.Wait()
				if e := c.reason; c.code != endpoint.NotFound && name != "no number" {
					assert.Equal(t, len(cancels), 1, e)
				}
				assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched(), 0)
				assert.Equal(t, caller.Free(), int64(4*mib))
			})
		})
	}
}

func refusalHeaders() wire.Headers {
	return wire.Headers{wire.Code: {"not_found"}, wire.ServiceError: {"none"}, wire.ServiceCode: {"404"}}
}

// A reply that is announced to a caller that did not ask for such, or with a subject where no instance can be, is nobody's.
func TestLargeReplyUnasked(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	for subject, control := range map[string]string{"svc.unasked": evilControl, "svc.elsewhere": "$JS.API.STREAM.DELETE.x"} {
		respond(t, nc, subject, func(m *nats.Msg) {
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: control, Header: nats.Header(announced("9"))})
		})
		timed(t, soon, func() {
			_, err := echoer(caller, subject)(t.Context(), nil)
			assert.ErrorIs(t, err, endpoint.Internal)
		})
	}
}

// Whatever a caller sends in the place of a large request: it is told, nothing is executed, and nothing stays behind.
func TestHostileLargeRequests(t *testing.T) {
	item := itemFrame
	for name, c := range map[string]struct {
		size, encoding string
		opens          bool
		then           frames
		code, reason   string
		after          time.Duration
	}{
		"too large":           {"1048577", "", false, nil, "resource_exhausted", endpoint.ReasonRequestTooLarge, 0},
		"no number":           {"0", "", false, nil, "invalid_argument", endpoint.ReasonMalformedHeader, 0},
		"an unknown encoding": {"9", "br", false, nil, "invalid_argument", endpoint.ReasonMediaType, 0},
		"a gap":               {"9", "", true, frames{{item(2), "abc"}}, "data_loss", "", 0},
		"a chunk twice":       {"9", "", true, frames{{item(1), "abc"}, {item(1), "abc"}}, "invalid_argument", endpoint.ReasonProtocol, 0},
		"an empty chunk":      {"9", "", true, frames{{item(1), ""}}, "invalid_argument", endpoint.ReasonProtocol, 0},
		"more than announced": {"9", "", true, frames{{item(1), "abcdefghij"}}, "invalid_argument", endpoint.ReasonProtocol, 0},
		"a bomb":              {"9", "s2", true, frames{{item(1), "\x80\x80\x80\x40\x00"}}, "invalid_argument", endpoint.ReasonProtocol, 0},
		"an end":              {"9", "", true, frames{{wire.WriteHalf(1), ""}}, "invalid_argument", endpoint.ReasonProtocol, 0},
		"no number of one":    {"9", "", true, frames{{wire.Headers{"Rpc-Seq": {"x"}}, "a"}}, "invalid_argument", endpoint.ReasonProtocol, 0},
		"a cancel":            {"9", "", true, frames{{item(1), "abc"}, {wire.WriteControl(wire.VerbCancel), ""}}, "canceled", "", 0},
		"silence":             {"9", "", true, frames{{item(1), "abc"}}, "unavailable", endpoint.ReasonInstanceSilent, 15 * time.Second},
		"nothing":             {"9", "", true, nil, "unavailable", endpoint.ReasonInstanceSilent, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				service, evil := n.Connect("service", quiet(), bus.WithMaxMessage(mib)), n.Dial("evil")
				serve(t, service, "svc.put", rawEndpoint(func(context.Context, []byte) ([]byte, error) {
					t.Error("it was executed")
					return nil, nil
				}))
				prefix, next := inbox(t, evil)
				start := time.Now()
				h := nats.Header{wire.SizeHeader: {c.size}, wire.Timeout: {"1H"}, wire.ContentType: {"application/octet-stream"}}
				if c.encoding != "" {
					h[wire.Encoding] = []string{c.encoding}
				}
				assert.NoError(t, evil.PublishMsg(&nats.Msg{Subject: "svc.put", Reply: prefix + "x", Header: h}))
				m := next()
				if c.opens {
					assert.Equal(t, m.Header.Get(wire.Open), service.ID())
					for _, f := range c.then {
						assert.NoError(t, evil.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(maps.Clone(f.h)), Data: []byte(f.body)}))
					}
					for m = next(); m.Header.Get(wire.Ctl) != ""; { // credit, once more
						m = next()
					}
				}
				assert.Equal(t, m.Header.Get(wire.Code), c.code, fmt.Sprint(m.Header))
				assert.Equal(t, m.Header.Get(wire.Reason), c.reason)
				assert.Equal(t, m.Header.Get(wire.OutcomeHeader), "not_executed")
				assert.True(t, time.Since(start) <= c.after+2*time.Second, time.Since(start).String())
				synctest.Wait()
				assert.Equal(t, service.Streams()+service.Acked(), 0)
				assert.Equal(t, service.Free(), int64(4*mib))
			})
		})
	}
}

// Many announcements that nothing follows hold no more than the room there is, and the calls of others go on.
func TestLargeAnnouncementsAreNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service, caller, evil := n.Connect("service", quiet(), bus.WithMaxMessage(mib)), n.Connect("caller", quiet()), n.Dial("evil")
		serve(t, service, "svc.put", rawEndpoint(echo))
		prefix, _ := inbox(t, evil)
		for i := range 500 {
			h := nats.Header{wire.SizeHeader: {"1048576"}, wire.Timeout: {"1H"}, wire.ContentType: {"application/octet-stream"}}
			assert.NoError(t, evil.PublishMsg(&nats.Msg{Subject: "svc.put", Reply: fmt.Sprint(prefix, i), Header: h}))
		}
		_, err := echoer(caller, "svc.put")(t.Context(), []byte("x"))
		assert.NoError(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, service.Streams(), 0)
		assert.Equal(t, service.Free(), int64(4*mib))
		assert.Equal(t, statsOf(t, service, "svc.put").InFlight, int64(0))
	})
}

// Who sends a byte now and then does not hold room for hours: a request that comes too slowly is refused.
func TestLargeRequestTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service, evil := n.Connect("service", quiet(), bus.WithMaxMessage(mib)), n.Dial("evil")
		serve(t, service, "svc.put", rawEndpoint(echo))
		prefix, next := inbox(t, evil)
		h := nats.Header{wire.SizeHeader: {"1048576"}, wire.Timeout: {"1H"}, wire.ContentType: {"application/octet-stream"}}
		start := time.Now()
		assert.NoError(t, evil.PublishMsg(&nats.Msg{Subject: "svc.put", Reply: prefix + "x", Header: h}))
		to, ended := next().Reply, make(chan bool)
		go func() {
			for seq := uint64(1); ; seq++ {
				select {
				case <-ended:
					return
				case <-time.After(1400 * time.Millisecond):
					_ = evil.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header(itemFrame(seq)), Data: []byte("x")})
				}
			}
		}()
		m := next()
		for m.Header.Get(wire.Ctl) != "" { // credit, once more
			m = next()
		}
		close(ended)
		assert.Equal(t, m.Header.Get(wire.Code), "unavailable")
		assert.Equal(t, m.Header.Get(wire.Reason), endpoint.ReasonInstanceSilent)
		assert.Equal(t, m.Header.Get(wire.OutcomeHeader), "not_executed")
		took := time.Since(start)
		assert.True(t, took > 30*time.Second && took < 33*time.Second, took.String())
		synctest.Wait()
		assert.Equal(t, service.Free(), int64(4*mib))
	})
}
