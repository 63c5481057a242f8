package wire_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func TestGoldenFramesAreRead(t *testing.T) {
	line, h, body := golden(t, "ack")
	id, ok := wire.ReadAck(h, body)
	assert.True(t, ok && id == instance, id)
	_, subject, _ := strings.Cut(line, " ")
	c, ok := wire.ParseControl("_RPC", subject)
	assert.True(t, ok, subject)
	assert.Equal(t, c, wire.Control{Subject: controlled, Service: "svc", Instance: instance, Call: "5kD09aXcQ2n"})
	assert.Equal(t, c.Prefix(), "_RPC.svc."+instance+".c.")
	var app endpoint.Header
	assert.True(t, wire.ReadReply(h, body, &app).Err == nil && app.Len() == 0, "for who does not know acks it is no error")

	for name, calls := range map[string][]string{
		"cancel": {"00vL8bWQ3kZ", "Ae2Yt7uPq0x"}, "ping": {"00vL8bWQ3kZ", "Ae2Yt7uPq0x"}, "beat": {"Ae2Yt7uPq0x"}, "unknown": nil,
	} {
		_, h, body := golden(t, name)
		assert.Equal(t, wire.ReadControl(h), name)
		assert.Equal(t, slices.Collect(wire.Calls(body)), calls, name)
		_, ok := wire.ReadAck(h, body)
		assert.True(t, !ok, name)
	}
}

func TestControlSubjects(t *testing.T) {
	for _, subject := range []string{
		"", "_RPC", "_RPC.", "_RPC.svc.id.c.", "_RPC.svc.id.c", "_RPC.svc.id.e.x", "_RPC.svc.id.c.x.y", "_RPC.svc.id.c.*", "_RPC.svc.*.c.x",
		"_RPC.svc.>.c.x", "_RPC..id.c.x", "_RPC.svc..c.x", "_RPC.s vc.id.c.x", "_RPC.svc.id.c.x\r\nPUB", "_RPCX.svc.id.c.x", "x_RPC.svc.id.c.x",
		"$JS.API.STREAM.DELETE.ORDERS", "svc.add", "_INBOX.x.c.y", "_R_", "_R_.", "_R_.a..b", "_R_.>", "_R_.a.*", "_R_.$JS x", "_R_X.a",
		"_RPC.svc.id.c." + strings.Repeat("x", 65), "_RPC.svc." + strings.Repeat("x", 65) + ".c.x", "_R_." + strings.Repeat("x", 512), "_RPC.svc.id.c.é",
	} {
		c, ok := wire.ParseControl("_RPC", subject)
		assert.True(t, !ok, subject, c.Subject)
	}
	for subject, want := range map[string]wire.Control{
		"_RPC.svc.id.c.x": {Subject: "_RPC.svc.id.c.x", Service: "svc", Instance: "id", Call: "x"},
		"_R_.abc.def":     {Subject: "_R_.abc.def"},
	} {
		c, ok := wire.ParseControl("_RPC", subject)
		assert.True(t, ok, subject)
		assert.Equal(t, c, want)
	}
	_, ok := wire.ParseControl("$MY", "$MY.svc.id.c.x")
	assert.True(t, ok, "another root")
	assert.Equal(t, wire.Direct("_RPC", "svc", "id", "svc.add"), "_RPC.svc.id.e.svc.add")
}

func TestCallNames(t *testing.T) {
	for _, call := range []uint64{0, 1, 61, 62, math.MaxUint64} {
		name := string(wire.AppendCall(nil, call))
		got, ok := wire.ParseCall(name)
		assert.True(t, ok && got == call && len(name) == 11, name)
	}
	for _, name := range []string{"", "x", "0000000000", "000000000000", "zzzzzzzzzzz", "0000000000é", "00000\n00000"} {
		_, ok := wire.ParseCall(name)
		assert.True(t, !ok, name)
	}
	many := []byte(strings.Repeat("abc\n", 1000))
	assert.Equal(t, len(slices.Collect(wire.Calls(many))), wire.MaxCalls)
	for body, n := range map[string]int{"": 0, "a": 1, "a\nb": 2, "a\nb\n": 2, "a\n\nb": 1, "\na": 0, "a\r\nb": 0, "a b": 0, "a\n\x00": 1, strings.Repeat("x", 65): 0} {
		assert.Equal(t, len(slices.Collect(wire.Calls([]byte(body)))), n, body)
	}
}

// What is an ack has nothing else to say, and names who has the call in a word.
func TestAcksAreToldFromReplies(t *testing.T) {
	for name, c := range map[string]struct {
		h    wire.Headers
		body string
		ok   bool
		id   string
	}{
		"an ack":             {h: wire.WriteAck("id"), ok: true, id: "id"},
		"any case":           {h: wire.Headers{"rpc-ACK": {" id "}}, ok: true, id: "id"},
		"the first":          {h: wire.Headers{"Rpc-Ack": {"id", "other"}}, ok: true, id: "id"},
		"with more headers":  {h: wire.Headers{"Rpc-Ack": {"id"}, "X": {"y"}}, ok: true, id: "id"},
		"nobody":             {h: wire.Headers{"Rpc-Ack": {""}}, ok: true},
		"no word":            {h: wire.Headers{"Rpc-Ack": {"a.b"}}, ok: true},
		"no value":           {h: wire.Headers{"Rpc-Ack": {}}},
		"a reply":            {h: wire.WriteAck("id"), body: "x"},
		"an error":           {h: wire.Headers{"Rpc-Ack": {"id"}, "rpc-code": {"internal"}}},
		"a foreign error":    {h: wire.Headers{"Rpc-Ack": {"id"}, "Nats-Service-Error-Code": {"500"}}},
		"a foreign line":     {h: wire.Headers{"Rpc-Ack": {"id"}, "Nats-Service-Error": {"x"}}},
		"no headers":         {},
		"nobody's responder": {h: wire.Headers{"Status": {"503"}, "Nats-Subject": {"x"}}},
	} {
		id, ok := wire.ReadAck(c.h, []byte(c.body))
		assert.True(t, ok == c.ok && id == c.id, name, id)
	}
}

func FuzzControl(f *testing.F) {
	seeds(f, func(text string) {
		head, body, _ := strings.Cut(text, "\n\n")
		line, _, _ := strings.Cut(head, "\n")
		f.Add(line[strings.LastIndexByte(line, ' ')+1:], text, []byte(body))
	})
	f.Add("_R_.x", "\nNATS/1.0\nrpc-ctl: ping\nRPC-CTL: beat", []byte("a\nb\n\nc"))
	f.Fuzz(func(t *testing.T, subject, text string, body []byte) {
		h := headersOf(text)
		thrifty(t, len(subject)+len(text)+len(body), func() {
			if c, ok := wire.ParseControl("_RPC", subject); ok {
				below := strings.HasPrefix(subject, "_RPC.") || strings.HasPrefix(subject, "_R_.")
				if !below || c.Subject != subject || strings.ContainsAny(subject, " *>\r\n\t") || c.Prefix()+c.Call != subject || len(subject) > endpoint.MaxSubject {
					t.Fatalf("%q is taken for %+v", subject, c)
				}
			}
			if id, ok := wire.ReadAck(h, body); strings.ContainsAny(id, ".*> \r\n") || ok && len(body) > 0 {
				t.Fatalf("an ack of %q", id)
			}
			if v := wire.ReadControl(h); v != wire.ReadControl(h) {
				t.Fatal("two readings differ")
			}
			n := 0
			for call := range wire.Calls(body) {
				if n++; n > wire.MaxCalls || call == "" || len(call) > 64 || strings.ContainsAny(call, ".*> \r\n~") {
					t.Fatalf("call %d is %q", n, call)
				}
				if id, ok := wire.ParseCall(call); ok && string(wire.AppendCall(nil, id)) != call {
					t.Fatalf("%q is not %d", call, id)
				}
			}
		})
	})
}
