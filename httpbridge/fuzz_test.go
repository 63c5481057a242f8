package httpbridge_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// witness is a transport that judges every subject it is given.
type witness struct {
	t       testing.TB
	exposed []string
	subject string // the last one; "" if there was none
}

func (w *witness) Handler(subject string, _ *endpoint.Spec) endpoint.Handler {
	w.subject = subject
	if err := endpoint.ValidateSubject(subject); err != nil {
		w.t.Errorf("%q reached the transport: %v", subject, err)
	}
	for tok := range strings.SplitSeq(subject, ".") {
		if tok[0] == '$' || strings.HasPrefix(tok, "_INBOX") {
			w.t.Errorf("%q reached the transport", subject)
		}
	}
	named := false
	for _, p := range w.exposed {
		named = named || endpoint.MatchSubject(p, subject)
	}
	if !named {
		w.t.Errorf("%q reached the transport, and nobody exposed it", subject)
	}
	return func(context.Context, *endpoint.Call) (any, error) { return &codec.Payload{}, nil }
}

func FuzzPath(f *testing.F) {
	for _, path := range append(hostile, "/svc/add", "/svc.add", "/acme/v1.Users/Get", "/gr%C3%B6%C3%9Fe/x") {
		f.Add(path)
	}
	w := &witness{exposed: []string{"svc.add", "acme.>", "größe.*"}}
	b := httpbridge.New(w, httpbridge.Expose(w.exposed...))
	all := &witness{exposed: []string{">"}}
	open := httpbridge.New(all, httpbridge.Expose(">"))
	f.Fuzz(func(t *testing.T, path string) {
		w.t, all.t = t, t
		var urls []*url.URL
		if u, err := url.ParseRequestURI(path); err == nil { // as net/http reads a request line
			urls = append(urls, u)
		}
		urls = append(urls, &url.URL{Path: path}, &url.URL{Path: "/svc/add", RawPath: path}) // as a router may leave it
		for _, u := range urls {
			for _, b := range []*httpbridge.Bridge{b, open} {
				w.subject, all.subject = "", ""
				r := &http.Request{Method: http.MethodPost, URL: u, Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody}
				rec := httptest.NewRecorder()
				b.ServeHTTP(rec, r)
				// Somebody's answer is a 200, nobody's a 404; the bridge's own paths want another method.
				if reached := rec.Code == 200; reached && strings.ContainsAny(u.EscapedPath(), "*>$ ") && !strings.Contains(u.Path, "$") {
					t.Errorf("%q was served", path)
				}
				if rec.Code != 200 && rec.Code != 404 && rec.Code != 405 {
					t.Errorf("%q: %d %s", path, rec.Code, rec.Body)
				}
			}
		}
	})
}

// deadlines is a transport that notes how long its call may take.
type deadlines struct{ left time.Duration }

func (d *deadlines) Handler(string, *endpoint.Spec) endpoint.Handler {
	return func(ctx context.Context, _ *endpoint.Call) (any, error) {
		end, _ := ctx.Deadline()
		d.left = time.Until(end)
		return &codec.Payload{}, nil
	}
}

func FuzzTimeoutHeader(f *testing.F) {
	for _, v := range []string{"0", "1000", "0000001000", "9999999999", "10000000000", "", "-1", "+1", "1e3", "0x10", "1_000", " 1", "1\n", "٣", "1000m"} {
		f.Add(v)
	}
	const most = time.Hour
	d := &deadlines{}
	b := httpbridge.New(d, httpbridge.Expose("svc.x"), httpbridge.WithTimeouts(httpbridge.Timeouts{MaxCall: most}))
	f.Fuzz(func(t *testing.T, value string) {
		r := httptest.NewRequest(http.MethodPost, "/svc/x", http.NoBody)
		r.Header["Content-Type"] = []string{"application/json"}
		r.Header["Connect-Timeout-Ms"] = []string{value}
		w := httptest.NewRecorder()
		d.left = -1
		b.ServeHTTP(w, r)
		ms, err := strconv.ParseUint(value, 10, 64) // takes neither signs nor underscores in base 10
		good := err == nil && len(value) <= 10
		switch {
		case !good && (w.Code < 400 || w.Code == 504 || d.left != -1):
			t.Errorf("%q was taken: %d", value, w.Code)
		case good && w.Code != 200 && w.Code != 504:
			t.Errorf("%q was refused: %d %s", value, w.Code, w.Body)
		case w.Code == 200 && d.left > min(most, time.Duration(ms)*time.Millisecond):
			t.Errorf("%q gave %v", value, d.left)
		}
	})
}
