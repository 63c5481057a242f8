package bus

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// service is one ADR-32 service of this instance: the endpoints that share a name.
type service struct {
	name    string
	started time.Time
	ops     []*operation  // in the order they were served
	mute    bool          // the broker does not let it be asked
	unasked atomic.Uint64 // nor us ask it, in this epoch of the connection
	subs    []*nats.Subscription
	verbs   bucket // of the answers it may give
}

// verbRate is how many verbs a service answers in a second, and at once after a silence. An INFO is long and its question
// costs nothing: beyond that, silence.
const verbRate = 20

// bucket lets verbRate pass in a second. The zero value is full.
type bucket struct {
	mu   sync.Mutex
	full time.Time // when it will be
}

// take reports whether there is one left, and takes it.
func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full.Before(now) {
		b.full = now
	}
	next := b.full.Add(time.Second / verbRate)
	if next.Sub(now) > time.Second {
		return false
	}
	b.full = next
	return true
}

// The keys of endpoint metadata, see Discovery in docs/protocol.md.
const (
	keyVersion    = "rpc.v"
	keyFeatures   = "rpc.features"
	keyKind       = "rpc.kind"
	keyCodecs     = "rpc.codecs"
	keyIdempotent = "rpc.idempotent"
	keyReadOnly   = "rpc.readonly"
	keyTimeout    = "rpc.timeout"
	keyDoc        = "rpc.doc"
	keyErrors     = "rpc.errors"
	keyRequest    = "rpc.request"
	keyResponse   = "rpc.response"
)

// register adds operations to their services, and checks that what is published of them can be sent (lock held).
func (b *Bus) register(ops []*operation) error {
	for _, op := range ops {
		s := b.services[op.spec.Service]
		if s == nil {
			s = &service{name: op.spec.Service, started: time.Now().UTC()}
			b.services[s.name] = s
		}
		op.info.Name = s.freeName(op.info.Name)
		request, response := b.placeSchemas(s, op)
		op.info.Metadata = publish(&op.info, b.featuresOf(op.info.Kind), request, response)
		s.ops = append(s.ops, op)
		b.served[op.subject] = op
	}
	b.tell()
	for _, op := range ops {
		s := b.services[op.spec.Service]
		info, err := json.Marshal(b.infoOf(s))
		if err == nil {
			err = op.sendable()
		}
		if limit := b.nc.MaxPayload(); err == nil && int64(len(info)) > limit {
			err = fmt.Errorf("%s: what is published of service %s has %d bytes, the broker takes %d", op.subject, s.name, len(info), limit)
		}
		if err != nil {
			b.forget(ops)
			return err
		}
	}
	return nil
}

// freeName numbers names that clash: subjects may differ where their names don't.
func (s *service) freeName(name string) string {
	taken := func(n string) bool {
		return slices.ContainsFunc(s.ops, func(o *operation) bool { return o.info.Name == n })
	}
	for i, try := 2, name; ; i++ {
		if !taken(try) {
			return try
		}
		try = name + "-" + strconv.Itoa(i)
	}
}

// forget takes operations out of their services; a service without any ceases to answer (lock held).
func (b *Bus) forget(ops []*operation) {
	for _, op := range ops {
		if b.served[op.subject] == op { // else it is served anew already
			delete(b.served, op.subject)
		}
		s := b.services[op.spec.Service]
		if s == nil {
			continue
		}
		s.ops = slices.DeleteFunc(s.ops, func(o *operation) bool { return o == op })
		if len(s.ops) == 0 {
			s.silence()
			delete(b.services, s.name)
		}
	}
	b.tell()
}

// tell gives callbacks a copy of what is served (lock held).
func (b *Bus) tell() {
	taken := maps.Clone(b.served)
	b.taken.Store(&taken)
}

// silent notes that the operations' services can't be asked.
func (b *Bus) silent(ops []*operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, op := range ops {
		if s := b.services[op.spec.Service]; s != nil {
			s.mute = true
		}
	}
}

func (s *service) silence() {
	for _, sub := range s.subs {
		_ = sub.Unsubscribe()
	}
	s.subs = nil
}

// announce subscribes a service to the verbs of ADR-32 (lock held). The subjects are the ones that the documented
// permissions name.
func (b *Bus) announce(s *service) *endpoint.Error {
	subjects := []string{
		b.srvRoot + ".PING", b.srvRoot + infoVerb, b.srvRoot + ".STATS",
		b.srvRoot + ".*." + s.name, b.srvRoot + ".*." + s.name + "." + b.id,
	}
	for _, subject := range subjects {
		sub, err := b.nc.Subscribe(subject, func(m *nats.Msg) { b.answer(s, m) })
		if err != nil {
			return b.sendError(err, 0)
		}
		s.subs = append(s.subs, sub)
	}
	return nil
}

// answer is the callback of all verbs. Unknown verbs are ignored.
func (b *Bus) answer(s *service, m *nats.Msg) {
	if m.Reply == "" {
		return
	}
	if b.hostileReply(m.Reply) {
		b.malformed.Add(1)
		return
	}
	if !strings.HasPrefix(m.Reply, b.mux.prefix) && !s.verbs.take(time.Now()) { // we ask ourselves as often as we like
		return
	}
	verb, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, b.srvRoot+"."), ".")
	b.mu.RLock()
	var v any
	unknown := false
	switch {
	case b.state != running:
	case verb == schemaVerb && strings.HasSuffix(m.Subject, "."+b.id):
		v = s.schemasOf(string(m.Data))
		unknown = v == nil
	case verb == "PING":
		v = micro.Ping{ServiceIdentity: b.identity(s), Type: micro.PingResponseType}
	case verb == "INFO":
		v = b.infoOf(s)
	case verb == "STATS":
		v = b.statsOf(s)
	}
	b.mu.RUnlock()
	if unknown {
		b.replyError(b.sender(arrival{msg: m}), errNoEndpoint, nil)
	}
	if v == nil {
		return
	}
	body, err := json.Marshal(v)
	if err == nil {
		err = m.Respond(body)
	}
	if err != nil {
		b.report(slog.LevelWarn, "discovery not answered", slog.String("subject", m.Subject), slog.Any("error", err))
	}
}

func (b *Bus) identity(s *service) micro.ServiceIdentity {
	md := b.metadata
	if md == nil {
		md = map[string]string{}
	}
	return micro.ServiceIdentity{Name: s.name, ID: b.id, Version: b.version, Metadata: md}
}

func (b *Bus) infoOf(s *service) micro.Info {
	info := micro.Info{
		ServiceIdentity: b.identity(s), Type: micro.InfoResponseType, Description: b.description,
		Endpoints: make([]micro.EndpointInfo, 0, len(s.ops)),
	}
	for _, op := range s.ops {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: op.info.Name, Subject: op.subject,
			QueueGroup: op.spec.Queue, Metadata: op.info.Metadata,
		})
	}
	return info
}

// opStats is the data of an endpoint in STATS.
type opStats struct {
	InFlight  int64    `json:"in_flight"`
	Waiting   int64    `json:"waiting"`
	Refused   uint64   `json:"refused"`
	Expired   uint64   `json:"expired"`
	Dropped   uint64   `json:"dropped"`
	P50       int64    `json:"p50_ns"`
	P95       int64    `json:"p95_ns"`
	P99       int64    `json:"p99_ns"`
	Histogram []uint64 `json:"histogram"` // counts by endpoint.BucketBound, without the empty tail
}

func (b *Bus) statsOf(s *service) micro.Stats {
	out := micro.Stats{
		ServiceIdentity: b.identity(s), Type: micro.StatsResponseType, Started: s.started,
		Endpoints: make([]*micro.EndpointStats, 0, len(s.ops)),
	}
	for _, op := range s.ops {
		st := op.stats()
		data := opStats{
			InFlight: st.InFlight, Waiting: st.Waiting, Refused: st.Refused, Expired: st.Expired, Dropped: st.Dropped,
			P50: int64(st.Latency.Quantile(0.5)), P95: int64(st.Latency.Quantile(0.95)), P99: int64(st.Latency.Quantile(0.99)),
			Histogram: []uint64{},
		}
		for i, n := range &st.Latency.Counts {
			if n > 0 {
				data.Histogram = st.Latency.Counts[:i+1]
			}
		}
		raw, err := json.Marshal(data)
		if err != nil {
			raw = nil
		}
		e := &micro.EndpointStats{
			Name: op.info.Name, Subject: op.subject, QueueGroup: op.spec.Queue,
			NumRequests: int(st.Calls), NumErrors: int(st.Failures()), LastError: st.LastError, ProcessingTime: st.Latency.Sum, Data: raw,
		}
		if st.Calls > 0 {
			e.AverageProcessingTime = st.Latency.Sum / time.Duration(st.Calls)
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out
}

// publish turns what is known of an endpoint into metadata, with its schemas or their hashes.
func publish(info *endpoint.EndpointInfo, features, request, response string) map[string]string {
	md := maps.Clone(info.Metadata)
	if md == nil {
		md = map[string]string{}
	}
	set := func(key, value string) {
		if value != "" {
			md[key] = value
		}
	}
	set(keyVersion, wire.Version)
	set(keyFeatures, features)
	set(keyKind, info.Kind.String())
	set(keyCodecs, strings.Join(info.Codecs, ","))
	set(keyDoc, info.Doc)
	set(keyRequest, request)
	set(keyResponse, response)
	if info.Idempotent {
		set(keyIdempotent, "true")
	}
	if info.ReadOnly {
		set(keyReadOnly, "true")
	}
	if info.Timeout > 0 {
		set(keyTimeout, info.Timeout.String())
	}
	var errs []string
	for _, e := range info.Errors {
		errs = append(errs, e.Name+"="+e.Code.String())
	}
	set(keyErrors, strings.Join(errs, ","))
	return md
}

// unpublish is the reverse of publish, for whatever a peer says.
func unpublish(name, subject, queue string, md map[string]string) endpoint.EndpointInfo {
	info := endpoint.EndpointInfo{
		Name: name, Subject: subject, Queue: queue, Metadata: md, Doc: md[keyDoc],
		Idempotent: md[keyIdempotent] == "true", ReadOnly: md[keyReadOnly] == "true",
	}
	info.Kind, _ = endpoint.ParseKind(md[keyKind])
	if c := md[keyCodecs]; c != "" {
		info.Codecs = strings.Split(c, ",")
	}
	if d, err := time.ParseDuration(md[keyTimeout]); err == nil && d > 0 {
		info.Timeout = d
	}
	if s := md[keyRequest]; json.Valid([]byte(s)) {
		info.Request = json.RawMessage(s)
	}
	if s := md[keyResponse]; json.Valid([]byte(s)) {
		info.Response = json.RawMessage(s)
	}
	for e := range strings.SplitSeq(md[keyErrors], ",") {
		name, code, ok := strings.Cut(e, "=")
		if c, known := endpoint.ParseCode(code); ok && known {
			info.Errors = append(info.Errors, endpoint.DeclaredError{Name: name, Code: c})
		}
	}
	return info
}
