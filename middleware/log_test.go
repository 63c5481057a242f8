package middleware_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// journal is a logger whose lines a test reads.
type journal struct{ bytes.Buffer }

func (j *journal) logger(least slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: least}))
}

// lines returns what was logged, without the time.
func (j *journal) lines(t testing.TB) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(j.String()) {
		m := map[string]any{}
		assert.NoError(t, json.Unmarshal([]byte(line), &m))
		delete(m, "time")
		out = append(out, m)
	}
	return out
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestLogBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		m := endpoint.NewMux()
		m.Use(middleware.Log(j.logger(slog.LevelInfo)))
		serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			time.Sleep(time.Second)
			return add(ctx, r)
		}))
		ctx := endpoint.WithHeader(t.Context(), "traceparent", parent, "Authorization", "secret")
		_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(ctx, &addRequest{A: 1, B: 2})
		assert.NoError(t, err)
		lines := j.lines(t)
		assert.Equal(t, len(lines), 2)
		id, _ := lines[0]["instance"].(string)
		for i, side := range []string{"server", "client"} {
			assert.Equal(t, lines[i], map[string]any{
				"level": "INFO", "msg": "rpc", "side": side, "subject": "svc.add", "kind": "unary", "code": "ok", "outcome": "executed",
				"took": float64(time.Second), "request_bytes": 13., "reply_bytes": 9., "instance": id,
				"trace_id": "0af7651916cd43dd8448eb211c80319c",
			})
		}
		assert.True(t, !strings.Contains(j.String(), "secret"), "header values stay out")
	})
}

func TestLogFailures(t *testing.T) {
	cause := errors.New("disk is full")
	m := endpoint.NewMux()
	upstream := endpoint.Caller[*addRequest, *addResponse](m, "nobody.here")
	for i, tc := range []struct {
		name    string
		handler func(context.Context, *addRequest) (*addResponse, error)
		want    map[string]any
	}{
		{"authored", failing(endpoint.NotFound.New("user 42 of secret")), map[string]any{"level": "INFO", "code": "not_found"}},
		{"limits", failing(endpoint.ResourceExhausted.New("x")), map[string]any{"level": "WARN", "code": "resource_exhausted"}},
		{"foreign", failing(cause), map[string]any{"level": "ERROR", "code": "unknown", "cause": "disk is full"}},
		{"wrapped", failing(endpoint.Internal.Wrap(cause, "sorry")), map[string]any{"level": "ERROR", "code": "internal", "cause": "disk is full"}},
		{"without a cause", failing(endpoint.DataLoss.New("gone")), map[string]any{"level": "ERROR", "code": "data_loss", "cause": "data_loss: gone"}},
		{"of an upstream", upstream, map[string]any{
			"level": "ERROR", "code": "internal", "reason": "no_responders", "cause": "unavailable (no_responders): nobody serves nobody.here",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var j journal
			subject := fmt.Sprintf("svc.n%d", i)
			serve(t, m, subject, endpoint.New(tc.handler, middleware.Log(j.logger(slog.LevelDebug))))
			_, err := endpoint.Caller[*addRequest, *addResponse](m, subject)(t.Context(), &addRequest{})
			line := j.lines(t)[0]
			assert.Equal(t, line["outcome"], any("executed"))
			assert.Equal(t, line["code"], any(endpoint.CodeOf(err).String()), "what the peer is told")
			for _, key := range []string{"msg", "side", "subject", "kind", "outcome", "took", "request_bytes", "reply_bytes", "instance"} {
				delete(line, key)
			}
			if tc.name == "of an upstream" {
				assert.Contains(t, line["cause"].(string), tc.want["cause"].(string))
				line["cause"] = tc.want["cause"]
			}
			assert.Equal(t, line, tc.want)
			assert.True(t, !strings.Contains(j.String(), "secret"), "messages stay out")
		})
	}
}

func failing(err error) func(context.Context, *addRequest) (*addResponse, error) {
	return func(context.Context, *addRequest) (*addResponse, error) { return nil, err }
}

func TestLogPanic(t *testing.T) {
	var j journal
	m := endpoint.NewMux()
	serve(t, m, "svc.add", endpoint.New(add, endpoint.With(middleware.Recover(), middleware.Log(j.logger(slog.LevelInfo)), panics)))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.Internal)
	line := j.lines(t)[0]
	assert.Equal(t, line["code"], any("internal"))
	assert.Equal(t, line["reason"], any("panic"))
	assert.Equal(t, line["outcome"], any("not_executed"))
	assert.Equal(t, line["cause"], any("panic in middleware_test.panics.func1: secret"))
	assert.Contains(t, line["stack"].(string), "recover_test.go")
}

func TestLogGoexit(t *testing.T) {
	var j journal
	h := middleware.Log(j.logger(slog.LevelInfo))(func(context.Context, *endpoint.Call) (any, error) {
		runtime.Goexit()
		return nil, nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = h(t.Context(), newCall(endpoint.ServerSide))
	}()
	<-done
	assert.Equal(t, j.lines(t)[0]["cause"], any("internal (panic): the goroutine ended"))
}

func TestLogAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		_, err := caller(fail(errDraining), middleware.Retry(middleware.RetryPolicy{}), middleware.Log(j.logger(slog.LevelInfo)))(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.Unavailable)
		lines := j.lines(t)
		assert.Equal(t, len(lines), 3)
		assert.Equal(t, lines[0]["attempt"], nil)
		assert.Equal(t, lines[2]["attempt"], any(2.))
		assert.Equal(t, lines[2]["reason"], any("draining"))
		assert.Equal(t, lines[2]["cause"], nil, "the caller has it")
	})
}

func TestLogOptions(t *testing.T) {
	var j journal
	opts := []middleware.LogOption{
		nil,
		middleware.LogLevels(func(endpoint.Code) slog.Level { return slog.LevelWarn }),
		middleware.LogSample(func(c *endpoint.Call, err error) bool { return err != nil }),
		middleware.LogAttrs(func(context.Context, *endpoint.Call) []slog.Attr { return []slog.Attr{slog.String("tenant", "t1")} }),
	}
	_, _ = caller(ok, middleware.Log(j.logger(slog.LevelInfo), opts...))(t.Context(), &addRequest{})
	assert.Equal(t, j.Len(), 0, "left out by LogSample")
	_, _ = caller(fail(errDraining), middleware.Log(j.logger(slog.LevelInfo), opts...))(t.Context(), &addRequest{})
	line := j.lines(t)[0]
	assert.Equal(t, line["level"], any("WARN"))
	assert.Equal(t, line["tenant"], any("t1"))

	j.Reset()
	none := []middleware.LogOption{middleware.LogLevels(nil), middleware.LogSample(nil), middleware.LogAttrs(nil)}
	_, _ = caller(ok, middleware.Log(j.logger(slog.LevelInfo), none...))(t.Context(), &addRequest{})
	assert.Equal(t, j.lines(t)[0]["level"], any("INFO"))

	resp, err := caller(ok, middleware.Log(nil))(t.Context(), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 3)
}

func TestLogLevelDisabled(t *testing.T) {
	var j journal
	m := endpoint.NewMux()
	m.Use(middleware.Log(j.logger(slog.LevelWarn)))
	serve(t, m, "svc.add", endpoint.New(failing(endpoint.NotFound.New("x"))))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.NotFound)
	assert.Equal(t, j.Len(), 0)
}

func TestLogForgedTrace(t *testing.T) {
	for _, forged := range []string{
		"x", parent[:54], strings.ToUpper(parent), "00_" + parent[3:], parent[:35] + "_" + parent[36:], "00-" + strings.Repeat("\n", 32) + parent[35:],
		"00-" + strings.Repeat("g", 32) + parent[35:],
	} {
		var j journal
		c := newCall(endpoint.ServerSide)
		c.SetTrace(forged)
		_, _ = middleware.Log(j.logger(slog.LevelInfo))(ok)(t.Context(), c)
		assert.Equal(t, j.lines(t)[0]["trace_id"], nil, forged)
	}
}
