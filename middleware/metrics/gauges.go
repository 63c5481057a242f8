package metrics

import (
	"fmt"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
)

// The bounds of what [Gauges] makes, so that names and subjects from anywhere can't fill the memory.
const (
	maxGauges   = 100  // names
	maxSubjects = 1000 // of one name; the same as [New]'s default
	maxName     = 100  // bytes
)

// Gauges makes time series of what policies report: the Report of a breaker, a budget or a limit. A value reported as
// ("retry_budget", "svc.add", 3) is
//
//	rpc_retry_budget{rpc_method="svc/add", rpc_subject="svc.add"} 3
//
// Characters that a metric's name can't have become _; an ending that means something to a scraper, such as _total or
// _bucket, gets _value behind it. rpc_method is the one that [New] gives to a caller of the subject. At most 100 names have
// a metric, further ones are left out; at most 1,000 subjects of a name get a time series from one Gauges, the value of
// "_OTHER" is the last one of all the others.
//
// A second Gauges on the same registerer, for another bus, sets the same gauges. A metric that something else has
// registered in another shape stays as it is, and the values of that name are left out: a report has nobody to tell. With a
// nil registerer all are. The function is safe for concurrent use; a value costs a look at a map under a lock and
// allocates nothing.
func Gauges(reg prometheus.Registerer) func(name, subject string, value float64) {
	if absent(reg) {
		return func(string, string, float64) {}
	}
	g := &gauges{reg: reg, by: map[gaugeKey]prometheus.Gauge{}, vecs: map[string]*gaugeVec{}}
	return g.report
}

type gaugeKey struct{ name, subject string }

type gauges struct {
	reg prometheus.Registerer

	mu   sync.RWMutex
	by   map[gaugeKey]prometheus.Gauge // as reported
	vecs map[string]*gaugeVec          // by the metric's name
}

// gaugeVec is the metric of one name; without a vector its values are left out.
type gaugeVec struct {
	*prometheus.GaugeVec

	subjects int
	rest     prometheus.Gauge // of subjects beyond the bound; nil until there is one
}

func (g *gauges) report(name, subject string, value float64) {
	g.mu.RLock()
	found := g.by[gaugeKey{name, subject}]
	g.mu.RUnlock()
	if found == nil {
		found = g.find(name, subject)
	}
	if found != nil {
		found.Set(value)
	}
}

// find makes the gauge of a name and subject, or returns the one that stands in for it; nil if there is no room for the
// name.
func (g *gauges) find(name, subject string) prometheus.Gauge {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := gaugeKey{name, subject}
	if found := g.by[key]; found != nil {
		return found
	}
	vec := g.vec(gaugeName(name))
	if vec == nil {
		return nil
	}
	if vec.subjects >= maxSubjects || len(subject) > endpoint.MaxSubject {
		if vec.rest == nil {
			vec.rest = vec.WithLabelValues(otherMethod, otherMethod)
		}
		return vec.rest
	}
	vec.subjects++
	found := vec.WithLabelValues(subjectMethod(subject), strings.ToValidUTF8(subject, "_"))
	g.by[key] = found
	return found
}

// vec returns the metric of a name; nil if there is none.
func (g *gauges) vec(name string) *gaugeVec {
	if vec, ok := g.vecs[name]; ok {
		return vec
	}
	if len(g.vecs) >= maxGauges {
		return nil
	}
	help := fmt.Sprintf("What policies report as %s, by subject.", strings.TrimPrefix(name, gaugePrefix))
	there, err := register(g.reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{labelMethod, labelSubject}))
	var vec *gaugeVec
	if err == nil {
		vec = &gaugeVec{GaugeVec: there}
	}
	g.vecs[name] = vec
	return vec
}

// subjectMethod is the rpc_method of a caller of the subject.
func subjectMethod(subject string) string {
	if subject == "" {
		return ""
	}
	return methodLabel(endpoint.Identity("", subject))
}

// suffixes are those that scrapers take for parts of other metrics. A gauge that ends so could fail the whole scrape.
var suffixes = []string{"_total", "_created", "_info", "_count", "_sum", "_bucket"}

// gaugeName makes a metric's name of what a policy called its value.
func gaugeName(name string) string {
	if len(name) > maxName {
		name = name[:maxName]
	}
	name = gaugePrefix + strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
	for _, suffix := range suffixes {
		if strings.HasSuffix(name, suffix) {
			return name + "_value"
		}
	}
	return name
}
