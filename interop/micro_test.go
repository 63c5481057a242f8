package interop_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/micro"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// microService adds a service made with nats.go/micro.
func microService(t *testing.T, url, name string, endpoints map[string]micro.HandlerFunc) micro.Service {
	t.Helper()
	nc := plain(t, url)
	s, err := micro.AddService(nc, micro.Config{Name: name, Version: "2.0.0", Description: "by nats.go/micro", Metadata: map[string]string{"lang": "go"}})
	assert.NoError(t, err)
	group := s.AddGroup(name)
	for endpointName, h := range endpoints {
		assert.NoError(t, group.AddEndpoint(endpointName, h))
	}
	assert.NoError(t, nc.Flush())
	return s
}

func TestMicro_sharesTheQueueGroup(t *testing.T) {
	t.Parallel()
	url := broker(t)
	theirs := microService(t, url, "mix", map[string]micro.HandlerFunc{
		"who": func(r micro.Request) { _ = r.RespondJSON(who{"micro"}) },
	})
	ours, caller := connect(t, url), connect(t, url)
	serve(t, ours, "mix.who", endpoint.New(func(context.Context, *none) (*who, error) { return &who{"postbus"}, nil }))

	// To discovery they are two instances of one service.
	for _, i := range discover(t, caller, "mix", 2) {
		assert.Equal(t, i.Endpoints[0].Subject, "mix.who")
		assert.Equal(t, i.Endpoints[0].Queue, "q")
	}

	// The broker picks at random: less than a fifth is eight standard deviations off.
	count := shares(t, caller, "mix.who", 200)
	assert.True(t, count["micro"] >= 40 && count["postbus"] >= 40, "both have a fair share")
	assert.Equal(t, count["micro"]+count["postbus"], 200)

	// Either may leave.
	assert.NoError(t, theirs.Stop())
	discover(t, caller, "mix", 1)
	assert.Equal(t, shares(t, caller, "mix.who", 20), map[string]int{"postbus": 20})
}

func TestMicro_isCalled(t *testing.T) {
	t.Parallel()
	url := broker(t)
	microService(t, url, "ms", map[string]micro.HandlerFunc{
		"add": func(r micro.Request) {
			var in addRequest
			if err := json.Unmarshal(r.Data(), &in); err != nil {
				_ = r.Error("400", err.Error(), nil)
				return
			}
			_ = r.RespondJSON(addResponse{in.A + in.B}, micro.WithHeaders(r.Headers()))
		},
		"fail": func(r micro.Request) { // with the code and text it is asked for
			var in failure
			_ = json.Unmarshal(r.Data(), &in)
			_ = r.Error(in.Code, in.Text, []byte("a body of its own"))
		},
	})
	b := connect(t, url)

	ctx, report := endpoint.Observe(endpoint.WithHeader(t.Context(), "X-Tenant", "acme"))
	sum, err := endpoint.Caller[*addRequest, *addResponse](b, "ms.add")(ctx, &addRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, sum.Sum, 3)
	assert.Equal(t, report.Reply.Get("X-Tenant"), "acme")
	assert.Equal(t, report.Instance, "") // micro can't say

	fail := endpoint.Caller[*failure, *none](b, "ms.fail")
	for number, code := range map[string]endpoint.Code{
		"400": endpoint.InvalidArgument, "401": endpoint.Unauthenticated, "403": endpoint.PermissionDenied, "404": endpoint.NotFound,
		"408": endpoint.DeadlineExceeded, "409": endpoint.Aborted, "412": endpoint.FailedPrecondition, "429": endpoint.ResourceExhausted,
		"500": endpoint.Internal, "501": endpoint.Unimplemented, "503": endpoint.Unavailable, "504": endpoint.DeadlineExceeded,
		"7": endpoint.Unknown, "E_ODD": endpoint.Unknown, // micro lets any text pass
	} {
		_, err := fail(t.Context(), &failure{number, "because of " + number})
		executed(t, err, code, "because of "+number)
	}

	i := discover(t, b, "ms", 1)[0]
	assert.Equal(t, []string{i.Service, i.Version, i.Description, i.Metadata["lang"]}, []string{"ms", "2.0.0", "by nats.go/micro", "go"})
	assert.True(t, slices.ContainsFunc(i.Endpoints, func(e endpoint.EndpointInfo) bool { return e.Subject == "ms.add" && e.Codecs == nil }))
}

type failure struct {
	Code string `json:"code"`
	Text string `json:"text"`
}
