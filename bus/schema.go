package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
)

// Schemas of messages stand in the INFO of their service until it holds inlineSchemas of them. What has no room there is
// published as a hash, and fetched by who wants it: each listing of an account's services carries all of their INFOs.

const (
	inlineSchemas = 8 << 10
	schemaVerb    = "SCHEMA"
	hashPrefix    = "sha256:"
)

// schemaAnswer is what SCHEMA says of an endpoint.
type schemaAnswer struct {
	Subject  string          `json:"subject"`
	Request  json.RawMessage `json:"request,omitempty"`
	Response json.RawMessage `json:"response,omitempty"`
}

// hashOf is the hash of a schema as it stands in an answer.
func hashOf(schema json.RawMessage) string {
	sum := sha256.Sum256(schema)
	return hashPrefix + hex.EncodeToString(sum[:])
}

// canonical is the form that json.Marshal gives a schema inside of an answer.
func canonical(schema json.RawMessage) json.RawMessage {
	if len(schema) == 0 {
		return nil
	}
	text, err := json.Marshal(schema)
	if err != nil { // can't be: endpoint made it
		return nil
	}
	return text
}

// placeSchemas decides what of an operation's schemas its service publishes inline (lock held).
func (b *Bus) placeSchemas(s *service, op *operation) (request, response string) {
	left := min(inlineSchemas, int(b.nc.MaxPayload()/2))
	for _, o := range s.ops {
		left -= o.inline
	}
	place := func(schema json.RawMessage) string {
		if len(schema) > left {
			return hashOf(schema)
		}
		left -= len(schema)
		op.inline += len(schema)
		return string(schema)
	}
	op.info.Request, op.info.Response = canonical(op.info.Request), canonical(op.info.Response)
	return place(op.info.Request), place(op.info.Response)
}

// sendable returns a fault when an operation's schemas could not be fetched.
func (op *operation) sendable() error {
	body, err := json.Marshal(op.schemas())
	if limit := op.bus.nc.MaxPayload(); err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%s: its schemas have %d bytes, the broker takes %d", op.subject, len(body), limit)
	}
	return err
}

func (op *operation) schemas() schemaAnswer {
	return schemaAnswer{Subject: op.subject, Request: op.info.Request, Response: op.info.Response}
}

// schemasOf answers the question for the schemas of an endpoint, nil if the service has none on the subject (lock held).
func (s *service) schemasOf(subject string) any {
	for _, op := range s.ops {
		if op.subject == subject {
			return op.schemas()
		}
	}
	return nil
}

// fetchSchemas fills in the schemas that are published by reference, of whichever instance has them. Instances of one
// version have the same, so each is fetched once. Who is silent, for it has answered enough for now or is no more, is asked
// again after the others. What nobody tells in time stays unknown.
func (b *Bus) fetchSchemas(ctx context.Context, found []Instance) {
	ctx, cancel := context.WithTimeout(ctx, discoverTime)
	defer cancel()
	known := map[string]json.RawMessage{}
	for learnt := true; learnt; {
		learnt = false
		for _, i := range found {
			n, err := b.fetchFrom(ctx, i, known)
			learnt = n > 0 || learnt
			if errors.Is(err, endpoint.PermissionDenied) || ctx.Err() != nil {
				learnt = false
				break
			}
		}
	}
	for _, i := range found {
		for k := range i.Endpoints {
			e := &i.Endpoints[k]
			if s := known[e.Metadata[keyRequest]]; s != nil {
				e.Request = s
			}
			if s := known[e.Metadata[keyResponse]]; s != nil {
				e.Response = s
			}
		}
	}
}

// fetchFrom asks an instance for those of its schemas that are not known yet, until it is silent, and returns how many were
// learnt.
func (b *Bus) fetchFrom(ctx context.Context, i Instance, known map[string]json.RawMessage) (learnt int, err error) {
	missing := func(place string) bool { return strings.HasPrefix(place, hashPrefix) && known[place] == nil }
	for _, e := range i.Endpoints {
		request, response := e.Metadata[keyRequest], e.Metadata[keyResponse]
		if !missing(request) && !missing(response) {
			continue
		}
		answer, err := b.fetch(ctx, i, e.Subject)
		if answer == nil {
			return learnt, err
		}
		for place, schema := range map[string]json.RawMessage{request: answer.Request, response: answer.Response} {
			switch {
			case !missing(place):
			case hashOf(schema) == place:
				known[place] = schema
				learnt++
			default:
				b.malformed.Add(1)
			}
		}
	}
	return learnt, nil
}

// fetch asks an instance for the schemas of an endpoint; nil if it says nothing.
func (b *Bus) fetch(ctx context.Context, i Instance, subject string) (*schemaAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, discoverStall)
	defer cancel()
	var answer *schemaAnswer
	err := b.ask(ctx, b.srvRoot+"."+schemaVerb+"."+i.Service+"."+i.ID, []byte(subject), func(m *nats.Msg) bool {
		var a schemaAnswer
		if json.Unmarshal(m.Data, &a) != nil || a.Subject != subject {
			b.malformed.Add(1)
			return true
		}
		answer = &a
		return false
	})
	return answer, err
}
