package endpoint

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Instance is one running member of a service, as discovery finds it. Any ADR-32 service is one, in whatever language.
type Instance struct {
	Service     string // the service's name
	ID          string // unique to the instance
	Version     string
	Description string
	Metadata    map[string]string
	Endpoints   []EndpointInfo
}

// EndpointInfo is what an instance publishes of one endpoint. For services of other make only Name, Subject, Queue and
// Metadata are known; the other fields then have their zero values.
type EndpointInfo struct {
	Name       string
	Subject    string
	Queue      string // "" if every instance gets every call
	Doc        string
	Kind       Kind
	Codecs     []string // media types, the first is the endpoint's first choice
	Idempotent bool
	ReadOnly   bool
	Timeout    time.Duration
	Errors     []DeclaredError
	Request    json.RawMessage // JSON Schema, nil if not known
	Response   json.RawMessage
	Metadata   map[string]string // as published, those that the fields above were read from included
}

// Directory finds the instances that are there now. Transports that can have it: *bus.Bus and *Mux do. An empty name
// means all services. The result may be incomplete when a member is slow to answer.
type Directory interface {
	Discover(ctx context.Context, name string) ([]Instance, error)
}

// Info returns what an endpoint publishes under a subject with the codecs it is served in.
func (s *Spec) Info(subject string, codecs []string) (EndpointInfo, error) {
	info := EndpointInfo{
		Name: s.Name, Subject: subject, Queue: s.Queue, Doc: s.Doc, Kind: s.Kind, Codecs: codecs,
		Idempotent: s.Idempotent, ReadOnly: s.ReadOnly, Timeout: s.Timeout, Errors: s.Errors(), Metadata: maps.Clone(s.Meta),
	}
	var err error
	if !s.reqPay {
		if info.Request, err = Schema(s.Request); err != nil {
			return info, err
		}
	}
	if !s.respPay {
		info.Response, err = Schema(s.Response)
	}
	return info, err
}

func (i EndpointInfo) clone() EndpointInfo {
	i.Codecs, i.Errors, i.Metadata = slices.Clone(i.Codecs), slices.Clone(i.Errors), maps.Clone(i.Metadata)
	return i
}
