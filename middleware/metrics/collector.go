package metrics

import (
	"crypto/rand"
	"maps"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
)

// Collector gives the counters that a bus keeps itself, read at each scrape: for each endpoint what was called, failed,
// runs, waits, was refused, expired or dropped, and how long calls took from receipt to reply; for the transport replies
// that came late, messages that could not be read, and reconnects. The table in the package's documentation has the names.
// It costs the calls nothing, and sees those that never reached a middleware.
//
// All of it has the label service_instance_id: what the reporter's ID method returns, which is the instance that logs and
// callers know; a random one if it has no such method. So the collectors of several buses fit on one registerer, also if
// they serve the same subjects. The same bus twice is the AlreadyRegisteredError it should be. The id of a bus is new with
// each start: sum it away, as the dashboard does. More labels are what [prometheus.WrapRegistererWith] adds.
//
// An endpoint that is served twice under one name, as while its first edition drains, is summed up. A reporter that panics
// reports nothing at this scrape, a nil one never does. It is safe for concurrent use when the reporter is.
func Collector(of endpoint.StatsReporter) prometheus.Collector {
	if absent(of) {
		of = nil
	}
	id := rand.Text()
	if known, ok := of.(interface{ ID() string }); ok {
		id = strings.ToValidUTF8(known.ID(), "_")
	}
	labels := prometheus.Labels{labelInstance: id}
	c := &collector{of: of}
	desc := func(name, help string, by ...string) *prometheus.Desc {
		d := prometheus.NewDesc(busPrefix+name, help, by, labels)
		c.descs = append(c.descs, d)
		return d
	}
	for i, m := range endpointCounters {
		c.endpoint[i] = desc(m.name, m.help, labelMethod, labelSubject)
	}
	for i, m := range transportCounters {
		c.transport[i] = desc(m.name, m.help)
	}
	c.errors = desc("call_errors_total", "Finished calls that failed, by code.", labelMethod, labelSubject, labelCode)
	c.latency = desc(nameDuration, "How long calls took, from the receipt of the request to the reply.", labelMethod, labelSubject)
	return c
}

// statsMetric is a number of a Stats.
type statsMetric struct {
	name, help string
	kind       prometheus.ValueType
	read       func(*endpoint.Stats) float64
}

var endpointCounters = [...]statsMetric{
	{
		"calls_total", "Finished calls; those that were refused, expired or dropped are not among them.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Calls) },
	},
	{
		nameInFlight, "Calls that run.",
		prometheus.GaugeValue, func(s *endpoint.Stats) float64 { return float64(s.InFlight) },
	},
	{
		"calls_waiting", "Calls that are admitted and do not run yet.",
		prometheus.GaugeValue, func(s *endpoint.Stats) float64 { return float64(s.Waiting) },
	},
	{
		"calls_refused_total", "Calls that found no room.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Refused) },
	},
	{
		"calls_expired_total", "Calls whose time was up before they were to run.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Expired) },
	},
	{
		"calls_dropped_total", "Requests that the client library dropped, unanswered.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Dropped) },
	},
}

var transportCounters = [...]statsMetric{
	{
		"replies_late_total", "Replies that came after their call had ended, or twice.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Late) },
	},
	{
		"replies_dropped_total", "Replies that the client library dropped.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Dropped) },
	},
	{
		"messages_malformed_total", "Messages that could not be read.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Malformed) },
	},
	{
		"publishes_denied_total", "Messages, requests or replies, that the broker would not let this client publish.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Denied) },
	},
	{
		"reconnects_total", "How often the connection to the broker was made again.",
		prometheus.CounterValue, func(s *endpoint.Stats) float64 { return float64(s.Reconnects) },
	},
}

type collector struct {
	of        endpoint.StatsReporter // nil: nothing to report
	descs     []*prometheus.Desc
	endpoint  [len(endpointCounters)]*prometheus.Desc
	transport [len(transportCounters)]*prometheus.Desc
	errors    *prometheus.Desc
	latency   *prometheus.Desc
}

func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

func (c *collector) Collect(to chan<- prometheus.Metric) {
	send := func(m prometheus.Metric, err error) {
		if err == nil { // a label that is not UTF-8 is made so before
			to <- m
		}
	}
	transport, endpoints := c.read()
	if transport != nil {
		for i, m := range transportCounters {
			send(prometheus.NewConstMetric(c.transport[i], m.kind, m.read(transport)))
		}
	}
	for key, s := range endpoints {
		for i, m := range endpointCounters {
			send(prometheus.NewConstMetric(c.endpoint[i], m.kind, m.read(s), key.method, key.subject))
		}
		for code, n := range s.Errors {
			send(prometheus.NewConstMetric(c.errors, prometheus.CounterValue, float64(n), key.method, key.subject, code.String()))
		}
		send(prometheus.NewConstHistogram(c.latency, s.Latency.Count(), s.Latency.Sum.Seconds(), cumulate(&s.Latency), key.method, key.subject))
	}
}

// statsKey is an endpoint by its labels.
type statsKey struct{ method, subject string }

// read asks the reporter, whose panic is nobody's business here, and sums up what has the same labels: two time series
// alike would fail the whole scrape.
func (c *collector) read() (transport *endpoint.Stats, endpoints map[statsKey]*endpoint.Stats) {
	if c.of == nil {
		return nil, nil
	}
	defer func() {
		if recover() != nil {
			transport, endpoints = nil, nil
		}
	}()
	endpoints = map[statsKey]*endpoint.Stats{}
	for _, s := range c.of.Stats() {
		if s.Subject == "" {
			transport = sum(transport, &s)
			continue
		}
		key := statsKey{methodLabel(s.Service, s.Name), strings.ToValidUTF8(s.Subject, "_")}
		endpoints[key] = sum(endpoints[key], &s)
	}
	return transport, endpoints
}

// sum adds s to what there is so far, nil for nothing.
func sum(to, s *endpoint.Stats) *endpoint.Stats {
	errs := map[endpoint.Code]uint64{}
	for code, n := range s.Errors {
		if code == endpoint.OK || code >= codes { // not ours, and its name might be anybody's
			code = endpoint.Unknown
		}
		errs[code] += n
	}
	if to == nil {
		n := *s
		n.Errors = errs
		return &n
	}
	to.Calls += s.Calls
	to.InFlight += s.InFlight
	to.Waiting += s.Waiting
	to.Refused += s.Refused
	to.Expired += s.Expired
	to.Dropped += s.Dropped
	to.Late += s.Late
	to.Malformed += s.Malformed
	to.Denied += s.Denied
	to.Reconnects += s.Reconnects
	to.Latency.Add(&s.Latency)
	for code, n := range maps.All(errs) {
		to.Errors[code] += n
	}
	return to
}

// cumulate turns the counts of a histogram into classic buckets, one for each doubling from 4 µs to about 36 minutes: a
// quarter of those there are, since each is a time series.
func cumulate(h *endpoint.Histogram) map[float64]uint64 {
	const octave = 4
	buckets := make(map[float64]uint64, endpoint.HistogramBuckets/octave)
	var n uint64
	for i, count := range &h.Counts {
		n += count
		if i%octave == octave-1 {
			buckets[endpoint.BucketBound(i).Seconds()] = n
		}
	}
	return buckets
}
