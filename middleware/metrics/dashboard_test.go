package metrics_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/metrics"
)

const (
	dashboardFile    = "../../docs/grafana/postbus.json"
	provisioningFile = "../../docs/grafana/provisioning.yaml"
)

// exposed is what a scraper sees: the names of series, each with its labels.
type exposed map[string]map[string]bool

var sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)

// scripted runs a bus with everything on, calls it, and returns what there is then.
func scripted(t *testing.T) exposed {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	m := endpoint.NewMux()
	m.Use(metrics.New(reg))
	reg.MustRegister(metrics.Collector(m))
	serve(t, m, "svc.add", endpoint.New(add))
	calls(t, m, 7, 3)
	report := metrics.Gauges(reg)
	for _, name := range []string{"retry_budget", "breaker_state", "concurrency_limit"} { // what policies report
		report(name, "svc.add", 1)
	}
	seen := exposed{}
	for _, line := range scrape(t, reg) {
		parts := sample.FindStringSubmatch(line)
		assert.True(t, parts != nil, line)
		labels := seen[parts[1]]
		if labels == nil {
			labels = map[string]bool{"__name__": true}
			seen[parts[1]] = labels
		}
		for _, label := range labelsOf(parts[2]) {
			labels[label] = true
		}
	}
	return seen
}

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// labelsOf returns the names of a="b",c=~"d".
func labelsOf(matchers string) []string {
	var names []string
	for m := range strings.SplitSeq(quoted.ReplaceAllString(matchers, ""), ",") {
		if name := strings.TrimSpace(strings.TrimRight(strings.TrimSpace(m), "=~!")); name != "" {
			names = append(names, name)
		}
	}
	return names
}

var (
	selector   = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)?\{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\}`)
	byName     = regexp.MustCompile(`__name__\s*=~\s*"([^"]*)"`)
	grouping   = regexp.MustCompile(`\b(?:by|without)\s*\(([^()]*)\)`)
	identifier = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	duration   = regexp.MustCompile(`\[[^\]]*\]`)
	words      = []string{"sum", "rate", "increase", "histogram_quantile", "max", "min", "label_values"}
)

// faults returns what an expression asks for that nobody exposes. It knows as much of PromQL as the dashboard uses, and
// takes what it does not know for a mistake.
func (e exposed) faults(expr string) []string {
	var faults []string
	found := map[string]bool{} // the labels of all that the expression selects
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		names := []string{s[1]}
		if s[1] == "" {
			names = e.matching(s[2])
		}
		if len(names) == 0 {
			faults = append(faults, "no metric matches "+s[0])
		}
		for _, name := range names {
			faults = append(faults, e.lacks(name, labelsOf(s[2]))...)
			maps.Copy(found, e[name])
		}
	}
	rest := duration.ReplaceAllString(selector.ReplaceAllString(expr, ""), "")
	groups := grouping.FindAllStringSubmatch(rest, -1)
	for _, name := range identifier.FindAllString(quoted.ReplaceAllString(grouping.ReplaceAllString(rest, ""), ""), -1) {
		switch {
		case slices.Contains(words, name):
		case e[name] != nil:
			maps.Copy(found, e[name])
		case strings.HasPrefix(expr, "label_values(") && found[name]:
		default:
			faults = append(faults, "nobody exposes "+name)
		}
	}
	for _, g := range groups {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !found[label] {
				faults = append(faults, "no metric of it has the label "+label)
			}
		}
	}
	return faults
}

func (e exposed) matching(matchers string) []string {
	var names []string
	if by := byName.FindStringSubmatch(matchers); by != nil {
		pattern := regexp.MustCompile("^(?:" + by[1] + ")$")
		for name := range e {
			if pattern.MatchString(name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (e exposed) lacks(name string, labels []string) []string {
	if e[name] == nil {
		return []string{"nobody exposes " + name}
	}
	var faults []string
	for _, label := range labels {
		if !e[name][label] {
			faults = append(faults, name+" has no label "+label)
		}
	}
	return faults
}

// board is as much of a dashboard as the test holds against the metrics.
type board struct {
	UID    string `json:"uid"`
	Title  string `json:"title"`
	Panels []struct {
		ID          int    `json:"id"`
		Type        string `json:"type"`
		Title       string `json:"title"`
		Description string `json:"description"`
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ Expr string }
	} `json:"panels"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

func TestDashboard(t *testing.T) {
	data, err := os.ReadFile(dashboardFile)
	assert.NoError(t, err)
	var d board
	assert.NoError(t, json.Unmarshal(data, &d))
	e := scripted(t)

	var rows []string
	ids, cells, used := map[int]bool{}, map[[2]int]string{}, map[string]bool{}
	for _, p := range d.Panels {
		assert.True(t, p.ID > 0 && !ids[p.ID], p.Title, "has an id of its own")
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				assert.Equal(t, cells[at], "", p.Title, "lies over another")
				cells[at] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		assert.True(t, p.Description != "" && len(p.Targets) > 0 && p.GridPos.X+p.GridPos.W <= 24, p.Title)
		for _, target := range p.Targets {
			assert.Equal(t, e.faults(target.Expr), nil, p.Title, target.Expr)
			for name := range e {
				used[name] = used[name] || strings.Contains(target.Expr, name)
			}
		}
	}
	assert.Equal(t, rows, []string{"Traffic", "Errors by code", "Latency", "In flight", "Sizes", "The bus", "Policies"})
	variables := map[string]bool{}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		assert.Equal(t, e.faults(v.Definition), nil, v.Name)
	}
	for _, v := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(string(data), -1) {
		assert.True(t, variables[v[1]] || strings.HasPrefix(v[1], "__"), v[0], "is a variable")
	}
	var unused []string // nothing that there is should be missing
	for name := range e {
		if !used[name] && !strings.HasPrefix(name, "rpc_bus_call_duration_seconds") && !strings.HasSuffix(name, "_sum") && !strings.HasSuffix(name, "limit") {
			unused = append(unused, name)
		}
	}
	assert.Equal(t, unused, nil)
}

// TestProvisioning holds together what Grafana's two readers take from one file.
func TestProvisioning(t *testing.T) {
	data, err := os.ReadFile(provisioningFile)
	assert.NoError(t, err)
	assert.Contains(t, string(data), "\napiVersion: 1\n", "\ndatasources:\n", "type: prometheus", "name: trace_id", "\nproviders:\n", "type: file",
		"docs/grafana:/var/lib/grafana/dashboards/postbus:ro", "path: /var/lib/grafana/dashboards/postbus\n")
	assert.True(t, !strings.Contains(string(data), "\t"), "YAML has no tabs")
}

// TestDashboardFaults has expressions that are wrong, so that the test above can be believed.
func TestDashboardFaults(t *testing.T) {
	e := exposed{
		"rpc_x_count": {"__name__": true, "rpc_method": true, "le": true},
		"rpc_limit":   {"__name__": true, "rpc_subject": true},
	}
	for _, expr := range []string{
		`sum by (rpc_method) (rate(rpc_x_count{rpc_method=~"$method"}[$__rate_interval]))`,
		`histogram_quantile(0.99, sum by (le) (rate(rpc_x_count[5m])))`,
		`max by (__name__, rpc_subject) ({__name__=~"rpc_l.*", rpc_subject!="{}"})`,
		`label_values({__name__=~"rpc_x_.+"}, rpc_method)`,
	} {
		assert.Equal(t, e.faults(expr), nil, expr)
	}
	for expr, want := range map[string]string{
		`rate(rcp_x_count[5m])`:                      "nobody exposes rcp_x_count",
		`sum(rpc_y{rpc_method="a"})`:                 "nobody exposes rpc_y",
		`rpc_x_count{rpc_metod="a"}`:                 "rpc_x_count has no label rpc_metod",
		`sum by (rpc_subject) (rpc_x_count)`:         "no metric of it has the label rpc_subject",
		`{__name__=~"rpc_z.*"}`:                      "no metric matches {__name__=~\"rpc_z.*\"}",
		`irate(rpc_x_count[5m])`:                     "nobody exposes irate",
		`label_values(rpc_x_count, method)`:          "nobody exposes method",
		`rpc_x_count{rpc_method="a"} / rpc_x_counts`: "nobody exposes rpc_x_counts",
	} {
		assert.Equal(t, fmt.Sprint(e.faults(expr)), fmt.Sprint([]string{want}), expr)
	}
}
