package tracing_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/zipkin" //nolint:staticcheck // deprecated, as its protocol is; who has a collector of it still needs it
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"postbus.example/internal/assert"
)

// zipkinSpan is what a collector gets: https://zipkin.io/zipkin-api.
type zipkinSpan struct {
	TraceID       string `json:"traceId"`
	ID            string `json:"id"`
	ParentID      string `json:"parentId"`
	Kind          string `json:"kind"`
	Name          string `json:"name"`
	LocalEndpoint struct{ ServiceName string }
	Tags          map[string]string `json:"tags"`
}

// TestZipkin is the recipe for Zipkin: its exporter in each program's provider.
func TestZipkin(t *testing.T) {
	var mu sync.Mutex
	var got []zipkinSpan
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []zipkinSpan
		if r.URL.Path != "/api/v2/spans" || json.NewDecoder(r.Body).Decode(&batch) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, batch...)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer collector.Close()

	exporter, err := zipkin.New(collector.URL+"/api/v2/spans", zipkin.WithClient(collector.Client()))
	assert.NoError(t, err)
	var programs []*sdk.TracerProvider
	threeHops(t, func(service string) trace.TracerProvider {
		tp := sdk.NewTracerProvider(sdk.WithBatcher(exporter),
			sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", service))))
		programs = append(programs, tp)
		return tp
	})
	for _, tp := range programs {
		assert.NoError(t, tp.ForceFlush(t.Context()))
	}
	for _, tp := range programs {
		assert.NoError(t, tp.Shutdown(t.Context()))
	}
	assert.Equal(t, zipkinPath(t, got, "ok"), []string{
		"gateway CLIENT cart/total ok", "cart SERVER cart/total ok", "cart CLIENT price/of ok",
		"cart CLIENT price/of attempt ok", "price SERVER price/of ok",
	})
	assert.Equal(t, zipkinPath(t, got, "unavailable")[3:], []string{
		"cart CLIENT price/of attempt unavailable", "price SERVER price/of unavailable",
	})
	assert.Equal(t, len(got), 7)
}

// zipkinPath goes up from the span of the last service that ended with a code.
func zipkinPath(t testing.TB, spans []zipkinSpan, code string) []string {
	t.Helper()
	byID := map[string]zipkinSpan{}
	at := ""
	for _, s := range spans {
		assert.Equal(t, s.TraceID, traceOf)
		assert.Equal(t, s.Tags["rpc.system.name"], "postbus")
		byID[s.ID] = s
		if s.LocalEndpoint.ServiceName == "price" && s.Tags["rpc.response.status_code"] == code {
			at = s.ID
		}
	}
	var path []string
	for ; at != spanOf; at = byID[at].ParentID {
		s, ok := byID[at]
		assert.True(t, ok, "the parent arrived")
		path = append(path, fmt.Sprint(s.LocalEndpoint.ServiceName, " ", s.Kind, " ", s.Name, " ", s.Tags["rpc.response.status_code"]))
	}
	slices.Reverse(path)
	return path
}
