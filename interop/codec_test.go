package interop_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"postbus.example/bus"
	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// addStruct is the calculator for protobuf callers, by well-known types.
func addStruct(_ context.Context, r *structpb.Struct) (*structpb.Struct, error) {
	a, b := r.Fields["a"].GetNumberValue(), r.Fields["b"].GetNumberValue()
	if b == 13 {
		return nil, endpoint.NotFound.New("there is no 13")
	}
	return structpb.NewStruct(map[string]any{"sum": a + b})
}

func numbers(t testing.TB, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	assert.NoError(t, err)
	return s
}

// One service, at once: bare bytes, JSON callers, protobuf callers, and protobuf by hand.
func TestCodecs_atOnce(t *testing.T) {
	t.Parallel()
	url := broker(t)
	both := []bus.Option{bus.WithCodec(protobuf.Binary), bus.WithCodecs(protobuf.JSON)}
	serve(t, connect(t, url, both...), "svc.add", endpoint.New(addStruct))
	nc, jsonBus, protoBus := plain(t, url), connect(t, url), connect(t, url, both...)

	viaJSON := endpoint.Caller[*addRequest, *addResponse](jsonBus, "svc.add")
	viaProto := endpoint.Caller[*structpb.Struct, *structpb.Struct](protoBus, "svc.add")
	callers := map[string]func(i int) (sum int, err error){
		"bare bytes": func(i int) (int, error) {
			m, err := nc.Request("svc.add", encodeJSON(t, addRequest{i, 1}), 5*time.Second)
			if err != nil {
				return 0, err
			}
			assert.Equal(t, len(m.Header), 0)
			return decodeJSON[addResponse](t, m.Data).Sum, nil
		},
		"JSON": func(i int) (int, error) {
			r, err := viaJSON(t.Context(), &addRequest{i, 1})
			if err != nil {
				return 0, err
			}
			return r.Sum, nil
		},
		"protobuf": func(i int) (int, error) {
			r, err := viaProto(t.Context(), numbers(t, map[string]any{"a": i, "b": 1}))
			return int(r.GetFields()["sum"].GetNumberValue()), err
		},
		"protobuf by hand": func(i int) (int, error) {
			body, err := proto.Marshal(numbers(t, map[string]any{"a": i, "b": 1}))
			assert.NoError(t, err)
			m, err := nc.RequestMsg(&nats.Msg{Subject: "svc.add", Data: body, Header: nats.Header{"Content-Type": {"application/proto"}}}, 5*time.Second)
			if err != nil {
				return 0, err
			}
			var r structpb.Struct
			err = proto.Unmarshal(m.Data, &r)
			return int(r.GetFields()["sum"].GetNumberValue()), err
		},
	}
	var all sync.WaitGroup
	for name, call := range callers {
		all.Go(func() {
			for i := range 100 {
				if sum, err := call(i); err != nil || sum != i+1 {
					t.Errorf("%s: %d+1 is %d, %v", name, i, sum, err)
				}
			}
		})
	}
	all.Wait()

	// Errors are the same to all.
	_, err := viaJSON(t.Context(), &addRequest{1, 13})
	executed(t, err, endpoint.NotFound, "there is no 13")
	_, err = viaProto(t.Context(), numbers(t, map[string]any{"b": 13}))
	executed(t, err, endpoint.NotFound, "there is no 13")
	m, err := nc.Request("svc.add", encodeJSON(t, addRequest{1, 13}), 5*time.Second)
	assert.NoError(t, err)
	assert.Equal(t, m.Header.Get("Nats-Service-Error-Code"), "404")
	assert.Contains(t, string(m.Data), `"message":"there is no 13"`)
}
