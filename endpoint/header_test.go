package endpoint_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestHeader(t *testing.T) {
	var h endpoint.Header
	assert.Equal(t, h.Get("a"), "")
	assert.Equal(t, h.Values("a"), nil)
	h.Add("X-Tenant", "acme")
	h.Add("x-tenant", "umbrella")
	h.Add("Other", "")
	assert.Equal(t, h.Get("X-TENANT"), "acme")
	assert.Equal(t, h.Values("x-Tenant"), []string{"acme", "umbrella"})
	assert.Equal(t, maps.Collect(h.All()), map[string]string{"X-Tenant": "acme", "x-tenant": "umbrella", "Other": ""})
	clone := h.Clone()
	h.Set("x-TENANT", "only")
	assert.Equal(t, h.Values("X-Tenant"), []string{"only"})
	assert.Equal(t, h.Len(), 2)
	for name := range h.All() {
		assert.True(t, slices.Contains([]string{"Other", "x-TENANT"}, name), "spelling is kept")
	}
	h.Del("OTHER")
	assert.Equal(t, h.Len(), 1)
	assert.Equal(t, clone.Len(), 3)
	for range clone.All() {
		break
	}
}

func TestHeaderValidate(t *testing.T) {
	for _, c := range []struct{ name, value, fault string }{
		{"X-Tenant", "acme, with ünïcode", ""},
		{"traceparent", "00-…", ""},
		{"Authorization", "Bearer x", ""},
		{"Rpc-Timeout", "1m", "reserved"},
		{"rPC-x", "", "reserved"},
		{"Nats-Service-Error", "", "reserved"},
		{"Status", "503", "reserved"},
		{"description", "", "reserved"},
		{"Content-Type", "text/plain", "reserved"},
		{"", "x", "not a token"},
		{"a b", "x", "not a token"},
		{"a:b", "x", "not a token"},
		{"ä", "x", "not a token"},
		{"a", "x\r\nStatus: 503", "a control character"},
		{"a", "x\ny", "a control character"},
		{"a", "\x00", "a control character"},
		{"a", "x\x01y", "a control character"},
		{"a", "\x7f", "a control character"},
		{"a", strings.Repeat("x", endpoint.MaxHeaderBytes), "at most"},
	} {
		var h endpoint.Header
		h.Add(c.name, c.value)
		err := h.Validate()
		if c.fault == "" {
			assert.NoError(t, err, c.name)
			continue
		}
		assert.True(t, err != nil, c.name+" must be refused")
		assert.Contains(t, err.Error(), c.fault)
	}
	var h endpoint.Header
	h.Add("a", strings.Repeat("x", endpoint.MaxHeaderBytes-5))
	assert.NoError(t, h.Validate())
	h.Add("Status", "x")
	h.Add("Nats-X", "x")
	assert.Contains(t, h.Validate().Error(), "Status", "Nats-X", "at most")
}

// Many empty headers weigh little, and no peer takes them.
func TestHeaderLines(t *testing.T) {
	var h endpoint.Header
	for range endpoint.MaxHeaderLines {
		h.Add("a", "")
	}
	assert.NoError(t, h.Validate())
	assert.True(t, h.Fault(endpoint.Internal) == nil)
	h.Add("b", "")
	assert.Contains(t, h.Validate().Error(), "513 headers, at most 512")
	e := h.Fault(endpoint.Internal)
	assert.Equal(t, e.Code, endpoint.Internal)
	assert.Equal(t, e.Reason(), endpoint.ReasonHeaderTooLarge)
}

func FuzzHeader(f *testing.F) {
	f.Add("X-Tenant", "acme", "x-tenant")
	f.Add("Rpc-Id", "\r\n", "Ω")
	f.Add("nat\u017f-x", "", "NATS-X")
	f.Fuzz(func(t *testing.T, name, value, other string) {
		var h endpoint.Header
		h.Add(other, "first")
		h.Set(name, value)
		if h.Get(name) != value || len(h.Values(name)) != 1 {
			t.Fatalf("set %q to %q, got %q", name, value, h.Values(name))
		}
		if strings.EqualFold(name, other) != (h.Len() == 1) {
			t.Fatalf("%q and %q: %d values", name, other, h.Len())
		}
		if h.Validate() == nil {
			lower := strings.ToLower(name)
			if strings.ContainsAny(name+value, "\r\n\x00") || name == "" || strings.HasPrefix(lower, "rpc-") || strings.HasPrefix(lower, "nats-") || lower == "status" || lower == "description" {
				t.Fatalf("%q: %q was accepted", name, value)
			}
		}
		h.Del(name)
		if h.Get(name) != "" {
			t.Fatalf("%q is still there", name)
		}
	})
}

func TestHeaderFrom(t *testing.T) {
	h := endpoint.HeaderFrom(t.Context())
	assert.Equal(t, h.Len(), 0)
	ctx := endpoint.WithHeader(endpoint.WithHeader(t.Context(), "X-User", "ann"), "x-user", "bob", "Odd")
	h = endpoint.HeaderFrom(ctx)
	assert.Equal(t, h.Values("X-User"), []string{"ann", "bob"})
	assert.Equal(t, h.Values("odd"), []string{""})
	h.Set("X-User", "eve")
	h = endpoint.HeaderFrom(ctx)
	assert.Equal(t, h.Values("X-User"), []string{"ann", "bob"}, "a copy")
}
