package metrics_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type addRequest struct{ A, B int }

type addResponse struct{ Sum int }

// add says not_found of whatever is negative.
func add(_ context.Context, r *addRequest) (*addResponse, error) {
	if r.A < 0 {
		return nil, endpoint.NotFound.New("there is no such number")
	}
	return &addResponse{Sum: r.A + r.B}, nil
}

// transport is the least transport there is: one handler for all subjects.
type transport endpoint.Handler

func (f transport) Handler(string, *endpoint.Spec) endpoint.Handler { return endpoint.Handler(f) }

// ok answers every call at once.
func ok(context.Context, *endpoint.Call) (any, error) { return reply, nil }

var reply any = &addResponse{Sum: 3}

// fail answers every call with an error.
func fail(err error) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) { return nil, err }
}

func serve(t testing.TB, m *endpoint.Mux, subject string, s endpoint.Servable) {
	t.Helper()
	if err := m.Serve(subject, s); err != nil {
		t.Fatal(err)
	}
}

// newCall makes a bare call for handlers that are run without a transport.
func newCall(side endpoint.Side, service, name string) *endpoint.Call {
	return endpoint.NewCall(endpoint.New(add).Bind(service, name).Spec(), "svc.add", side)
}

// calls makes calls of svc.add that go well, and calls that find nothing.
func calls(t testing.TB, m *endpoint.Mux, good, bad int) {
	t.Helper()
	call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")
	for range good {
		_, err := call(t.Context(), &addRequest{A: 1, B: 2})
		assert.NoError(t, err)
	}
	for range bad {
		_, err := call(t.Context(), &addRequest{A: -1})
		assert.ErrorIs(t, err, endpoint.NotFound)
	}
}

// scrape returns what a scraper reads, sorted, without comments.
func scrape(t testing.TB, reg prometheus.Gatherer) []string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	assert.Equal(t, w.Code, 200, w.Body.String())
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(lines)
	return lines
}

// pick returns the lines that have each of the parts.
func pick(lines []string, parts ...string) []string {
	var picked []string
	for _, line := range lines {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			picked = append(picked, line)
		}
	}
	return picked
}

// without leaves out the label that differs from run to run.
func without(id string, lines []string) []string {
	for i, line := range lines {
		lines[i] = strings.NewReplacer(`,service_instance_id="`+id+`"`, "", `service_instance_id="`+id+`"`, "").Replace(line)
	}
	return lines
}
