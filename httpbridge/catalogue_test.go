package httpbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// listing is a transport whose discovery says what the test puts there: of everybody, and of one service by its name.
type listing struct {
	script
	all   []endpoint.Instance
	named map[string][]endpoint.Instance
	err   error
	asked []string
}

func (l *listing) Discover(_ context.Context, name string) ([]endpoint.Instance, error) {
	l.asked = append(l.asked, name)
	if name != "" {
		return l.named[name], l.err
	}
	return l.all, l.err
}

func instance(service, version string, eps ...endpoint.EndpointInfo) endpoint.Instance {
	return endpoint.Instance{Service: service, Version: version, Endpoints: eps}
}

func TestEndpoints(t *testing.T) {
	add := endpoint.EndpointInfo{Subject: "svc.add", Doc: "adds", ReadOnly: true, Request: json.RawMessage(`{}`), Response: json.RawMessage(`{}`)}
	list := func(t *testing.T, l *listing, exposed ...string) ([]endpoint.EndpointInfo, error) {
		t.Helper()
		b := httpbridge.New(l, httpbridge.Expose(exposed...))
		assert.NoError(t, b.Err())
		return b.Endpoints(t.Context())
	}
	t.Run("only what is exposed, in order", func(t *testing.T) {
		l := &listing{all: []endpoint.Instance{
			instance("b", "1.0.0", endpoint.EndpointInfo{Subject: "z.x"}, endpoint.EndpointInfo{Subject: "hidden.x"}, add),
			instance("b", "1.0.0", add, endpoint.EndpointInfo{Subject: "z.*"}, endpoint.EndpointInfo{Subject: "z.$x"}),
		}}
		got, err := list(t, l, "svc.add", "z.*", "other.x")
		assert.NoError(t, err)
		assert.Equal(t, got, []endpoint.EndpointInfo{add, {Subject: "z.x"}})
	})
	t.Run("the newest version is described, and what not all call harmless is not", func(t *testing.T) {
		older, newer := add, add
		older.Doc, older.ReadOnly, newer.Doc = "old", false, "new"
		for _, all := range [][]endpoint.Instance{
			{instance("b", "1.9.0", older), instance("b", "1.10.0", newer), instance("b", "1.10.0-rc.1", older)},
			{instance("b", "1.10.0-rc.1", older), instance("b", "1.10.0", newer), instance("b", "1.9.0", older)},
		} {
			got, err := list(t, &listing{all: all}, "svc.*")
			assert.NoError(t, err)
			assert.Equal(t, len(got), 1)
			assert.Equal(t, got[0].Doc, "new")
			assert.True(t, !got[0].ReadOnly)
		}
	})
	t.Run("schemas told by hash are fetched once", func(t *testing.T) {
		long := endpoint.EndpointInfo{Subject: "svc.add", Metadata: map[string]string{"request": "sha256:1"}}
		whole := long
		whole.Request = json.RawMessage(`{"type":"object"}`)
		l := &listing{all: []endpoint.Instance{instance("b", "1.0.0", long)}, named: map[string][]endpoint.Instance{"b": {instance("b", "1.0.0", whole)}}}
		b := httpbridge.New(l, httpbridge.Expose("svc.*"))
		for range 3 {
			got, err := b.Endpoints(t.Context())
			assert.NoError(t, err)
			assert.Equal(t, got, []endpoint.EndpointInfo{whole})
		}
		assert.Equal(t, l.asked, []string{"", "b"})
	})
	t.Run("nobody to ask, nobody who answers", func(t *testing.T) {
		_, err := list(t, &listing{err: errors.New("no grant")}, "svc.*")
		assert.ErrorIs(t, err, endpoint.Unimplemented)
		_, err = httpbridge.New(script{}, httpbridge.Expose("svc.*")).Endpoints(t.Context())
		assert.ErrorIs(t, err, endpoint.Unimplemented)
	})
}

// TestEndpoints_gone forgets what is missing from a few answers, not from one, and learns what changed.
func TestEndpoints_gone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listing{all: []endpoint.Instance{instance("b", "1.0.0", endpoint.EndpointInfo{Subject: "svc.a"}, endpoint.EndpointInfo{Subject: "svc.b"})}}
		b := httpbridge.New(l, httpbridge.Expose("svc.*"))
		list := func() (subjects []string) {
			got, err := b.Endpoints(t.Context())
			assert.NoError(t, err)
			for _, e := range got {
				subjects = append(subjects, e.Subject+e.Doc)
			}
			return subjects
		}
		assert.Equal(t, list(), []string{"svc.a", "svc.b"})
		l.all = []endpoint.Instance{instance("b", "1.0.0", endpoint.EndpointInfo{Subject: "svc.b", Doc: "!"})}
		assert.Equal(t, list(), []string{"svc.a", "svc.b"}, "the last answer still counts")
		for _, want := range [][]string{{"svc.a", "svc.b!"}, {"svc.a", "svc.b!"}, {"svc.b!"}} {
			time.Sleep(5 * time.Second)
			assert.Equal(t, list(), want)
		}
	})
}

// Whoever is on the bus may publish what they like: of what is beyond all bounds it is known that it is there, and of which kind.
func TestEndpoints_tooMuchSaid(t *testing.T) {
	schema := json.RawMessage(`{"description":"` + strings.Repeat("x", 1<<20) + `"}`)
	l := &listing{}
	for i := range 100 {
		l.all = append(l.all, instance("a", "1.0.0", endpoint.EndpointInfo{
			Subject: fmt.Sprintf("svc.e%d", i), Kind: endpoint.ServerStreamKind, Request: schema, Metadata: map[string]string{"rpc.request": "x"},
		}))
	}
	b := httpbridge.New(l, httpbridge.Expose("svc.*"))
	assert.NoError(t, b.Err())
	got, err := b.Endpoints(t.Context())
	assert.NoError(t, err)
	assert.Equal(t, len(got), 100)
	told := 0
	for _, e := range got {
		assert.Equal(t, e.Kind, endpoint.ServerStreamKind)
		told += len(e.Request)
	}
	assert.True(t, told > 60<<20 && told <= 64<<20, fmt.Sprint(told))
}
