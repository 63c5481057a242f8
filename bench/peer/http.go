package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"postbus.example/bench/harness"
)

// HTTPJSON is a service of net/http that speaks JSON, the way around any RPC library.
func HTTPJSON() harness.System {
	return harness.System{
		Name: "http-json",
		Serve: func(string) (string, error) {
			mux := http.NewServeMux()
			mux.HandleFunc("POST /bench/add", func(w http.ResponseWriter, r *http.Request) {
				in := new(AddRequest)
				text, err := io.ReadAll(r.Body)
				if err == nil {
					err = json.Unmarshal(text, in)
				}
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				text, _ = json.Marshal(add(in)) // numbers and text can't fail
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(text)
			})
			return serveHTTP(mux)
		},
		Dial: dialHTTP("/bench/add"),
	}
}

// serveHTTP serves HTTP/1.1, and HTTP/2 without TLS to who begins with it.
func serveHTTP(h http.Handler) (addr string, err error) {
	l, err := listen()
	if err != nil {
		return "", err
	}
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{
		Handler: h, Protocols: p, ReadHeaderTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 2048},
	}
	go func() { _ = s.Serve(l) }()
	return l.Addr().String(), nil
}

// client1 speaks HTTP/1.1, with a connection for each caller, kept.
func client1() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true}}
}

// client2 speaks HTTP/2 without TLS.
func client2() *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: p, DisableCompression: true}}
}

// sum is a number, or a text of it, which is how JSON of protobuf writes 64 bits.
type sum int64

// UnmarshalJSON takes both.
func (s *sum) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(bytes.Trim(text, `"`), (*int64)(s))
}

// dialHTTP posts typed calls in JSON.
func dialHTTP(path string) func(string) (func(int) harness.Call, error) {
	return func(addr string) (func(int) harness.Call, error) {
		client, url := client1(), "http://"+addr+path
		return func(size int) harness.Call {
			r := request(size)
			return func(ctx context.Context) error { return post(ctx, client, url, r) }
		}, nil
	}
}

func post(ctx context.Context, client *http.Client, url string, in *AddRequest) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if text, err = io.ReadAll(resp.Body); err != nil {
		return err
	}
	var out struct {
		Sum  sum    `json:"sum"`
		Data string `json:"data"`
	}
	if err := json.Unmarshal(text, &out); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.100s: %w", resp.Status, text, err)
	}
	return right(int64(out.Sum), out.Data, in)
}
