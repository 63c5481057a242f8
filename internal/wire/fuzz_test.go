package wire_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// thrifty runs f and fails when it takes more memory than hostile input may cost. Only inputs that could get there are
// measured, since measuring stops the world.
func thrifty(t testing.TB, input int, f func()) {
	t.Helper()
	if input < 512 {
		f()
		return
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4*input+64<<10); got > most {
		t.Errorf("%d bytes of input took %d bytes of memory, at most %d may be", input, got, most)
	}
}

// seeds adds the golden messages, cut by cut.
func seeds(f *testing.F, add func(text string)) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden files", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		add(string(data))
	}
}

// headersOf reads headers from fuzzed lines as nats.go reads them from the wire.
func headersOf(text string) wire.Headers {
	_, block, _ := strings.Cut(text, "\nNATS/1.0")
	block, _, _ = strings.Cut(block, "\n\n")
	h, err := nats.DecodeHeadersMsg([]byte("NATS/1.0" + strings.ReplaceAll(block, "\n", "\r\n") + "\r\n\r\n"))
	if err != nil {
		return nil
	}
	return wire.Headers(h)
}

// tokenForm is the form as docs/protocol.md has it.
var tokenForm = regexp.MustCompile(`^[0-9A-Za-z]{12,}(~[a-z][0-9A-Za-z]*)+$`)

func FuzzToken(f *testing.F) {
	seeds(f, func(text string) {
		head, _, _ := strings.Cut(text, "\n")
		f.Add(head[strings.LastIndexByte(head, '.')+1:])
	})
	for _, token := range []string{id + "~mz", id + "~a~i", id + "~x~y1", id + "~d99999999H~s0~mzz", id + "~i~dsoon", id + "~a~a", id + "~dsoon~"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		var r wire.Request
		var fault *endpoint.Error
		thrifty(t, len(token), func() { fault = wire.ParseToken(token, &r) })
		if form := len(token) <= wire.MaxToken && tokenForm.MatchString(token); form != r.Own {
			t.Fatalf("%q is taken for ours: %v", token, r.Own)
		}
		if fault != nil || !r.Own {
			if fault != nil && (!r.Own || fault.Reason() != endpoint.ReasonMalformedHeader || fault.Outcome() != endpoint.NotExecuted) {
				t.Fatalf("%q is refused with %v, %v", token, fault, fault.Outcome())
			}
			if r != (wire.Request{Own: r.Own, Tell: fault != nil && r.Tell}) {
				t.Fatalf("%q says %+v", token, r)
			}
			return
		}
		again := string(wire.AppendToken([]byte(id), &r))
		if again == id {
			return // it said nothing, or nothing that is known
		}
		var r2 wire.Request
		if !ownToken(again, &r2) {
			t.Fatalf("%q became %q, which is not ours", token, again)
		}
		if _, known := wire.MediaLetter(r.MediaType); !known {
			r.MediaType = "" // of a newer version: refused, never passed on
		}
		near(t, &r, &r2)
		if r != r2 {
			t.Fatalf("%q means %+v\n%q means %+v", token, r, again, r2)
		}
	})
}

// failer is what tests and rapid's tests have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// near evens out what writing a timeout rounds away: never more time, and less by one unit at most.
func near(t failer, r, r2 *wire.Request) {
	t.Helper()
	if lost := r.Timeout - r2.Timeout; lost < 0 || lost > 0 && lost >= grain(r.Timeout) {
		t.Fatalf("timeout %v became %v", r.Timeout, r2.Timeout)
	}
	r2.Timeout = r.Timeout
}

// grain is what a timeout is written in.
func grain(d time.Duration) time.Duration {
	const digits = 100_000_000
	switch {
	case d < time.Second:
		return time.Microsecond
	case d < digits*time.Millisecond:
		return time.Millisecond
	case d < digits*time.Second:
		return time.Second
	}
	return time.Minute
}

func FuzzID(f *testing.F) {
	for _, token := range []string{id, id + "~d1S", "zzzzLygHa16AHYF", "zzzzLygHa16AHYG", "", "~", "0001000000000é"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		slot, secret, ok := wire.ParseID(token)
		if !ok {
			return
		}
		if slot < 0 || slot >= wire.MaxSlots {
			t.Fatalf("slot %d", slot)
		}
		if again := string(wire.AppendID(nil, slot, secret)); again != token && !strings.HasPrefix(token, again+"~") {
			t.Fatalf("%q became %q", token, again)
		}
	})
}

func FuzzTimeout(f *testing.F) {
	for _, s := range []string{"0m", "1500m", "99999999H", "76861433M", "123456789m", "-1S", "1s", "9n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := wire.ParseTimeout(s)
		if !ok {
			return
		}
		if d < 0 || d > wire.MaxTimeout {
			t.Fatalf("%q is %v", s, d)
		}
		r := wire.Request{Timeout: d}
		text := string(wire.AppendTimeout(nil, d))
		r2 := wire.Request{}
		if r2.Timeout, ok = wire.ParseTimeout(text); !ok || len(text) > 9 {
			t.Fatalf("%q became %q", s, text)
		}
		near(t, &r, &r2)
	})
}

func FuzzReadRequest(f *testing.F) {
	seeds(f, func(text string) { f.Add(text, id+"~d1S~mp") })
	f.Add("\nNATS/1.0\nRpc-Timeout: 1S\nrpc-timeout: 2S\nTraceparent: x\nTRACEPARENT: y", "")
	f.Fuzz(func(t *testing.T, text, token string) {
		h := headersOf(text)
		var first, second wire.Request
		var app, app2 endpoint.Header
		_ = wire.ParseToken(token, &first) // of a malformed one little is left, which is fine
		second = first
		var err *endpoint.Error
		thrifty(t, len(text), func() { err = wire.ReadRequest(h, &first, &app) })
		err2 := wire.ReadRequest(h, &second, &app2)
		if !reflect.DeepEqual(err, err2) || first != second || !reflect.DeepEqual(app, app2) {
			t.Fatal("two readings differ")
		}
		if err != nil {
			if err.Code != endpoint.InvalidArgument || err.Outcome() != endpoint.NotExecuted || err.Reason() == "" {
				t.Fatalf("refused with %v, %v", err, err.Outcome())
			}
			return
		}
		if first.Timeout < 0 || first.Timeout > wire.MaxTimeout || first.Sent < 0 || first.Attempt < 0 {
			t.Fatalf("%+v", first)
		}
		for name := range app.All() {
			if l := strings.ToLower(name); strings.HasPrefix(l, "rpc-") || strings.HasPrefix(l, "nats-") || l == "status" || l == "content-type" {
				t.Fatalf("the application sees %q", name)
			}
		}
		rewrite(t, first)
	})
}

// rewrite checks that what was read and is written as headers is read as the same.
func rewrite(t *testing.T, r wire.Request) {
	t.Helper()
	h := wire.Headers{}
	wire.WriteRequest(h, &r)
	again := wire.Request{Own: r.Own}
	var app endpoint.Header
	if err := wire.ReadRequest(h, &again, &app); err != nil {
		t.Fatalf("%+v: %v", h, err)
	}
	near(t, &r, &again)
	if r != again {
		t.Fatalf("%+v\nbecame %+v", r, again)
	}
}

func FuzzReadReply(f *testing.F) {
	seeds(f, func(text string) {
		_, body, _ := strings.Cut(text, "\n\n")
		f.Add(text, []byte(body))
	})
	for _, h := range hostileErrors {
		f.Add("\nNATS/1.0\nRpc-Code: aborted\nRpc-Retry-After: no", []byte(h(300)))
	}
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		h := headersOf(text)
		var app, app2 endpoint.Header
		var r wire.Reply
		thrifty(t, len(text)+len(body), func() { r = wire.ReadReply(h, body, &app) })
		if again := wire.ReadReply(h, body, &app2); !reflect.DeepEqual(r, again) || !reflect.DeepEqual(app, app2) {
			t.Fatal("two readings differ")
		}
		if r.Err != nil && (r.Err.Code == endpoint.OK || r.Err.Code > endpoint.Unauthenticated || r.Err.Outcome() == endpoint.NotSent) {
			t.Fatalf("%v, %v", r.Err, r.Err.Outcome())
		}
		if strings.ContainsAny(r.Instance, ".*> \r\n") {
			t.Fatalf("instance %q", r.Instance)
		}
	})
}

// FuzzWriteError holds that what crosses can be read, and that no detail costs the message.
func FuzzWriteError(f *testing.F) {
	f.Add("no such order", "acme.Order", []byte(`{"id":7}`), uint16(3))
	f.Add("many", "t", []byte("1"), uint16(300))
	f.Add("deep", "t", []byte(strings.Repeat("[", 300)+strings.Repeat("]", 300)), uint16(1))
	f.Add("two\r\nlines \xff", "", []byte{0xff}, uint16(endpoint.MaxDetails))
	f.Add("", "{[,", []byte(`[[[{},{}],"\",["]]]`), uint16(1))
	f.Fuzz(func(t *testing.T, message, kind string, value []byte, n uint16) {
		details := make([]any, n%512)
		for i := range details {
			details[i] = endpoint.Detail{Type: kind, Value: value}
		}
		h := wire.Headers{}
		body, err := wire.WriteError(h, endpoint.Crossing(endpoint.NotFound.New(message).With(details...)))
		if err != nil {
			t.Fatal(err)
		}
		var app endpoint.Header
		e := wire.ReadReply(h, body, &app).Err
		if want := strings.ToValidUTF8(message, "\uFFFD"); e.Message != want {
			t.Fatalf("the message became %q, want %q", e.Message, want)
		}
		if got := len(e.Details); got != min(len(details), endpoint.MaxDetails) && (got != 0 || bytes.Count(value, []byte("["))+bytes.Count(value, []byte("{")) < 100) {
			t.Fatalf("%d of %d details", got, len(details))
		}
	})
}

func FuzzPubAck(f *testing.F) {
	for _, body := range []string{
		`{"stream":"A","seq":1}`, `{"stream":"A","domain":"hub","seq":1,"duplicate":true}`, `{"stream":"A","seq":1,"val":"5"}`,
		`{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"A","seq":0}`, `{"stream":"A","seq":1,"x":null}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var is bool
		thrifty(t, len(body), func() { is = wire.IsPubAck(body) })
		if !is {
			return
		}
		var ack nats.PubAck // what nats.go would take it for
		if err := json.Unmarshal(body, &ack); err != nil || ack.Stream == "" {
			t.Fatalf("%s: %v %+v", body, err, ack)
		}
	})
}
