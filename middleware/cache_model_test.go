package middleware_test

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// cacheModel is what Cache does, written as simply as can be.
type cacheModel struct {
	most, entry, overhead int
	ttl                   time.Duration
	order                 []int // the most recently used last
	size                  map[int]int
	expires               map[int]time.Time
}

func (m *cacheModel) bytes() (n int) {
	for _, k := range m.order {
		n += m.size[k]
	}
	return n
}

func (m *cacheModel) drop(k int) {
	m.order = slices.DeleteFunc(m.order, func(o int) bool { return o == k })
}

// ask reports whether a key is a hit, and keeps a reply of n bytes if it is not.
func (m *cacheModel) ask(k, n int) bool {
	hit := slices.Contains(m.order, k) && time.Now().Before(m.expires[k])
	m.drop(k)
	if !hit {
		if n > m.entry || n+m.overhead > m.most {
			return false
		}
		m.size[k], m.expires[k] = n+m.overhead, time.Now().Add(m.ttl)
		for m.bytes()+m.size[k] > m.most {
			m.order = m.order[1:]
		}
	}
	m.order = append(m.order, k)
	return hit
}

// TestCacheModel: hits and misses are those of the model, in order of use and by age, and the bytes are never more than allowed.
func TestCacheModel(t *testing.T) {
	const overhead = 512
	type step struct{ key, pause int }
	rapid.Check(t, func(rt *rapid.T) {
		model := &cacheModel{
			most: rapid.IntRange(600, 4000).Draw(rt, "most"), overhead: overhead, ttl: time.Second,
			size: map[int]int{}, expires: map[int]time.Time{},
		}
		model.entry = rapid.SampledFrom([]int{1, model.most / 8, model.most}).Draw(rt, "entry")
		sizes := rapid.SliceOfN(rapid.IntRange(0, 900), 8, 8).Draw(rt, "sizes")
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.IntRange(0, 7).Draw(rt, "key"), rapid.SampledFrom([]int{0, 0, 0, 1, 300}).Draw(rt, "pause")}
		}), 1, 60).Draw(rt, "steps")
		var faults []string
		synctest.Test(t, func(t *testing.T) {
			ran := false
			call := endpoint.Caller[*addRequest, *codec.Payload](transport(func(_ context.Context, c *endpoint.Call) (any, error) {
				ran = true
				m, _ := c.Message()
				return c.SetReply([]byte(strings.Repeat("x", sizes[m.(*addRequest).A])), "text/plain", codec.NewSet())
			}), "svc.add", endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{
				MaxBytes: model.most, MaxEntry: model.entry,
				Report: func(name, _ string, v float64) {
					if name == "cache_bytes" && v > float64(model.most) {
						faults = append(faults, fmt.Sprintf("%v bytes", v))
					}
				},
			}))
			for i, s := range steps {
				ran = false
				p, err := call(t.Context(), &addRequest{A: s.key})
				hit := model.ask(s.key, sizes[s.key])
				if err != nil || len(p.Data) != sizes[s.key] || hit == ran {
					faults = append(faults, fmt.Sprintf("step %d: %v, %d bytes, hit %v, want %v", i, err, len(p.Data), !ran, hit))
				}
				time.Sleep(time.Duration(s.pause) * time.Millisecond)
			}
		})
		if len(faults) > 0 {
			rt.Fatal(faults)
		}
	})
}

// asked is one request as its receiver sees it.
type asked struct {
	subject, mediaType, body string
	header                   [][2]string
}

// normal is an asked such that two are equal if and only if they ask the same.
func (a asked) normal() asked {
	var h [][2]string
	for _, f := range a.header {
		if f[0] = strings.ToLower(f[0]); f[0] != "traceparent" {
			h = append(h, f)
		}
	}
	slices.SortStableFunc(h, func(x, y [2]string) int { return cmp.Compare(x[0], y[0]) })
	a.header = h
	return a
}

func (a asked) call() *endpoint.Call {
	c := endpoint.NewCall(endpoint.New(add, endpoint.ReadOnly()).Spec(), a.subject, endpoint.ServerSide)
	c.SetBody([]byte(a.body), a.mediaType, codec.JSON)
	for _, f := range a.header {
		c.Header.Add(f[0], f[1])
	}
	return c
}

// TestIdentityProperty: one request is answered with the reply to another if and only if they ask the same.
func TestIdentityProperty(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "a", "b", "aa", "ab", "\x01", "\x01a", "\x00"})
	name := rapid.SampledFrom([]string{"a", "A", "b", "aa", "traceparent"})
	request := rapid.Custom(func(rt *rapid.T) asked {
		a := asked{subject: word.Draw(rt, "subject"), mediaType: word.Draw(rt, "type"), body: word.Draw(rt, "body")}
		for range rapid.IntRange(0, 3).Draw(rt, "headers") {
			a.header = append(a.header, [2]string{name.Draw(rt, "name"), word.Draw(rt, "value")})
		}
		return a
	})
	rapid.Check(t, func(rt *rapid.T) {
		x := request.Draw(rt, "one")
		y := x
		switch rapid.IntRange(0, 5).Draw(rt, "what differs") {
		case 0:
			y.subject, y.mediaType = word.Draw(rt, "subject"), word.Draw(rt, "type")
		case 1:
			y.body = word.Draw(rt, "body")
		case 2, 3:
			y.header = request.Draw(rt, "headers").header
		default:
			y = request.Draw(rt, "other")
		}
		if rapid.Bool().Draw(rt, "long") { // the hash takes another way then
			x.body, y.body = strings.Repeat("x", 512)+x.body, strings.Repeat("x", 512)+y.body
		}
		if same := reflect.DeepEqual(x.normal(), y.normal()); same != alike(t, x, y) {
			rt.Fatalf("%q and %q are told apart: %v", x, y, same)
		}
	})
}

// alike reports whether a Cache answers one request with the reply to the other.
func alike(t *testing.T, x, y asked) bool {
	t.Helper()
	ran := 0
	h := middleware.Cache(middleware.CachePolicy{TTL: time.Hour})(func(context.Context, *endpoint.Call) (any, error) {
		ran++
		return reply, nil
	})
	for _, a := range []asked{x, y} {
		_, err := h(t.Context(), a.call())
		assert.NoError(t, err)
	}
	return ran == 1
}

// Requests that would look the same if their parts were simply put together.
func TestIdentityParts(t *testing.T) {
	header := func(kv ...string) (h [][2]string) {
		for i := 0; i < len(kv); i += 2 {
			h = append(h, [2]string{kv[i], kv[i+1]})
		}
		return h
	}
	for name, pair := range map[string][2]asked{
		"subject and type":      {{subject: "ab", mediaType: "c"}, {subject: "a", mediaType: "bc"}},
		"name":                  {{header: header("a", "x")}, {header: header("b", "x")}},
		"name and value":        {{header: header("ab", "x")}, {header: header("a", "bx")}},
		"value and name":        {{header: header("a", "x", "a", "b", "a", "z")}, {header: header("a", "x", "b", "z")}},
		"value and body":        {{header: header("a", "x", "a", "y")}, {header: header("a", "x"), body: "\x01y"}},
		"header and body":       {{header: header("a", "x")}, {body: "\x01a\x01\x01x"}},
		"header and type":       {{header: header("a", "x")}, {mediaType: "\x01a\x01\x01x"}},
		"an empty value's name": {{header: header("a", "")}, {header: header("b", "")}},
	} {
		assert.True(t, !alike(t, pair[0], pair[1]), name)
		assert.True(t, alike(t, pair[0], pair[0]), name)
	}
}
