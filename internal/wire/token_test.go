package wire_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

const id = "0007063UfDVRKBz"

// ownToken reads a token and reports whether it is one of this protocol, without a fault.
func ownToken(token string, r *wire.Request) bool {
	r.Own = false
	return wire.ParseToken(token, r) == nil && r.Own
}

func TestTokenIsRead(t *testing.T) {
	own := func(change func(*wire.Request)) wire.Request {
		r := wire.Request{Own: true}
		change(&r)
		return r
	}
	timeout := func(d time.Duration) wire.Request {
		return own(func(r *wire.Request) { r.HasTimeout, r.Timeout = true, d })
	}
	for token, want := range map[string]wire.Request{
		id + "~d1500m":                      timeout(1500 * time.Millisecond),
		id + "~d0S":                         timeout(0),
		id + "~d99999999H":                  timeout(wire.MaxTimeout),
		"abcdefghijkl~d1S":                  timeout(time.Second), // an id of another making
		strings.Repeat("a", 90) + "~d1S":    timeout(time.Second),
		id + "~s0":                          own(func(r *wire.Request) { r.HasSent = true }),
		id + "~sMJUOHS3F":                   own(func(r *wire.Request) { r.HasSent, r.Sent = true, 1767225600123 }),
		id + "~mp":                          own(func(r *wire.Request) { r.MediaType = "application/proto" }),
		id + "~mc":                          own(func(r *wire.Request) { r.MediaType = "application/cbor" }),
		id + "~mr":                          own(func(r *wire.Request) { r.MediaType = "application/octet-stream" }),
		id + "~mz":                          own(func(r *wire.Request) { r.MediaType = "unknown/z" }), // never taken for JSON
		id + "~mpp":                         own(func(r *wire.Request) { r.MediaType = "unknown/pp" }),
		id + "~a1~i1":                       own(func(r *wire.Request) { r.Ack, r.Tell = true, true }),
		id + "~a~i":                         own(func(r *wire.Request) { r.Ack, r.Tell = true, true }),
		id + "~a2~i0":                       {Own: true},
		id + "~x":                           {Own: true}, // unknown keys
		id + "~x1~xyz~d1S~y":                timeout(time.Second),
		id + "~t123":                        {Own: true}, // bad traces are no traces
		id + "~t" + strings.Repeat("0", 34): {Own: true},
		id + "~t" + strings.Repeat("z", 34): {Own: true},
	} {
		got := wire.Request{Stream: "left over"}
		assert.True(t, ownToken(token, &got), token)
		assert.Equal(t, got, want, token)
	}
}

func TestForeignTokensSayNothing(t *testing.T) {
	for _, token := range []string{
		"", "~", "Zk4pN8sD", id, id + "~", id + "~~d1S", id + "~d1S~", "~d1S", "abcdefghijk~d1S", id + "~D1S", id + "~1", id + "~d1.S",
		id + "~d1S~é", "0007063UfDVR-Bz~d1S", id + " ~d1S", id + "~s-1",
		strings.Repeat("a", 160) + "~d1S", id + "~x" + strings.Repeat("a", 200), "abcdefghijkl\x00~d1S",
		"abcdefghijk~dsoon", id + "~dsoon~", id + "~d1S~d1S~D", // malformed besides, but nobody's
	} {
		before := wire.Request{Timeout: 5, Stream: "kept"}
		got := before
		assert.True(t, wire.ParseToken(token, &got) == nil, token)
		assert.Equal(t, got, before, token)
	}
}

// What has the form of a token of ours and can't be read is refused, as a header is: a deadline must not be lost in silence.
func TestMalformedTokensAreRefused(t *testing.T) {
	for pairs, bad := range map[string]string{
		"~d": "d", "~dS": "dS", "~d1": "d1", "~d1s": "d1s", "~d123456789m": "d123456789m", "~d1SS": "d1SS", "~dsoon": "dsoon",
		"~s": "s", "~szzzzzzzzz": "szzzzzzzzz", "~s99999999999999": "s99999999999999", "~m": "m",
		"~d1S~d2S": "d2S", "~d1S~d1S": "d1S", "~a~a": "a", "~mp~mp": "mp", "~i1~i1": "i1", "~t1~t1": "t1",
		"~x~i1~dsoon~x~s": "dsoon",
	} {
		got := wire.Request{Timeout: 5, Stream: "left over"}
		err := wire.ParseToken(id+pairs, &got)
		assert.True(t, err != nil, pairs)
		assert.Equal(t, err.Code, endpoint.InvalidArgument, pairs)
		assert.Equal(t, err.Reason(), endpoint.ReasonMalformedHeader, pairs)
		assert.Equal(t, err.Outcome(), endpoint.NotExecuted, pairs)
		assert.Contains(t, err.Message, `"`+bad+`"`)
		assert.Equal(t, got, wire.Request{Own: true, Tell: strings.Contains(pairs, "~i1")}, pairs)
	}
}

func TestLongestToken(t *testing.T) {
	r := full
	r.Timeout, r.Sent = wire.MaxTimeout, 1<<43-1
	token := string(wire.AppendToken(wire.AppendID(nil, wire.MaxSlots-1, math.MaxUint64), &r))
	assert.True(t, len(token) <= wire.MaxToken, token)
	var got wire.Request
	assert.True(t, ownToken(token, &got), token)

	fits := id + "~x" + strings.Repeat("a", wire.MaxToken-len(id)-2)
	assert.True(t, ownToken(fits, &got), "160 bytes")
	assert.True(t, !ownToken(fits+"a", &got), "161 bytes")
}

func TestTokenLeavesOutWhatItCanNotSay(t *testing.T) {
	for name, r := range map[string]wire.Request{
		"other media type": {MediaType: "text/csv"},
		"JSON":             {MediaType: wire.JSONType},
		"a clock of 1969":  {HasSent: true, Sent: -1},
		"a clock of 2300":  {HasSent: true, Sent: 1 << 44},
		"no trace":         {Trace: "00-x"},
		"another version":  {Trace: "01" + trace[2:]},
		"the rest":         {Attempt: 3, Stream: "bidi"},
	} {
		assert.Equal(t, tokenOf(&r), id, name)
	}
}

func TestID(t *testing.T) {
	for _, c := range []struct {
		slot   int
		secret uint64
		text   string
	}{
		{0, 0, "000000000000000"},
		{1, 1, "000100000000001"},
		{61, 61, "000z0000000000z"},
		{wire.MaxSlots - 1, math.MaxUint64, "zzzzLygHa16AHYF"},
	} {
		assert.Equal(t, string(wire.AppendID(nil, c.slot, c.secret)), c.text)
		for _, token := range []string{c.text, c.text + "~", c.text + "~d1S"} {
			slot, secret, ok := wire.ParseID(token)
			assert.True(t, ok, token)
			assert.Equal(t, slot, c.slot)
			assert.Equal(t, secret, c.secret)
		}
	}
	for _, token := range []string{"", "0", "00010000000000", "0001000000000001", "0001zzzzzzzzzzz", "0001LygHa16AHYG", "000.00000000001", "0001-0000000001", "0001000000000é"} {
		_, _, ok := wire.ParseID(token)
		assert.True(t, !ok, token)
	}
}

func TestTimeoutGrammar(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0H": 0, "0M": 0, "0S": 0, "0m": 0, "0u": 0, "0n": 0, "00000000m": 0,
		"1n": 1, "1u": time.Microsecond, "1m": time.Millisecond, "1S": time.Second, "1M": time.Minute, "1H": time.Hour,
		"007S": 7 * time.Second, "99999999n": 99999999, "99999999S": 99999999 * time.Second,
		"76861433M": 76861433 * time.Minute, "76861434M": wire.MaxTimeout, "99999999M": wire.MaxTimeout,
		"1281023H": 1281023 * time.Hour, "1281024H": wire.MaxTimeout, "99999999H": wire.MaxTimeout,
	} {
		got, ok := wire.ParseTimeout(text)
		assert.True(t, ok, text)
		assert.Equal(t, got, want, text)
	}
	for _, text := range []string{"", "m", "1", "10", "123456789m", "-1m", "+1m", "1.5S", "1ms", "1s", "1h", " 1m", "1m ", "1 m", "1_0m", "٣m", "0x1m", "1\x00"} {
		_, ok := wire.ParseTimeout(text)
		assert.True(t, !ok, text)
	}
}

func TestTimeoutIsWritten(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0m": 0, "1n": 1, "999n": 999, "1u": 1000, "1500u": 1500 * time.Microsecond, "999999u": time.Second - 1,
		"1m": time.Millisecond, "250m": 250 * time.Millisecond, "1000m": time.Second, "1500m": 1500*time.Millisecond + 999, "99999999m": 99999999 * time.Millisecond,
		"100000S": 100000 * time.Second, "1666666M": 99999999*time.Second + time.Second, "76861433M": wire.MaxTimeout,
	} {
		assert.Equal(t, string(wire.AppendTimeout(nil, d)), want)
	}
	assert.Equal(t, string(wire.AppendTimeout([]byte("~d"), -time.Second)), "~d0m")
}

func TestTraceForm(t *testing.T) {
	for tp, sampledToo := range map[string]bool{trace: false, sampled: true, "01" + sampled[2:]: true, trace[:53] + "ff": true, trace[:53] + "fe": false} {
		assert.True(t, wire.ValidTrace(tp), tp)
		assert.Equal(t, wire.Sampled(tp), sampledToo, tp)
	}
	zeros := strings.Repeat("0", 32)
	for _, tp := range []string{
		"", "00", trace[:54], trace + "0", trace + "-x", "ff" + trace[2:], strings.ToUpper(trace), "0g" + trace[2:], "00_" + trace[3:],
		"00-" + zeros + trace[35:], trace[:36] + zeros[:16] + trace[52:], trace[:53] + "0x",
	} {
		assert.True(t, !wire.ValidTrace(tp) && !wire.Sampled(tp), tp)
	}
}

// A token has a trace exactly if it is a valid one of version 00, the only form it has room for.
func TestTokenTakesValidTracesOnly(t *testing.T) {
	for i := range len(trace) {
		for _, c := range []byte("0a-gAF \x00\xff") {
			tp := trace[:i] + string([]byte{c}) + trace[i+1:]
			token := tokenOf(&wire.Request{Trace: tp})
			assert.Equal(t, strings.Contains(token, "~t"), wire.ValidTrace(tp) && strings.HasPrefix(tp, "00-"), tp)
		}
	}
	for _, tp := range []string{"", trace[:54], trace + "-", "00-" + strings.Repeat("0", 32) + trace[35:], trace[:36] + strings.Repeat("0", 16) + trace[52:]} {
		assert.True(t, !strings.Contains(tokenOf(&wire.Request{Trace: tp}), "~t"), tp)
	}
}
