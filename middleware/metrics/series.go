package metrics

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
)

// side is the metrics of servers, or of clients.
type side struct {
	duration       *prometheus.HistogramVec
	request, reply *prometheus.HistogramVec
	inFlight       *prometheus.GaugeVec

	most    int
	mu      sync.RWMutex
	methods map[method]*series
	rest    *series // of all methods beyond most; nil until there is one
}

type method struct{ service, name string }

// newSide makes the metrics of a side and registers them, or takes those that are there. It joins all faults.
func newSide(reg prometheus.Registerer, prefix string, most int) (*side, error) {
	s := &side{most: most, methods: map[method]*series{}}
	who := strings.TrimSuffix(strings.TrimPrefix(prefix, "rpc_"), "_")
	byMethod := []string{labelSystem, labelMethod}
	byCode := []string{labelSystem, labelMethod, labelCode, labelError}
	var faults [4]error
	s.duration, faults[0] = register(reg, prometheus.NewHistogramVec(
		histogramOpts(prefix+nameDuration, "How long calls took at the "+who+", by method and code.", "seconds", durations), byCode))
	s.request, faults[1] = register(reg, prometheus.NewHistogramVec(
		histogramOpts(prefix+nameRequest, "The encoded size of requests at the "+who+", where there is one request.", "bytes", sizes), byMethod))
	s.reply, faults[2] = register(reg, prometheus.NewHistogramVec(
		histogramOpts(prefix+nameReply, "The encoded size of replies at the "+who+", where there is one reply.", "bytes", sizes), byMethod))
	s.inFlight, faults[3] = register(reg, prometheus.NewGaugeVec(
		prometheus.GaugeOpts{Name: prefix + nameInFlight, Help: "Calls and streams that have not ended at the " + who + "."}, byMethod))
	return s, errors.Join(faults[:]...)
}

var (
	// durations are the classic buckets that the conventions advise, in seconds.
	durations = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	// sizes are classic buckets from 64 B to 64 MiB, each four times as large as the one before.
	sizes = prometheus.ExponentialBuckets(64, 4, 11)
)

// histogramOpts asks for classic and native buckets. The native ones are at most a tenth wide, at most 160 at a time, and
// regain their resolution after an hour when they had to be joined.
func histogramOpts(name, help, unit string, classic []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Unit: unit, Buckets: slices.Clone(classic),
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}
}

// register registers a collector, or returns the same one that is registered already.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err)
	if !ok {
		return c, err
	}
	if there, ok := already.ExistingCollector.(C); ok {
		return there, nil
	}
	return c, fmt.Errorf("a %T is registered where a %T is needed: %w", already.ExistingCollector, c, err)
}

// of returns the series of a method, or those of the rest when there is no room for another one.
func (s *side) of(service, name string) *series {
	m := method{service, name}
	s.mu.RLock()
	found := s.methods[m]
	s.mu.RUnlock()
	if found != nil {
		return found
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.methods[m]; found != nil {
		return found
	}
	label := methodLabel(service, name)
	if len(s.methods) >= s.most || label == otherMethod {
		if s.rest == nil {
			s.rest = s.bind(otherMethod)
		}
		return s.rest
	}
	n := s.bind(label)
	s.methods[m] = n
	return n
}

func (s *side) bind(label string) *series {
	return &series{side: s, method: label, inFlight: s.inFlight.WithLabelValues(systemName, label)}
}

// maxLabel is the longest rpc_method in bytes; subjects that may be served or called make none that long.
const maxLabel = 2 * endpoint.MaxSubject

// methodLabel makes the value of rpc_method. Names of transports are legal; those of a Spec written by hand may be
// anything.
func methodLabel(service, name string) string {
	if service == "" || name == "" || len(service)+1+len(name) > maxLabel || !utf8.ValidString(service) || !utf8.ValidString(name) {
		return otherMethod
	}
	return service + "/" + name
}

// series are the time series of one method on one side. Those that not every method has are made when they are needed.
type series struct {
	side           *side
	method         string
	inFlight       prometheus.Gauge
	durations      [codes]atomic.Pointer[histogram] // by code
	request, reply atomic.Pointer[histogram]
}

// histogram is one time series, looked up once.
type histogram struct {
	prometheus.Observer
	exemplars prometheus.ExemplarObserver // nil: it takes none
}

// end counts a call out.
func (s *series) end(c *endpoint.Call, start time.Time, err error) {
	s.inFlight.Dec()
	took := time.Since(start)
	code := codeOf(c, err)
	d := s.durations[code].Load()
	if d == nil {
		failed := code.String()
		if code == endpoint.OK {
			failed = ""
		}
		d = fill(&s.durations[code], s.side.duration, systemName, s.method, code.String(), failed)
	}
	d.observe(took.Seconds(), c.Trace())
	s.measure(c, err)
}

// measure counts the sizes that there are: those of single messages, of requests if they got as far as to be encoded.
func (s *series) measure(c *endpoint.Call, err error) {
	request, reply := c.Sizes()
	if !c.Spec.Kind.StreamsIn() && (request > 0 || err == nil) {
		h := s.request.Load()
		if h == nil {
			h = fill(&s.request, s.side.request, systemName, s.method)
		}
		h.Observe(float64(request))
	}
	if !c.Spec.Kind.StreamsOut() && err == nil {
		h := s.reply.Load()
		if h == nil {
			h = fill(&s.reply, s.side.reply, systemName, s.method)
		}
		h.Observe(float64(reply))
	}
}

// fill makes a time series on first use. Who comes at the same moment gets the same one from the vector.
func fill(at *atomic.Pointer[histogram], of *prometheus.HistogramVec, labels ...string) *histogram {
	h := &histogram{Observer: of.WithLabelValues(labels...)}
	h.exemplars, _ = h.Observer.(prometheus.ExemplarObserver)
	at.Store(h)
	return h
}

func (h *histogram) observe(v float64, traceparent string) {
	if h.exemplars != nil {
		if id := sampledTrace(traceparent); id != "" {
			h.exemplars.ObserveWithExemplar(v, prometheus.Labels{exemplarKey: strings.Clone(id)}) // a header is not kept alive
			return
		}
	}
	h.Observe(v)
}

// sampledTrace takes the id out of a traceparent (https://www.w3.org/TR/trace-context/#traceparent-header), "" if the
// trace is not sampled or this is not a traceparent: a header comes from outside.
//
//	00-<32 hex digits: trace>-<16: parent>-<2: flags>
func sampledTrace(s string) string {
	const version, id, parent, flags, end = 2, 35, 52, 53, 55
	switch {
	case len(s) < end || s[version] != '-' || s[id] != '-' || s[parent] != '-':
		return ""
	case len(s) > end && (s[:version] == "00" || s[end] != '-'): // later versions may append
		return ""
	case s[:version] == "ff" || !hexDigits(s[:version]) || !hexDigits(s[flags:end]) || hexDigit(s[end-1])&1 == 0:
		return ""
	case !hexID(s[version+1:id]) || !hexID(s[id+1:parent]):
		return ""
	}
	return s[version+1 : id]
}

// hexDigit returns the value of a digit, in lower case only; 16 and more if it is none.
func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 1 << 4
}

func hexDigits(s string) bool {
	for i := range len(s) {
		if hexDigit(s[i]) > 15 {
			return false
		}
	}
	return true
}

// hexID reports whether s is hex digits that are not all 0.
func hexID(s string) bool { return hexDigits(s) && strings.Trim(s, "0") != "" }
