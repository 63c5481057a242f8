package wire_test

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func TestGoldenStreamsAreRead(t *testing.T) {
	granted := wire.Grant{Messages: 96, Bytes: 270_336}
	for name, want := range map[string]wire.Frame{
		"stream_open":    {Kind: wire.OpenFrame, Instance: instance},
		"stream_item":    {Kind: wire.ItemFrame, Seq: 1},
		"stream_upload":  {Kind: wire.ItemFrame, Seq: 1, MediaType: "text/csv"},
		"stream_window":  {Kind: wire.WindowFrame, Grant: granted, Granted: true},
		"stream_beat":    {Kind: wire.BeatFrame, Seq: 32},
		"stream_listens": {Kind: wire.BeatFrame, Grant: granted, Granted: true},
		"stream_half":    {Kind: wire.HalfFrame, Count: 3, Counted: true},
		"stream_end":     {Kind: wire.EndFrame, Count: 3, Counted: true},
		"stream_failed":  {Kind: wire.EndFrame, Count: 32, Counted: true, Err: errStream.AsRemote()},
		"cancel":         {Kind: wire.CancelFrame},
		"unknown":        {Kind: wire.UnknownFrame},
		"ping":           {Kind: wire.PingFrame},
		"reply_success":  {Kind: wire.ReplyFrame},
		"reply_instance": {Kind: wire.ReplyFrame, MediaType: "text/csv"},
		"reply_foreign":  {Kind: wire.EndFrame, Err: endpoint.NotFound.New("no such order").WithOutcome(endpoint.Executed).AsRemote()},
	} {
		_, h, body := golden(t, name)
		var app, trailer endpoint.Header
		got := wire.ReadFrame(h, body, &app, &trailer)
		assert.Equal(t, got, want, name)
		assert.Equal(t, trailer.Get("lines"), map[bool]string{true: "3"}[name == "stream_end"], name)
	}
}

func TestFramesThatCantBeRead(t *testing.T) {
	for name, h := range map[string]wire.Headers{
		"no number":         {"Rpc-Seq": {"one"}},
		"a sign":            {"Rpc-Seq": {"+1"}},
		"zero":              {"Rpc-Seq": {"0"}},
		"too large":         {"Rpc-Seq": {"18446744073709551615"}},
		"no number, others": {"Rpc-Seq": {""}, "X": {"y"}},
		"nobody's open":     {"Rpc-Open": {""}},
		"a bad instance":    {"Rpc-Open": {"a.b"}},
		"no window":         {"Rpc-Ctl": {"window"}},
		"half a window":     {"Rpc-Ctl": {"window"}, "Rpc-Window": {"64"}},
		"a bad window":      {"Rpc-Ctl": {"window"}, "Rpc-Window": {"64;-1"}},
		"a beat of nothing": {"Rpc-Ctl": {"beat"}},
		"a beat, bad grant": {"Rpc-Ctl": {"beat"}, "Rpc-Seq": {"0"}, "Rpc-Window": {"x"}},
		"a bad half":        {"Rpc-Ctl": {"end"}, "Rpc-End": {"x"}},
		"a bad end":         {"Rpc-End": {"-1"}},
	} {
		var app, trailer endpoint.Header
		assert.Equal(t, wire.ReadFrame(h, nil, &app, &trailer).Kind, wire.BadFrame, name)
	}
	var app, trailer endpoint.Header
	assert.Equal(t, wire.ReadFrame(wire.WriteOpen("x"), []byte("y"), &app, &trailer).Kind, wire.BadFrame, "an open with a body")
	assert.Equal(t, wire.ReadFrame(wire.WriteControl("dance"), nil, &app, &trailer).Kind, wire.IgnoredFrame)
	assert.Equal(t, wire.ReadFrame(nil, nil, &app, &trailer).Kind, wire.IgnoredFrame)
}

func TestStreamRequestHeaders(t *testing.T) {
	for _, bad := range []wire.Headers{
		{"Rpc-Window": {""}},
		{"Rpc-Window": {"64"}},
		{"Rpc-Window": {"65537;1"}},
		{"Rpc-Window": {"1;67108865"}},
		{"Rpc-Window": {"1;1;1"}},
		{"Rpc-Heartbeat": {"4999m"}},
		{"Rpc-Heartbeat": {"61S"}},
		{"Rpc-Heartbeat": {"soon"}},
		{"Rpc-Heartbeat": {""}},
	} {
		var r wire.Request
		var app endpoint.Header
		err := wire.ReadRequest(bad, &r, &app)
		assert.True(t, err != nil && err.Reason() == endpoint.ReasonMalformedHeader, bad["Rpc-Window"]...)
	}
	var r wire.Request
	var app endpoint.Header
	assert.True(t, wire.ReadRequest(wire.Headers{"rpc-window": {" 0;0 "}, "RPC-HEARTBEAT": {"1M"}}, &r, &app) == nil)
	assert.Equal(t, r, wire.Request{Heartbeat: wire.MaxHeartbeat})
}

// What a line of an error can't say stands in a header, up to a limit, and beyond that the rest arrives without.
func TestDetailsOfAnEnd(t *testing.T) {
	long := endpoint.NotFound.New(strings.Repeat("x", 600)).WithOutcome(endpoint.Executed)
	huge := endpoint.NotFound.New("none").With(endpoint.Detail{Type: "a.B", Value: make([]byte, 60<<10)}).WithOutcome(endpoint.Executed)
	for name, e := range map[string]*endpoint.Error{"a long line": long, "two lines": endpoint.NotFound.New("a\nb").WithOutcome(endpoint.Executed)} {
		var app, trailer endpoint.Header
		assert.Equal(t, wire.ReadFrame(end(t, 0, e), nil, &app, &trailer).Err, e.AsRemote(), name)
	}
	var app, trailer endpoint.Header
	assert.Equal(t, wire.ReadFrame(end(t, 0, huge), nil, &app, &trailer).Err, endpoint.NotFound.New("none").WithOutcome(endpoint.Executed).AsRemote())
	assert.True(t, end(t, 0, endpoint.NotFound.New("none"))[wire.Details] == nil, "a line that says it all needs no more")
}

func TestFramesRoundTrip(t *testing.T) {
	total := rapid.Uint64Range(0, 1<<62)
	grant := rapid.Custom(func(t *rapid.T) wire.Grant {
		return wire.Grant{Messages: total.Draw(t, "m"), Bytes: total.Draw(t, "b")}
	})
	rapid.Check(t, func(t *rapid.T) {
		n, g := total.Draw(t, "n"), grant.Draw(t, "grant")
		media := rapid.SampledFrom([]string{"", "text/csv"}).Draw(t, "media")
		for _, c := range []struct {
			h    wire.Headers
			want wire.Frame
		}{
			{wire.WriteItem(max(n, 1), media), wire.Frame{Kind: wire.ItemFrame, Seq: max(n, 1), MediaType: media}},
			{wire.WriteWindow(g), wire.Frame{Kind: wire.WindowFrame, Grant: g, Granted: true}},
			{wire.WriteBeat(n, g), wire.Frame{Kind: wire.BeatFrame, Seq: n, Grant: g, Granted: g != wire.Grant{}}},
			{wire.WriteHalf(n), wire.Frame{Kind: wire.HalfFrame, Count: n, Counted: true}},
		} {
			var app, trailer endpoint.Header
			if got := wire.ReadFrame(c.h, nil, &app, &trailer); !reflect.DeepEqual(got, c.want) || app.Len()+trailer.Len() > 0 {
				t.Fatalf("%v\ngot  %+v\nwant %+v", c.h, got, c.want)
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	seeds(f, func(text string) {
		_, body, _ := strings.Cut(text, "\n\n")
		f.Add(text, []byte(body))
	})
	f.Add("\nNATS/1.0\nrpc-ctl: beat\nRPC-SEQ: 1\nRpc-Trailer-A: b\nrpc-end: 3\nRpc-Details: e30", []byte("{}"))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		h := headersOf(text)
		thrifty(t, 2*len(text)+len(body), func() {
			var app, trailer, app2, trailer2 endpoint.Header
			got := wire.ReadFrame(h, body, &app, &trailer)
			if again := wire.ReadFrame(maps.Clone(h), body, &app2, &trailer2); !reflect.DeepEqual(got, again) || !reflect.DeepEqual(trailer, trailer2) {
				t.Fatalf("two readings differ: %+v, %+v", got, again)
			}
			if got.Kind == wire.ItemFrame && (got.Seq == 0 || got.Seq > math.MaxInt64) || got.Grant.Messages > 1<<62 || got.Count > 1<<62 {
				t.Fatalf("%+v", got)
			}
			if got.Err != nil && got.Kind != wire.EndFrame || strings.ContainsAny(got.Instance, ".*> ") {
				t.Fatalf("%+v", got)
			}
			names := slices.Sorted(maps.Keys(h))
			for name := range trailer.All() {
				if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, wire.TrailerPrefix+name) }) {
					t.Fatalf("trailer %q is nobody's", name)
				}
			}
		})
	})
}
