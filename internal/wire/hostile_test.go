package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// hostileErrors are error bodies of n parts that ask a decoder for much more memory than they have bytes.
var hostileErrors = map[string]func(n int) string{
	"empty details":    func(n int) string { return `{"code":"x","details":[` + strings.Repeat("{},", n) + `{}]}` },
	"numbers":          func(n int) string { return `{"code":"x","details":[` + strings.Repeat("0,", n) + `0]}` },
	"nulls":            func(n int) string { return `{"code":"x","details":[` + strings.Repeat("null,", n) + `0]}` },
	"repeated members": func(n int) string { return `{` + strings.Repeat(`"code":0,`, n) + `"code":"x"}` },
	"unknown members":  func(n int) string { return `{` + strings.Repeat(`"é":0,`, n) + `"code":"x"}` },
	"escaped members":  func(n int) string { return `{` + strings.Repeat(`"\u0061":0,`, n) + `"code":"x"}` },
	"repeated details": func(n int) string { return `{` + strings.Repeat(`"details":[{},{}],`, n) + `"code":"x"}` },
	"members of one": func(n int) string {
		return `{"code":"x","details":[{` + strings.Repeat(`"type":0,`, n) + `"type":"x"}]}`
	},
	"bad UTF-8": func(n int) string { return `{"code":"x","message":"` + strings.Repeat("\xff", n) + `"}` },
	"escapes":   func(n int) string { return `{"code":"x","message":"` + strings.Repeat(`\ud800`, n) + `"}` },
	"a big value": func(n int) string {
		return `{"code":"x","details":[{"type":"x","value":"` + strings.Repeat(`A`, n) + `"}]}`
	},
	"escaped value": func(n int) string {
		return `{"code":"x","details":[{"type":"x","value":"` + strings.Repeat(`\u0041`, n) + `"}]}`
	},
	"a big debug": func(n int) string {
		return `{"code":"x","details":[{"type":"x","value":"","debug":[` + strings.Repeat(`{},`, n) + `{}]}]}`
	},
	"deep":      func(n int) string { return strings.Repeat("[", n) },
	"deep in":   func(n int) string { return `{"details":` + strings.Repeat(`[`, n) },
	"not ended": func(n int) string { return `{"code":"` + strings.Repeat("x", n) },
	"quotes":    func(n int) string { return strings.Repeat(`"`, n) },
	"slashes":   func(n int) string { return `{"code":"` + strings.Repeat(`\`, n) },
}

// TestHostileRepliesTakeLittle holds what is promised of every parser: no more memory than four times the input and 64 KiB.
func TestHostileRepliesTakeLittle(t *testing.T) {
	for name, body := range hostileErrors {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{250, 300, 3_000, 30_000} {
				b := []byte(body(n))
				h := wire.Headers{wire.Code: {"aborted"}, wire.ServiceError: {"x"}}
				var app endpoint.Header
				var r wire.Reply
				thrifty(t, len(b), func() { r = wire.ReadReply(h, b, &app) })
				assert.Equal(t, r.Err.Code, endpoint.Aborted)
				thrifty(t, len(b), func() { wire.IsPubAck(b) })
			}
		})
	}
}

func TestHostileHeadersTakeLittle(t *testing.T) {
	many := wire.Headers{}
	for i := range 100_000 {
		many[fmt.Sprint(i)] = []string{""}
	}
	several := wire.Headers{}
	for i := range 512 {
		several[fmt.Sprint(i)] = []string{""}
	}
	for name, h := range map[string]wire.Headers{
		"names":           many,
		"names that fit":  several,
		"values":          {"X": slices.Repeat([]string{""}, 100_000)},
		"values that fit": {"X": slices.Repeat([]string{""}, 512)},
		"long":            {"Rpc-Timeout": {strings.Repeat("\x00", 8000)}},
		"longer":          {"Rpc-Timeout": {strings.Repeat("9", 1<<20)}},
		"a long name":     {"Rpc-" + strings.Repeat("é", 1<<20): {""}},
		"a long error":    {wire.ServiceError: {strings.Repeat("\xff", 1<<20)}, wire.Code: {strings.Repeat("x", 1<<20)}, wire.Reason: {strings.Repeat("x", 1<<20)}},
		"a long subject":  {"Status": {"503"}, "Nats-Subject": {strings.Repeat("x", 1<<20)}},
	} {
		t.Run(name, func(t *testing.T) {
			var app, app2 endpoint.Header
			var r wire.Request
			thrifty(t, max(wire.Size(h), 512), func() { wire.ReadRequest(h, &r, &app) })
			thrifty(t, max(wire.Size(h), 512), func() { wire.ReadReply(h, nil, &app2) })
		})
	}
}

func TestHostileTokensTakeLittle(t *testing.T) {
	for name, token := range map[string]string{
		"long":        strings.Repeat("a", 1<<20),
		"many pairs":  id + strings.Repeat("~x", 1<<20),
		"many tildes": strings.Repeat("~", 1<<20),
		"full":        id + strings.Repeat("~x", 72),
		"media":       id + "~m" + strings.Repeat("m", 140),
		"malformed":   id + "~d" + strings.Repeat("m", 140),
	} {
		t.Run(name, func(t *testing.T) {
			var r wire.Request
			thrifty(t, max(len(token), 512), func() { _ = wire.ParseToken(token, &r) })
			thrifty(t, max(len(token), 512), func() { _, _, _ = wire.ParseID(token) })
			thrifty(t, max(len(token), 512), func() { wire.ParseTimeout(token) })
		})
	}
}
