package httpbridge_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"postbus.example/httpbridge"
)

// namesOf lists the names of an object's members as they are written, duplicates included.
func namesOf(t *testing.T, object string) (names []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(object))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		t.Fatalf("%q is no object: %v", object, err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// FuzzRoute: what reaches the endpoint is one JSON object that has the path's value, and nothing twice, in any case of letters.
func FuzzRoute(f *testing.F) {
	f.Add("7", "a=1&a=2&B=x", `{"c":[1.10,{"d":null}]}`)
	f.Add("a/b", "n=1", `{"N":2}`)
	f.Add("\xff", "x=%ff", `{"a":1,"a":2}`)
	f.Add("é", "=&=", `{"":1}`)
	f.Add("..", "id=1", `{"\u0069D":8}`)
	f.Add("K", "\u212a=1&k=2", "{\"\u017f\":1}")
	f.Add(" ", "a", "null")
	b := httpbridge.New(newMux(f), silence, httpbridge.Route("PUT /v1/{id}", "svc.echo"))
	f.Fuzz(func(t *testing.T, id, query, body string) {
		u := &url.URL{Path: "/v1/" + id, RawPath: "/v1/" + url.PathEscape(id), RawQuery: query}
		r := &http.Request{
			Method: http.MethodPut, URL: u, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		switch w.Code {
		case 200:
		case 400, 404, 414:
			return
		default:
			t.Fatalf("%q %q %q: %d %s", id, query, body, w.Code, w.Body)
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || !utf8.ValidString(id) {
			t.Fatalf("%q %q %q became %s: %v", id, query, body, w.Body, err)
		}
		var value string
		if err := json.Unmarshal(got["id"], &value); err != nil || value != id {
			t.Fatalf("%q %q %q became %s", id, query, body, w.Body)
		}
		names := namesOf(t, w.Body.String())
		for i, name := range names {
			for _, other := range names[:i] {
				if name == other || i > 0 && strings.EqualFold(other, "id") && strings.EqualFold(name, other) {
					t.Fatalf("%q %q %q became %s, with %q twice", id, query, body, w.Body, name)
				}
			}
		}
	})
}

// FuzzConvert: text becomes a value of the type that the schema names, and means what it says, or is refused.
func FuzzConvert(f *testing.F) {
	for _, text := range []string{"1", "-0", "1.5", "1e400", "true", "", "null", "\"x\"", "[1]", "0x1", "1_0", "٣", "1\n", "\u2028", "\x00", "<&>"} {
		f.Add(text)
	}
	m := newMux(f)
	schema := `{"properties":{"i":{"type":"integer"},"n":{"type":"number"},"b":{"type":["null","boolean"]},"s":{"type":"string"},"l":{"type":"array","items":{"type":"integer"}}}}`
	b := httpbridge.New(foreign{m, schema}, silence, httpbridge.Route("GET /", "svc.echo"))
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"i", "n", "b", "s", "l"} {
			r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: url.Values{name: {text}}.Encode()}, Header: http.Header{}}
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			if w.Code != 200 && name == "s" && utf8.ValidString(text) && len(text) < 2000 {
				t.Fatalf("%q is no string: %d %s", text, w.Code, w.Body)
			}
			if w.Code != 200 && w.Code != 400 && w.Code != 414 {
				t.Fatalf("%q: %d %s", text, w.Code, w.Body)
			}
			if w.Code != 200 {
				continue
			}
			want := text
			if name == "l" {
				want = "[" + text + "]"
			}
			if name == "s" {
				var s string
				if err := json.Unmarshal(bytes.TrimSuffix(bytes.TrimPrefix(w.Body.Bytes(), []byte(`{"s":`)), []byte("}")), &s); err != nil || s != text {
					t.Fatalf("%q became %s: %v", text, w.Body, err)
				}
			} else if w.Body.String() != `{"`+name+`":`+want+`}` {
				t.Fatalf("%s %q became %s", name, text, w.Body)
			}
		}
	})
}
