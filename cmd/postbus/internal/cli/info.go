package cli

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"

	"postbus.example/endpoint"
)

// infoCmd describes one service.
type infoCmd struct {
	Service string        `arg:"" help:"The service's name, as ls shows it."`
	Timeout time.Duration `default:"2s" placeholder:"TIME" help:"How long to wait for answers at most."`
}

// Help is for kong.
func (*infoCmd) Help() string {
	return `Shows the instances of a service, and of each endpoint its kind, documentation, errors, schemas, queue group and counters.

    postbus info math
    postbus info math --json | jq '.instances[].endpoints[].request'`
}

func (c *infoCmd) check(_ *process, f *faults) {
	f.add("<service>", endpoint.ValidateServiceName(c.Service))
}

func (c *infoCmd) run(ctx context.Context, p *process) error {
	b, err := p.connect()
	if err != nil {
		return err
	}
	defer disconnect(b)
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	found, err := b.Discover(ctx, c.Service)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return endpoint.Unavailable.Errorf("no instance of service %s answered", c.Service).WithReason(endpoint.ReasonNoResponders).
			WithOutcome(endpoint.NotExecuted)
	}
	stats, err := statsOf(ctx, b.Conn(), c.Service, len(found))
	if err != nil {
		p.logger().Debug("not all counters are known", "error", err)
	}
	d := describe(found, stats)
	if p.opts.JSON {
		return p.writeJSON(d)
	}
	return p.write(d.text())
}

// description is what info tells of a service.
type description struct {
	Service   string             `json:"service"`
	Instances []describedOne     `json:"instances"`
	endpoints []describedService // those of all instances together
}

// describedOne is an instance.
type describedOne struct {
	ID          string              `json:"id"`
	Version     string              `json:"version"`
	Description string              `json:"description,omitempty"`
	Metadata    map[string]string   `json:"metadata,omitempty"`
	Started     *time.Time          `json:"started,omitempty"`
	Endpoints   []describedEndpoint `json:"endpoints"`
}

// describedEndpoint is an endpoint of one instance.
type describedEndpoint struct {
	Name       string            `json:"name"`
	Subject    string            `json:"subject"`
	Kind       string            `json:"kind"`
	Queue      string            `json:"queue,omitempty"`
	Doc        string            `json:"doc,omitempty"`
	Codecs     []string          `json:"codecs,omitempty"`
	Idempotent bool              `json:"idempotent,omitempty"`
	ReadOnly   bool              `json:"readOnly,omitempty"`
	Timeout    string            `json:"timeout,omitempty"`
	Errors     map[string]string `json:"errors,omitempty"`
	Request    json.RawMessage   `json:"request,omitempty"`
	Response   json.RawMessage   `json:"response,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Stats      *counters         `json:"stats,omitempty"`
}

// counters are those of one endpoint. Times are in seconds.
type counters struct {
	Requests  int     `json:"requests"`
	Errors    int     `json:"errors"`
	LastError string  `json:"lastError,omitempty"`
	Mean      float64 `json:"mean"`
	InFlight  int64   `json:"inFlight"`
	Waiting   int64   `json:"waiting"`
	Refused   uint64  `json:"refused"`
	Expired   uint64  `json:"expired"`
	P50       float64 `json:"p50,omitempty"`
	P99       float64 `json:"p99,omitempty"`
}

// describedService is an endpoint of all instances together.
type describedService struct {
	info  endpoint.EndpointInfo
	of    int // instances that have it
	told  int // of these, that told their counters
	total counters
}

func describe(found []endpoint.Instance, stats map[string]*micro.Stats) *description {
	d := &description{Service: found[0].Service}
	totals := map[string]*describedService{}
	for _, i := range found {
		one := describedOne{ID: i.ID, Version: i.Version, Description: i.Description, Metadata: i.Metadata, Endpoints: []describedEndpoint{}}
		s := stats[i.ID]
		if s != nil {
			one.Started = &s.Started
		}
		for _, e := range i.Endpoints {
			c := countersOf(s, e.Subject)
			one.Endpoints = append(one.Endpoints, describedEndpointOf(&e, c))
			t := totals[e.Subject]
			if t == nil {
				t = &describedService{}
				totals[e.Subject] = t
			}
			t.of++
			if c != nil {
				t.told++
				t.total.add(c)
			}
		}
		d.Instances = append(d.Instances, one)
	}
	for _, e := range endpointsOf(found) {
		t := totals[e.Subject]
		t.info = e
		d.endpoints = append(d.endpoints, *t)
	}
	return d
}

func describedEndpointOf(e *endpoint.EndpointInfo, c *counters) describedEndpoint {
	d := describedEndpoint{
		Name: e.Name, Subject: e.Subject, Kind: e.Kind.String(), Queue: e.Queue, Doc: e.Doc, Codecs: e.Codecs, Idempotent: e.Idempotent,
		ReadOnly: e.ReadOnly, Request: e.Request, Response: e.Response, Stats: c,
	}
	if e.Timeout > 0 {
		d.Timeout = e.Timeout.String()
	}
	for _, declared := range e.Errors {
		if d.Errors == nil {
			d.Errors = map[string]string{}
		}
		d.Errors[declared.Name] = declared.Code.String()
	}
	for k, v := range e.Metadata {
		if !strings.HasPrefix(k, "rpc.") { // those are the fields above
			if d.Metadata == nil {
				d.Metadata = map[string]string{}
			}
			d.Metadata[k] = v
		}
	}
	return d
}

func countersOf(s *micro.Stats, subject string) *counters {
	if s == nil {
		return nil
	}
	for _, e := range s.Endpoints {
		if e == nil || e.Subject != subject {
			continue
		}
		var x extra
		_ = json.Unmarshal(e.Data, &x) // other makes have other data
		return &counters{
			Requests: e.NumRequests, Errors: e.NumErrors, LastError: e.LastError, Mean: e.AverageProcessingTime.Seconds(), InFlight: x.InFlight,
			Waiting: x.Waiting, Refused: x.Refused, Expired: x.Expired, P50: time.Duration(x.P50).Seconds(), P99: time.Duration(x.P99).Seconds(),
		}
	}
	return nil
}

// add sums up, but for quantiles: the worst instance's stand for all.
func (c *counters) add(o *counters) {
	if n := c.Requests + o.Requests; n > 0 {
		c.Mean = (c.Mean*float64(c.Requests) + o.Mean*float64(o.Requests)) / float64(n)
	}
	c.Requests, c.Errors, c.InFlight, c.Waiting = c.Requests+o.Requests, c.Errors+o.Errors, c.InFlight+o.InFlight, c.Waiting+o.Waiting
	c.Refused, c.Expired, c.P50, c.P99 = c.Refused+o.Refused, c.Expired+o.Expired, max(c.P50, o.P50), max(c.P99, o.P99)
	if o.LastError != "" {
		c.LastError = o.LastError
	}
}
