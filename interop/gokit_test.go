package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	kitnats "github.com/go-kit/kit/transport/nats"
	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// kitRequest is what a Go kit program has: no tags.
type kitRequest struct{ A, B int }

// stock is the decoder that Go kit's examples have. It looks at the body only.
func stock(_ context.Context, m *nats.Msg) (any, error) {
	var r addResponse
	err := json.Unmarshal(m.Data, &r)
	return r, err
}

// checked is what a Go kit program puts around its decoders to get the errors of any NATS service: Go kit's publisher hands
// every reply to the decoder, and the verdict is in the headers.
func checked(next kitnats.DecodeResponseFunc) kitnats.DecodeResponseFunc {
	return func(ctx context.Context, m *nats.Msg) (any, error) {
		if code := m.Header.Get("Nats-Service-Error-Code"); code != "" {
			return nil, fmt.Errorf("%s (%s)", m.Header.Get("Nats-Service-Error"), code)
		}
		return next(ctx, m)
	}
}

// strict sees no headers, but that the body is not what it knows.
func strict(_ context.Context, m *nats.Msg) (any, error) {
	var r addResponse
	d := json.NewDecoder(bytes.NewReader(m.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	return r, nil
}

func TestKitPublisher(t *testing.T) {
	t.Parallel()
	url := broker(t)
	ours, nc := connect(t, url), plain(t, url)
	serve(t, ours, "svc.add", endpoint.New(add))
	serve(t, ours, "svc.slow", endpoint.New(slow, endpoint.Timeout(20*time.Millisecond)))
	publish := func(subject string, dec kitnats.DecodeResponseFunc, request any) (any, error) {
		return kitnats.NewPublisher(nc, subject, kitnats.EncodeJSONRequest, dec).Endpoint()(t.Context(), request)
	}

	// {"A":1,"B":2}, without a header, whatever the decoder.
	for _, dec := range []kitnats.DecodeResponseFunc{stock, checked(stock), strict} {
		r, err := publish("svc.add", dec, kitRequest{1, 2})
		assert.NoError(t, err)
		assert.Equal(t, r, any(addResponse{3}))
	}

	for _, fault := range []struct {
		subject string
		request any
		code    string
		text    string
	}{
		{"svc.add", kitRequest{1, 13}, "404", "there is no 13"},
		{"svc.add", map[string]string{"A": "one"}, "400", "malformed request"},
		{"svc.slow", none{}, "504", "deadline"},
	} {
		// With the few lines above it is an error, and with a strict decoder as well.
		r, err := publish(fault.subject, checked(stock), fault.request)
		assert.True(t, err != nil && r == nil, "an error and nothing else")
		assert.Contains(t, err.Error(), fault.code, fault.text)
		r, err = publish(fault.subject, strict, fault.request)
		assert.True(t, err != nil && r == nil, "an error and nothing else")
		assert.Contains(t, err.Error(), `unknown field "code"`)

		// A decoder that looks only for its own fields in the body takes the error for an answer without them, as it does
		// with the errors of a service made with Go kit.
		r, err = publish(fault.subject, stock, fault.request)
		assert.NoError(t, err)
		assert.Equal(t, r, any(addResponse{}))
	}

	// Nobody there is an error to every decoder.
	_, err := publish("svc.nobody", stock, kitRequest{1, 2})
	assert.ErrorIs(t, err, nats.ErrNoResponders)
}

// kitAdd is a calculator made with Go kit, as its examples are.
func kitAdd(_ context.Context, request any) (any, error) {
	r := request.(kitRequest)
	if r.B == 13 {
		return nil, errors.New("there is no 13")
	}
	return addResponse{r.A + r.B}, nil
}

func decodeKitRequest(_ context.Context, m *nats.Msg) (any, error) {
	var r kitRequest
	err := json.Unmarshal(m.Data, &r)
	return r, err
}

// marked encodes errors of a Go kit service as NATS services do, so that Postbus callers, and all others, see them.
func marked(_ context.Context, err error, reply string, nc *nats.Conn) {
	_ = nc.PublishMsg(&nats.Msg{Subject: reply, Header: nats.Header{
		"Nats-Service-Error": {err.Error()}, "Nats-Service-Error-Code": {"404"},
	}})
}

// kitResponse is a response with the error that Go kit puts into the body.
type kitResponse struct {
	Sum int    `json:"sum"`
	Err string `json:"err"`
}

// kitErrors is middleware for callers of Go kit services whose errors are in the body.
func kitErrors(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		reply, err := next(ctx, c)
		var body struct{ Err string }
		if err == nil && json.Unmarshal(c.ReplyBody(), &body) == nil && body.Err != "" {
			return nil, endpoint.Unknown.New(body.Err).WithOutcome(endpoint.Executed)
		}
		return reply, err
	}
}

func TestKitSubscriber(t *testing.T) {
	t.Parallel()
	url := broker(t)
	b, nc := connect(t, url), plain(t, url)
	for subject, opts := range map[string][]kitnats.SubscriberOption{
		"kit.add":    nil,
		"kit.marked": {kitnats.SubscriberErrorEncoder(marked)},
	} {
		s := kitnats.NewSubscriber(kitAdd, decodeKitRequest, kitnats.EncodeJSONResponse, opts...)
		_, err := nc.QueueSubscribe(subject, "q", s.ServeMsg(nc))
		assert.NoError(t, err)
	}
	assert.NoError(t, nc.Flush())
	good, bad := &addRequest{1, 2}, &addRequest{1, 13}

	// Success needs nothing.
	for _, subject := range []string{"kit.add", "kit.marked"} {
		r, err := endpoint.Caller[*addRequest, *addResponse](b, subject)(t.Context(), good)
		assert.NoError(t, err)
		assert.Equal(t, r, &addResponse{3})
	}

	// Go kit's own encoder puts the error into the body, {"err":"…"}, and marks it by nothing: to a caller who does not
	// know, that is an answer without a sum.
	r, err := endpoint.Caller[*addRequest, *addResponse](b, "kit.add")(t.Context(), bad)
	assert.NoError(t, err)
	assert.Equal(t, r, &addResponse{})

	// Three ways out. A field for it:
	k, err := endpoint.Caller[*addRequest, *kitResponse](b, "kit.add")(t.Context(), bad)
	assert.NoError(t, err)
	assert.Equal(t, k, &kitResponse{Err: "there is no 13"})

	// Middleware of the caller:
	careful := endpoint.Caller[*addRequest, *addResponse](b, "kit.add", endpoint.Middleware(kitErrors))
	r, err = careful(t.Context(), good)
	assert.NoError(t, err)
	assert.Equal(t, r, &addResponse{3})
	_, err = careful(t.Context(), bad)
	executed(t, err, endpoint.Unknown, "there is no 13")

	// An error encoder of the service:
	_, err = endpoint.Caller[*addRequest, *addResponse](b, "kit.marked")(t.Context(), bad)
	executed(t, err, endpoint.NotFound, "there is no 13")
}
