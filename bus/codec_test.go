package bus_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestOneServiceManyCodecs(t *testing.T) {
	s := bustest.Server(t, unheard())
	service := connect(t, s, quiet(), bus.WithCodecs(cbor.CBOR), bus.WithCodecs(protobuf.Binary))
	caller := connect(t, s, quiet())
	serve(t, service, "svc.add", endpoint.New(add))
	serve(t, service, "svc.twice", endpoint.New(func(_ context.Context, r *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String(r.GetValue() + r.GetValue()), nil
	}, endpoint.Codec(protobuf.JSON)))
	for _, c := range []codec.Codec{codec.JSON, cbor.CBOR} {
		resp, err := adder(caller, "svc.add", endpoint.Codec(c))(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err, c.Name())
		assert.Equal(t, resp.Sum, 3)
		_, err = adder(caller, "svc.add", endpoint.Codec(c))(t.Context(), &AddRequest{1, 13})
		assert.ErrorIs(t, err, endpoint.FailedPrecondition, c.Name())
	}
	for _, c := range []codec.Codec{protobuf.JSON, protobuf.Binary} {
		twice := endpoint.Caller[*wrapperspb.StringValue, *wrapperspb.StringValue](caller, "svc.twice", endpoint.Codec(c))
		resp, err := twice(t.Context(), wrapperspb.String("ab"))
		assert.NoError(t, err, c.Name())
		assert.Equal(t, resp.GetValue(), "abab")
	}
	nc := foreign(t, s)
	assert.Equal(t, string(request(t, nc, "svc.add", `{"a":1,"b":2}`).Data), `{"Sum":3}`)
	assert.Equal(t, string(request(t, nc, "svc.twice", `"x"`).Data), `"xx"`)
	m := request(t, nc, "svc.add", `{"a":1,"b":2}`, "content-type", "application/json; charset=utf-8")
	assert.Equal(t, string(m.Data), `{"Sum":3}`)
}

func TestEndpointWithoutJSON(t *testing.T) {
	s := bustest.Server(t, unheard())
	service := connect(t, s, quiet(), bus.WithCodec(cbor.CBOR))
	serve(t, service, "svc.add", endpoint.New(add))
	body, err := cbor.CBOR.Append(nil, &AddRequest{1, 2})
	assert.NoError(t, err)
	m := request(t, foreign(t, s), "svc.add", string(body))
	var resp AddResponse
	assert.NoError(t, cbor.CBOR.Decode(m.Data, &resp), "a foreign caller that names no type gets the first codec")
	assert.Equal(t, resp.Sum, 3)
	assert.Equal(t, len(m.Header), 0)
	// One of ours that sends JSON means JSON, in the token and in headers.
	for _, caller := range []*bus.Bus{connect(t, s, quiet()), connect(t, s, quiet(), bus.WithHeaderMetadata())} {
		_, err = adder(caller, "svc.add")(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.InvalidArgument, endpoint.ReasonMediaType, endpoint.NotExecuted)
		resp, err := adder(caller, "svc.add", endpoint.Codec(cbor.CBOR))(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, 3)
	}
}

func TestCodecOptionsInAnyOrder(t *testing.T) {
	s := bustest.Server(t, unheard())
	for _, opts := range [][]bus.Option{
		{quiet(), bus.WithCodec(cbor.CBOR), bus.WithCodecs(codec.JSON)},
		{quiet(), bus.WithCodecs(codec.JSON), bus.WithCodec(cbor.CBOR)},
	} {
		b := connect(t, s, opts...)
		assert.Equal(t, b.Codec().Name(), "application/cbor")
		serve(t, b, "svc.add", endpoint.New(add))
		_, err := adder(b, "svc.add", endpoint.Codec(codec.JSON))(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
		assert.NoError(t, b.Stop(t.Context(), "svc.add"))
	}
}

func TestPayloadCaller(t *testing.T) {
	s := bustest.Server(t, unheard())
	service, caller := connect(t, s, quiet(), bus.WithCodecs(cbor.CBOR)), connect(t, s, quiet())
	serve(t, service, "svc.add", endpoint.New(add))
	call := endpoint.Caller[*codec.Payload, *codec.Payload](caller, "svc.add")
	for _, c := range []codec.Codec{codec.JSON, cbor.CBOR} {
		body, err := c.Append(nil, &AddRequest{1, 2})
		assert.NoError(t, err)
		got, err := call(t.Context(), &codec.Payload{MediaType: c.Name(), Data: body})
		assert.NoError(t, err)
		assert.Equal(t, got.MediaType, c.Name())
		var resp AddResponse
		assert.NoError(t, c.Decode(got.Data, &resp))
		assert.Equal(t, resp.Sum, 3)
	}
	got, err := call(t.Context(), &codec.Payload{Data: []byte(`{"A":2,"B":2}`)})
	assert.NoError(t, err)
	assert.Equal(t, *got, codec.Payload{MediaType: "application/json", Data: []byte(`{"Sum":4}`)})
	_, err = call(t.Context(), &codec.Payload{MediaType: "text/plain", Data: []byte("x")})
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonMediaType, endpoint.NotExecuted)
}

// A proxy is a caller of payloads, served again: it passes what it does not know.
func TestPayloadProxy(t *testing.T) {
	s := bustest.Server(t, unheard())
	service, proxy, caller := connect(t, s, quiet(), bus.WithCodecs(cbor.CBOR)), connect(t, s, quiet()), connect(t, s, quiet())
	serve(t, service, "svc.add", endpoint.New(add))
	serve(t, proxy, "proxy.add", endpoint.New(endpoint.Caller[*codec.Payload, *codec.Payload](proxy, "svc.add")))
	serve(t, proxy, "proxy.mute", endpoint.New(func(_ context.Context, p *codec.Payload) (*codec.Payload, error) {
		return &codec.Payload{Data: []byte(strings.ToUpper(string(p.Data)))}, nil
	}))
	for _, c := range []codec.Codec{codec.JSON, cbor.CBOR} {
		resp, err := adder(caller, "proxy.add", endpoint.Codec(c))(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err, c.Name())
		assert.Equal(t, resp.Sum, 3)
	}
	m := request(t, foreign(t, s), "proxy.mute", "abc", "Content-Type", "text/plain")
	assert.Equal(t, string(m.Data), "ABC")
	_, named := m.Header["Content-Type"]
	assert.True(t, !named, "the reply's type is the request's")
}

func TestEmptyBody(t *testing.T) {
	service, _, s := pair(t)
	type Nothing struct{}
	serve(t, service, "svc.ping", endpoint.New(func(context.Context, *Nothing) (*AddResponse, error) { return &AddResponse{1}, nil }))
	serve(t, service, "svc.add", endpoint.New(add))
	nc := foreign(t, s)
	assert.Equal(t, string(request(t, nc, "svc.ping", "").Data), `{"Sum":1}`)
	m := request(t, nc, "svc.add", "")
	assert.Equal(t, m.Header.Get("Rpc-Code"), "invalid_argument")
	assert.True(t, json.Valid(m.Data), "the error is JSON")
}
