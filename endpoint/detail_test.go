package endpoint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type quota struct {
	Limit int    `json:"limit"`
	Unit  string `json:"unit,omitempty"`
}

type namedDetail struct{ N int }

func (namedDetail) DetailName() string { return "acme.v1.Named" }

func TestErrorJSONGolden(t *testing.T) {
	e := endpoint.NotFound.New("no <user> 7").With(quota{Limit: 3}, &namedDetail{N: 1}, endpoint.Detail{Type: "google.rpc.X", Value: []byte{0xff, 1}}, nil)
	got, err := e.MarshalJSON()
	assert.NoError(t, err)
	assert.Equal(t, string(got), `{"code":"not_found","message":"no <user> 7","details":[`+
		`{"type":"endpoint_test.quota","value":"eyJsaW1pdCI6M30","debug":{"limit":3}},`+
		`{"type":"acme.v1.Named","value":"eyJOIjoxfQ","debug":{"N":1}},`+
		`{"type":"google.rpc.X","value":"/wE"}]}`)

	got, err = endpoint.Internal.Wrap(errors.New("secret"), "").WithReason("panic").MarshalJSON()
	assert.NoError(t, err)
	assert.Equal(t, string(got), `{"code":"internal"}`)
}

func TestErrorJSONReads(t *testing.T) {
	for in, want := range map[string]endpoint.Code{
		`{"code":"aborted"}`:                     endpoint.Aborted,
		`{"code":"made_up"}`:                     endpoint.Unknown,
		`{"code":"ok"}`:                          endpoint.Unknown,
		`{"code":"data_loss","extra":{"a":[1]}}`: endpoint.DataLoss,
		`{"code":"aborted","details":null}`:      endpoint.Aborted,
	} {
		var e endpoint.Error
		assert.NoError(t, json.Unmarshal([]byte(in), &e), in)
		assert.Equal(t, e.Code, want, in)
	}
	var e endpoint.Error
	assert.NoError(t, json.Unmarshal([]byte(`{"code":"aborted","details":[{"type":"a","value":"AQ=="},{"type":"b","value":"AQ"}]}`), &e))
	assert.Equal(t, e.Details, []endpoint.Detail{{Type: "a", Value: []byte{1}}, {Type: "b", Value: []byte{1}}})
	for _, bad := range []string{`{}`, `[]`, `{"code":1}`, `{"code":"aborted","details":[{"type":"a","value":"!"}]}`, `{"code":"aborted"`} {
		assert.True(t, new(endpoint.Error).UnmarshalJSON([]byte(bad)) != nil, bad)
	}
}

func TestDetailOf(t *testing.T) {
	e := endpoint.ResourceExhausted.New("").With(quota{Limit: 3}, namedDetail{N: 1})
	wrapped := fmt.Errorf("outer: %w", endpoint.Aborted.Wrap(e, "again"))
	for _, err := range []error{e, wrapped} {
		q, ok := endpoint.DetailOf[quota](err)
		assert.True(t, ok)
		assert.Equal(t, q.Limit, 3)
		p, ok := endpoint.DetailOf[*namedDetail](err)
		assert.True(t, ok)
		assert.Equal(t, p.N, 1)
		raw, ok := endpoint.DetailOf[endpoint.Detail](err)
		assert.True(t, ok)
		assert.Equal(t, raw.Type, "endpoint_test.quota")
	}
	for _, err := range []error{nil, errors.New("x"), endpoint.Aborted, endpoint.Aborted.New("")} {
		_, ok := endpoint.DetailOf[quota](err)
		assert.True(t, !ok)
	}
}

func TestWithDoesNotShareDetails(t *testing.T) {
	base := endpoint.Aborted.New("").With(quota{Limit: 1}).With(nil).With(quota{}, quota{})
	base.Details = append(base.Details, endpoint.Detail{})[:1] // with room to spare
	a, b := base.With(quota{Limit: 2}), base.With(quota{Limit: 3})
	assert.Equal(t, string(a.Details[1].Value), `{"limit":2}`)
	assert.Equal(t, string(b.Details[1].Value), `{"limit":3}`)
	assert.Equal(t, len(base.Details), 1)
	bad := base.With(make(chan int))
	assert.Equal(t, bad.Details[1], endpoint.Detail{Type: "chan_int"})
}

func TestErrorSurvivesJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := endpoint.Code(rapid.IntRange(1, 16).Draw(t, "code")).New(rapid.String().Draw(t, "message"))
		for range rapid.IntRange(0, 3).Draw(t, "details") {
			value := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "value")
			e = e.With(endpoint.Detail{Type: rapid.String().Draw(t, "type"), Value: value})
		}
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back endpoint.Error
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&back, e) {
			t.Fatalf("%#v became %#v", e, &back)
		}
	})
}

func FuzzErrorJSON(f *testing.F) {
	f.Add([]byte(`{"code":"not_found","message":"x","details":[{"type":"a","value":"AQ==","debug":{"a":1}}]}`))
	f.Add([]byte(`{"code":"?","details":[{"value":"eyJhIjoiXHVkODAwIn0"}]}`))
	f.Add([]byte("{\"code\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e endpoint.Error
		if e.UnmarshalJSON(data) != nil {
			return
		}
		if e.Code == endpoint.OK || e.Code > endpoint.Unauthenticated {
			t.Fatalf("code %v", e.Code)
		}
		out, err := e.MarshalJSON()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		var back endpoint.Error
		if err := back.UnmarshalJSON(out); err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, out)
		}
		if !reflect.DeepEqual(e, back) {
			t.Fatalf("%#v became %#v", e, back)
		}
	})
}

type quotaError struct {
	Limit int           `json:"limit"`
	Wait  time.Duration `json:"wait"`
}

func (e *quotaError) Error() string { return fmt.Sprintf("over the quota of %d", e.Limit) }
