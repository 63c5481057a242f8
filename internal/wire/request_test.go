package wire_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func readRequest(h wire.Headers, token string) (wire.Request, endpoint.Header, *endpoint.Error) {
	var r wire.Request
	var app endpoint.Header
	if err := wire.ParseToken(token, &r); err != nil {
		return r, app, err
	}
	err := wire.ReadRequest(h, &r, &app)
	return r, app, err
}

func TestRequestHeaders(t *testing.T) {
	said := wire.Request{HasTimeout: true, Timeout: time.Second}
	for name, c := range map[string]struct {
		h    wire.Headers
		want wire.Request
	}{
		"none":            {nil, wire.Request{}},
		"exact":           {wire.Headers{"Rpc-Timeout": {"1S"}}, said},
		"lower":           {wire.Headers{"rpc-timeout": {"1S"}}, said},
		"upper":           {wire.Headers{"RPC-TIMEOUT": {"1S"}}, said},
		"space":           {wire.Headers{"Rpc-Timeout": {" 1S\t"}}, said},
		"expired":         {wire.Headers{"Rpc-Timeout": {"0n"}}, wire.Request{HasTimeout: true}},
		"clamped":         {wire.Headers{"Rpc-Timeout": {"99999999H"}}, wire.Request{HasTimeout: true, Timeout: wire.MaxTimeout}},
		"no values":       {wire.Headers{"Rpc-Timeout": {}}, wire.Request{}},
		"unknown":         {wire.Headers{"Rpc-Future": {"1", "2"}, "rpc-future": {"3"}, "Rpc-": {""}}, wire.Request{}},
		"the broker's":    {wire.Headers{"Nats-Trace-Dest": {"x"}, "nats-": {""}, "Status": {"503"}, "description": {"x"}}, wire.Request{}},
		"media type":      {wire.Headers{"content-type": {"text/csv; charset=utf-8"}}, wire.Request{MediaType: "text/csv; charset=utf-8"}},
		"no media type":   {wire.Headers{"Content-Type": {""}}, wire.Request{}},
		"told otherwise":  {wire.Headers{"Rpc-Tell": {"weather"}}, wire.Request{}},
		"attempt":         {wire.Headers{"Rpc-Attempt": {"2147483647"}}, wire.Request{Attempt: 1<<31 - 1}},
		"stream":          {wire.Headers{"Rpc-Stream": {"sideways"}}, wire.Request{Stream: "sideways"}},
		"latest sent":     {wire.Headers{"Rpc-Sent": {"8796093022207"}}, wire.Request{HasSent: true, Sent: 1<<43 - 1}},
		"sampled trace":   {wire.Headers{"Traceparent": {sampled}}, wire.Request{Trace: sampled}},
		"malformed trace": {wire.Headers{"traceparent": {"00-x"}}, wire.Request{}},
		"repeated trace":  {wire.Headers{"traceparent": {trace, trace}}, wire.Request{}},
		"spelled twice":   {wire.Headers{"traceparent": {trace}, "Traceparent": {sampled}}, wire.Request{}},
	} {
		got, _, err := readRequest(c.h, "")
		assert.True(t, err == nil, name)
		assert.Equal(t, got, c.want, name)
	}
}

func TestHeaderWinsOverToken(t *testing.T) {
	token := tokenOf(&full)
	got, _, err := readRequest(wire.Headers{
		"rpc-timeout": {"7S"}, "RPC-Sent": {"5"}, "Content-type": {"application/json"}, "Rpc-Ack": {"1"}, "Rpc-Tell": {"nothing"},
		"TraceParent": {sampled},
	}, token)
	assert.True(t, err == nil)
	assert.Equal(t, got, wire.Request{
		Own: true, HasTimeout: true, Timeout: 7 * time.Second, HasSent: true, Sent: 5,
		MediaType: "application/json", Ack: true, Trace: sampled, MaxReply: 64 << 20, TakesS2: true,
	})

	got, _, err = readRequest(wire.Headers{"Content-Type": {""}, "traceparent": {"garbage"}, "X-Other": {"1"}}, token)
	assert.True(t, err == nil)
	assert.Equal(t, got.MediaType, full.MediaType, "an empty type says nothing")
	assert.Equal(t, got.Trace, full.Trace, "a bad trace says nothing")
}

func TestMalformedHeadersAreRefused(t *testing.T) {
	for name, h := range map[string]wire.Headers{
		"timeout":                {"Rpc-Timeout": {"soon"}},
		"empty timeout":          {"Rpc-Timeout": {""}},
		"timeout, other case":    {"rpc-timeout": {"-1S"}},
		"nine digits":            {"Rpc-Timeout": {"100000000m"}},
		"sent":                   {"Rpc-Sent": {"yesterday"}},
		"sent before 1970":       {"Rpc-Sent": {"-1"}},
		"signed":                 {"Rpc-Sent": {"+1"}},
		"sent in base 36":        {"Rpc-Sent": {"mjuohs3f"}},
		"sent beyond the clock":  {"Rpc-Sent": {"8796093022208"}},
		"sent, overflow":         {"Rpc-Sent": {strings.Repeat("9", 40)}},
		"ack":                    {"Rpc-Ack": {"yes"}},
		"attempt":                {"Rpc-Attempt": {"-1"}},
		"attempt, overflow":      {"Rpc-Attempt": {"2147483648"}},
		"empty stream":           {"Rpc-Stream": {""}},
		"twice":                  {"Rpc-Timeout": {"1S", "2S"}},
		"twice the same":         {"Rpc-Timeout": {"1S", "1S"}},
		"twice in two spellings": {"Rpc-Timeout": {"1S"}, "rpc-timeout": {"1S"}},
		"two media types":        {"Content-Type": {"application/json"}, "content-type": {"application/proto"}},
		"a long one":             {"Rpc-Timeout": {strings.Repeat("x", 8000)}},
	} {
		_, _, err := readRequest(h, id+"~d1S")
		if err == nil {
			t.Errorf("%s is accepted", name)
			continue
		}
		assert.Equal(t, err.Code, endpoint.InvalidArgument, name)
		assert.Equal(t, err.Reason(), endpoint.ReasonMalformedHeader, name)
		assert.Equal(t, err.Outcome(), endpoint.NotExecuted, name)
		assert.True(t, len(err.Message) < 600, name)
	}
}

func TestRequestHeaderLimits(t *testing.T) {
	fits := wire.Headers{"X": {strings.Repeat("x", 4000)}, "Y": {strings.Repeat("y", 4182)}}
	assert.Equal(t, wire.Size(fits), endpoint.MaxHeaderBytes)
	_, app, err := readRequest(fits, "")
	assert.True(t, err == nil && app.Len() == 2, "8 KiB")

	for name, h := range map[string]wire.Headers{
		"a byte more":    {"X": {strings.Repeat("x", 4000)}, "Y": {strings.Repeat("y", 4183)}},
		"many, not much": {"X": slices.Repeat([]string{""}, 513)},
	} {
		_, _, err := readRequest(h, "")
		assert.True(t, err != nil, name)
		assert.Equal(t, err.Code, endpoint.InvalidArgument, name)
		assert.Equal(t, err.Reason(), endpoint.ReasonHeaderTooLarge, name)
		assert.Equal(t, err.Outcome(), endpoint.NotExecuted, name)
	}
}

// TestApplicationHeadersPass keeps spelling, repetition and order by name.
func TestApplicationHeadersPass(t *testing.T) {
	for range 20 { // the order of a map changes
		_, app, err := readRequest(wire.Headers{
			"x-b": {"3"}, "X-B": {"1", "2"}, "Accept": {"text/csv"}, "traceparent": {trace}, "Rpc-Attempt": {"1"}, "Nats-Msg-Id": {"1"},
		}, "")
		assert.True(t, err == nil)
		var got []string
		for name, v := range app.All() {
			got = append(got, name+"="+v)
		}
		assert.Equal(t, got, []string{"Accept=text/csv", "X-B=1", "X-B=2", "traceparent=" + trace, "x-b=3"})
	}
}

func TestWriteRequest(t *testing.T) {
	for name, r := range map[string]wire.Request{
		"nothing":   {},
		"a bad day": {HasSent: true, Sent: -1, Trace: "00-\r\nRpc-Timeout: 1S"},
	} {
		h := wire.Headers{}
		wire.WriteRequest(h, &r)
		assert.Equal(t, h, wire.Headers{}, name)
	}
	h := wire.Headers{}
	wire.WriteRequest(h, &wire.Request{MediaType: wire.JSONType, HasTimeout: true})
	assert.Equal(t, h, wire.Headers{"Content-Type": {"application/json"}, "Rpc-Timeout": {"0m"}})
}

func TestWriteAppGivesWayToTheTrace(t *testing.T) {
	var app endpoint.Header
	app.Add("X-A", "1")
	app.Add("X-A", "2")
	app.Add("Traceparent", trace)
	h := wire.Headers{}
	wire.WriteApp(h, &app)
	assert.Equal(t, h, wire.Headers{"X-A": {"1", "2"}, "Traceparent": {trace}})

	h = wire.Headers{wire.TraceParent: {sampled}}
	wire.WriteApp(h, &app)
	assert.Equal(t, h, wire.Headers{"X-A": {"1", "2"}, "traceparent": {sampled}})
}
