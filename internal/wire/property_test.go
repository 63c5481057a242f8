package wire_test

import (
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// metadata draws what a caller may say in a token.
func metadata(t *rapid.T) wire.Request {
	r := wire.Request{
		HasTimeout: rapid.Bool().Draw(t, "has timeout"),
		HasSent:    rapid.Bool().Draw(t, "has sent"),
		MediaType:  rapid.SampledFrom([]string{"", "application/proto", "application/cbor", "application/octet-stream"}).Draw(t, "media"),
		Ack:        rapid.Bool().Draw(t, "ack"),
		Tell:       rapid.Bool().Draw(t, "tell"),
		Trace:      rapid.OneOf(rapid.Just(""), rapid.StringMatching(`00-[0-9a-f]{31}[1-9a-f]-[1-9a-f][0-9a-f]{15}-[0-9a-f]{2}`)).Draw(t, "trace"),
	}
	if r.HasTimeout {
		r.Timeout = time.Duration(rapid.Int64Range(0, int64(wire.MaxTimeout)).Draw(t, "timeout"))
	}
	if rapid.Bool().Draw(t, "takes chunks") {
		r.MaxReply, r.TakesS2 = rapid.Uint64Range(1, 1<<62).Draw(t, "max reply"), rapid.Bool().Draw(t, "takes s2")
	}
	if r.HasSent {
		r.Sent = rapid.Int64Range(0, 1<<43-1).Draw(t, "sent")
	}
	return r
}

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := metadata(t)
		slot := rapid.IntRange(0, wire.MaxSlots-1).Draw(t, "slot")
		secret := rapid.Uint64().Draw(t, "secret")
		token := string(wire.AppendToken(wire.AppendID(nil, slot, secret), &want))
		if len(token) > wire.MaxToken {
			t.Fatalf("%q has %d bytes", token, len(token))
		}
		gotSlot, gotSecret, ok := wire.ParseID(token)
		if !ok || gotSlot != slot || gotSecret != secret {
			t.Fatalf("%q: slot %d of %d, secret %d of %d", token, gotSlot, slot, gotSecret, secret)
		}
		var got wire.Request
		if ownToken(token, &got) != (want != wire.Request{}) {
			t.Fatalf("%q is read wrongly", token)
		}
		want.Own = got.Own
		near(t, &want, &got)
		if got != want {
			t.Fatalf("%q\ngot  %+v\nwant %+v", token, got, want)
		}
	})
}

func TestHeadersSayWhatTokensSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := metadata(t)
		h := wire.Headers{}
		wire.WriteRequest(h, &want)
		var byHeader, byToken wire.Request
		var app endpoint.Header
		if err := wire.ReadRequest(h, &byHeader, &app); err != nil {
			t.Fatal(err)
		}
		if err := wire.ParseToken(tokenOf(&want), &byToken); err != nil {
			t.Fatal(err)
		}
		byHeader.Own = byToken.Own
		if byHeader != byToken {
			t.Fatalf("header %+v\ntoken  %+v", byHeader, byToken)
		}
	})
}

func TestErrorRoundTrip(t *testing.T) {
	reasons := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z][a-z0-9_]{0,40}`))
	detail := rapid.Custom(func(t *rapid.T) endpoint.Detail {
		d := endpoint.Detail{Type: rapid.StringMatching(`[a-z]{1,8}\.[A-Z][a-zA-Z]{1,12}`).Draw(t, "type"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value")}
		if len(d.Value) == 0 {
			d.Value = nil
		}
		return d
	})
	rapid.Check(t, func(t *rapid.T) {
		want := endpoint.Code(rapid.IntRange(1, 16).Draw(t, "code")).New(rapid.String().Draw(t, "message"))
		for _, d := range rapid.SliceOfN(detail, 0, 8).Draw(t, "details") {
			want = want.With(d)
		}
		want = want.WithReason(reasons.Draw(t, "reason")).
			WithOutcome(rapid.SampledFrom([]endpoint.Outcome{endpoint.Executed, endpoint.NotExecuted}).Draw(t, "outcome")).
			WithRetryAfter(time.Duration(rapid.OneOf(rapid.Just(int64(0)), rapid.Just(int64(-time.Second)),
				rapid.Int64Range(0, math.MaxInt64/2)).Draw(t, "retry")))
		h := wire.Headers{}
		body, err := wire.WriteError(h, want)
		if err != nil {
			t.Fatal(err)
		}
		var app endpoint.Header
		got := wire.ReadReply(h, body, &app).Err
		if want.RetryAfter > 0 { // rounded down
			lost := want.RetryAfter - got.RetryAfter
			if lost < 0 || lost > 0 && lost >= grain(want.RetryAfter) {
				t.Fatalf("retry after %v became %v", want.RetryAfter, got.RetryAfter)
			}
			got = got.WithRetryAfter(want.RetryAfter)
		}
		if want = want.AsRemote(); !reflect.DeepEqual(got, want) || app.Len() != 0 {
			t.Fatalf("got  %#v\nwant %#v", got, want)
		}
	})
}

// The trace of a token is one number of base 62, whatever the way it is worked out.
func TestTraceIsOneNumber(t *testing.T) {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	rapid.Check(t, func(t *rapid.T) {
		r := wire.Request{Trace: rapid.StringMatching(`00-[0-9a-f]{31}[1-9a-f]-[1-9a-f][0-9a-f]{15}-[0-9a-f]{2}`).Draw(t, "trace")}
		token := string(wire.AppendToken(nil, &r))
		got := new(big.Int)
		for _, d := range token[len("~t"):] {
			got.Add(got.Mul(got, big.NewInt(62)), big.NewInt(int64(strings.IndexRune(digits, d))))
		}
		want, _ := new(big.Int).SetString(strings.ReplaceAll(r.Trace[len("00-"):], "-", ""), 16)
		if got.Cmp(want) != 0 {
			t.Fatalf("%s is %x, want %x", token, got, want)
		}
	})
}
