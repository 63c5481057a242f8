package cli_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestLs(t *testing.T) {
	t.Parallel()
	s := broker(t)
	assert.Equal(t, run(t, to(s, "ls")), result{0, "", "postbus: no service answered\n"})
	assert.Equal(t, run(t, to(s, "ls", "--json")), result{0, "[]\n", ""})
	serve(t, s, math(), bus.WithVersion("1.9.0"), bus.WithDescription("a calculator"))
	serve(t, s, math(), bus.WithVersion("1.10.0"), bus.WithDescription("a calculator\x1b[2J"))
	serve(t, s, map[string]*endpoint.Endpoint{"acme.users.get": endpoint.New(add, endpoint.Queue(""))}, bus.WithVersion("0.1.0"))
	r := run(t, to(s, "ls"))
	assert.Equal(t, []any{r.code, r.err}, []any{0, ""})
	lines := strings.Split(r.out, "\n")
	assert.Equal(t, strings.Join(strings.Fields(lines[0]), " "), "SERVICE VERSION INSTANCES ENDPOINTS DESCRIPTION")
	assert.Equal(t, strings.Fields(lines[1]), []string{"acme-users", "0.1.0", "1", "1"})
	assert.Contains(t, lines[2], "math ", "1.9.0, 1.10.0", " 2 ", " 4 ", "a calculator")
	assert.True(t, !strings.Contains(r.out, "\x1b"), "a peer's text moves no cursor")
	long := run(t, to(s, "ls", "-l"))
	assert.Contains(t, long.out, "math.add        unary          math        q      adds two numbers\n", "acme.users.get  unary          acme-users\n",
		"math.count      server_stream  math")
	var services []struct {
		Service   string
		Instances int
		Endpoints []struct{ Subject, Kind string }
	}
	assert.NoError(t, json.Unmarshal([]byte(run(t, to(s, "ls", "--json")).out), &services))
	assert.Equal(t, []any{len(services), services[1].Service, services[1].Instances, services[1].Endpoints[0].Subject}, []any{2, "math", 2, "math.add"})
}

func TestInfo(t *testing.T) {
	t.Parallel()
	s := broker(t)
	services := math()
	b := serve(t, s, services, bus.WithVersion("1.9.0"), bus.WithMetadata(map[string]string{"zone": "a"}))
	for _, body := range []string{`{"a":1}`, `{"b":13}`} {
		run(t, to(s, "call", "math.add", body))
	}
	r := run(t, to(s, "info", "math"))
	assert.Equal(t, []any{r.code, r.err}, []any{0, ""})
	assert.Contains(t, r.out, "math\n  instance "+b.ID()+"  1.9.0  since 20", "  zone=a\n",
		"\n  math.add  unary  idempotent  queue q\n    adds two numbers\n    request   {", `"properties"`,
		"calls     2, errors 1, mean ", ", last error not_found", "\n  math.count  server_stream  queue q\n")
	var d struct {
		Service   string
		Instances []struct {
			ID, Version string
			Endpoints   []struct {
				Subject, Kind string
				Request       map[string]any
				Stats         struct{ Requests, Errors int }
			}
		}
	}
	assert.NoError(t, json.Unmarshal([]byte(run(t, to(s, "info", "math", "--json")).out), &d))
	assert.Equal(t, []any{d.Service, len(d.Instances), d.Instances[0].ID, len(d.Instances[0].Endpoints)}, []any{"math", 1, b.ID(), 4})
	for _, e := range d.Instances[0].Endpoints {
		if e.Subject == "math.add" {
			assert.Equal(t, []any{e.Kind, e.Stats.Requests, e.Stats.Errors, e.Request["type"]}, []any{"unary", 2, 1, any("object")})
		}
	}
	r = run(t, to(s, "info", "nobody"))
	assert.Equal(t, r, result{114, "", "postbus: unavailable (no_responders): no instance of service nobody answered (not executed)\n"})
	assert.Equal(t, run(t, to(s, "info", "a b")).code, 64)
}

func TestGather(t *testing.T) {
	t.Parallel()
	s := broker(t)
	stock := func(n int) map[string]*endpoint.Endpoint {
		return map[string]*endpoint.Endpoint{"inventory.stock": endpoint.New(func(context.Context, *struct{}) (*number, error) {
			if n == 0 {
				return nil, endpoint.FailedPrecondition.New("closed")
			}
			return &number{n}, nil
		})}
	}
	one, two := serve(t, s, stock(1)), serve(t, s, stock(2))
	ask := func(more ...string) result {
		return run(t, to(s, append([]string{"gather", "inventory.stock"}, more...)...))
	}
	r := ask()
	assert.Equal(t, []any{r.code, r.err, strings.Count(r.out, "\n")}, []any{0, "", 2})
	assert.Contains(t, r.out, one.ID()+`  {"n":1}`+"\n", two.ID()+`  {"n":2}`+"\n")
	r = ask("--first", "--json")
	assert.Equal(t, []any{r.code, r.err, strings.Count(r.out, "\n")}, []any{0, "", 1})
	shut := serve(t, s, stock(0))
	r = ask()
	assert.Equal(t, []any{r.code, r.err, strings.Count(r.out, "\n")}, []any{109, "postbus: " + shut.ID() + ": failed_precondition: closed (executed)\n", 2})
	r = ask("--json")
	assert.Equal(t, []any{r.code, r.err}, []any{109, ""})
	assert.Contains(t, r.out, `{"instance":"`+shut.ID()+`","error":{"code":"failed_precondition","message":"closed","outcome":"executed"}}`)
	r = ask("--first", "--quorum", "2")
	assert.Equal(t, r.code, 64)
	assert.Equal(t, ask("--quorum", "2").code, 0, "two are good")
	assert.Equal(t, ask("--quorum", "3").code, 109, "and no third one")
}

// TestGather_missing has an instance that is known and never answers.
func TestGather_missing(t *testing.T) {
	t.Parallel()
	s := broker(t)
	hang := make(chan struct{})
	handler := func(wait bool) map[string]*endpoint.Endpoint {
		return map[string]*endpoint.Endpoint{"slow.ask": endpoint.New(func(context.Context, *struct{}) (*number, error) {
			if wait {
				<-hang
			}
			return &number{1}, nil
		})}
	}
	serve(t, s, handler(false))
	lost := serve(t, s, handler(true))
	t.Cleanup(func() { close(hang) })
	r := run(t, to(s, "gather", "slow.ask", "--timeout", "300ms"))
	assert.Equal(t, []any{r.code / 100, strings.Count(r.out, "\n")}, []any{1, 1})
	assert.Contains(t, r.err, lost.ID())
}
