package httpbridge_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

type caller struct{}

// TestWithAuthorization is asked about the subject, with the context of who was authenticated.
func TestWithAuthorization(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.*"),
		httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
			return context.WithValue(r.Context(), caller{}, r.Header.Get("Authorization")), nil
		}),
		httpbridge.WithAuthorization(func(ctx context.Context, subject string) error {
			switch ctx.Value(caller{}).(string) + " " + subject {
			case "ann svc.add":
				return nil
			case "bob svc.add":
				return httpbridge.Challenge(endpoint.PermissionDenied.New("not bob"), `Bearer error="insufficient_scope"`)
			case "eve svc.add":
				return endpoint.Unavailable.New("no list")
			}
			return errors.New("secret: " + subject)
		}))
	assert.Equal(t, s.post(t, "/svc/add", `{"a":1}`, "Authorization", "ann").body, `{"sum":1}`)
	assert.Equal(t, failed(t, s.post(t, "/svc.echo", `{}`, "Authorization", "ann"), 403, endpoint.PermissionDenied), "")
	r := s.post(t, "/svc/add", `{}`, "Authorization", "bob")
	assert.Equal(t, failed(t, r, 403, endpoint.PermissionDenied), "not bob")
	assert.Equal(t, r.header.Values("WWW-Authenticate"), []string{`Bearer error="insufficient_scope"`})
	failed(t, s.post(t, "/svc/add", `{}`, "Authorization", "eve"), 503, endpoint.Unavailable)
	assert.Contains(t, s.log.text(), "secret: svc.echo")
}

func TestChallenge(t *testing.T) {
	assert.NoError(t, httpbridge.Challenge(nil, "Bearer"))
	err := httpbridge.Challenge(endpoint.Unauthenticated.New("who?"), "Bearer", "Basic\r\nX: y", `ApiKey realm="x"`)
	assert.ErrorIs(t, err, endpoint.Unauthenticated)
	for cause, want := range map[error][]string{
		err: {"Bearer", `ApiKey realm="x"`},
		endpoint.PermissionDenied.Wrap(err, "no"): {"Bearer", `ApiKey realm="x"`},
		endpoint.Unavailable.Wrap(err, "no"):      nil,
		endpoint.Unauthenticated.New("who?"):      nil,
	} {
		w := httptest.NewRecorder()
		httpbridge.WriteError(w, nil, cause)
		assert.Equal(t, w.Header().Values("WWW-Authenticate"), want)
	}
}

func TestWithAuthorization_faults(t *testing.T) {
	yes := func(context.Context, string) error { return nil }
	no := func(context.Context, string) error { return endpoint.PermissionDenied }
	assert.Contains(t, httpbridge.New(newMux(t), httpbridge.WithAuthorization(nil)).Err().Error(), "WithAuthorization", "nil")
	assert.Contains(t, httpbridge.New(newMux(t), httpbridge.WithAuthorization(yes), httpbridge.WithAuthorization(no)).Err().Error(), "twice")
}

// TestWithAuthorization_jsonRPC asks for each call of a batch.
func TestWithAuthorization_jsonRPC(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.*"), httpbridge.WithJSONRPC(""),
		httpbridge.WithAuthorization(func(_ context.Context, subject string) error {
			if subject == "svc.add" {
				return nil
			}
			return endpoint.PermissionDenied.New("only sums")
		}))
	r := s.post(t, "/rpc", `[{"jsonrpc":"2.0","id":1,"method":"svc.echo","params":{}},{"jsonrpc":"2.0","id":2,"method":"svc.add","params":{"a":1}}]`)
	assert.Equal(t, r.body, `[{"jsonrpc":"2.0","id":1,"error":{"code":-32007,"message":"only sums","data":{"code":"permission_denied"}}},`+
		`{"jsonrpc":"2.0","id":2,"result":{"sum":1}}]`)
}
