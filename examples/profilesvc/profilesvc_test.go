package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// TestRoutes goes through all nine routes, over a broker.
func TestRoutes(t *testing.T) {
	server, err := embedded.Start()
	assert.NoError(t, err)
	t.Cleanup(server.Shutdown)
	b, err := bus.Connect(server.URL())
	assert.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.Drain(context.Background())) })
	assert.NoError(t, b.Serve("profiles", endpoint.Service(newStore().service())))
	br := httpbridge.New(b, bridge()...)
	assert.NoError(t, br.Err())
	web := httptest.NewServer(br)
	t.Cleanup(web.Close)

	for _, step := range []struct {
		request, body string
		status        int
		want          string
	}{
		{"GET /profiles/ann", ``, 404, `{"code":"not_found","message":"there is no such profile or address"`},
		{"POST /profiles/", `{"id":"ann","name":"Ann"}`, 200, `{"id":"ann","name":"Ann"}`},
		{"POST /profiles/", `{"id":"ann"}`, 409, `{"code":"already_exists","message":"it exists already"`},
		{"POST /profiles/", `{}`, 400, `{"code":"invalid_argument","message":"the id is empty"`},
		{"POST /profiles/", `{"id":`, 400, `{"code":"invalid_argument","message":"malformed request`},
		{"GET /profiles/ann", ``, 200, `{"id":"ann","name":"Ann"}`},
		{"PUT /profiles/bob%2Fby", `{"name":"Bob"}`, 200, `{"id":"bob/by","name":"Bob"}`},
		{"PUT /profiles/bob", `{"id":"ann"}`, 400, `{"code":"invalid_argument","message":"field \"id\" is given twice, in the path and in the body"`},
		{"PATCH /profiles/ann", `{"addresses":[{"id":"home"}]}`, 200, `{"id":"ann","name":"Ann","addresses":[{"id":"home"}]}`},
		{"PATCH /profiles/eve", `{}`, 404, `{"code":"not_found"`},
		{"POST /profiles/ann/addresses/", `{"id":"work","location":"Delft"}`, 200, `{"id":"work","location":"Delft"}`},
		{"POST /profiles/ann/addresses/", `{"id":"work"}`, 409, `{"code":"already_exists"`},
		{"POST /profiles/eve/addresses/", `{"id":"work"}`, 404, `{"code":"not_found"`},
		{"GET /profiles/ann/addresses/", ``, 200, `{"addresses":[{"id":"home"},{"id":"work","location":"Delft"}]}`},
		{"GET /profiles/ann/addresses/work", ``, 200, `{"id":"work","location":"Delft"}`},
		{"DELETE /profiles/ann/addresses/work", ``, 200, `{}`},
		{"GET /profiles/ann/addresses/work", ``, 404, `{"code":"not_found"`},
		{"DELETE /profiles/ann", ``, 200, `{}`},
		{"DELETE /profiles/ann", ``, 404, `{"code":"not_found"`},
		{"POST /profiles/ann", `{}`, 405, `{"code":"unknown"`},
		{"GET /profiles", ``, 404, `{"code":"unimplemented"`},
		{"POST /profiles/post", `{}`, 405, `{"code":"unknown"`}, // subjects are not exposed
	} {
		method, path, _ := strings.Cut(step.request, " ")
		status, body := do(t, method, web.URL+path, step.body)
		assert.Equal(t, status, step.status, step.request, body)
		assert.True(t, strings.HasPrefix(body, step.want), step.request, body)
	}

	_, body := do(t, http.MethodGet, web.URL+"/openapi.json", "")
	var doc struct{ Paths map[string]map[string]any }
	assert.NoError(t, json.Unmarshal([]byte(body), &doc))
	n := 0
	for _, methods := range doc.Paths {
		n += len(methods)
	}
	assert.Equal(t, n, len(routes), "operations in the document")
}

func do(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	assert.NoError(t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	assert.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	return resp.StatusCode, string(data)
}
