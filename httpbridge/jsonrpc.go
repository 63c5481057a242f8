package httpbridge

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// WithJSONRPC answers JSON-RPC 2.0 (https://www.jsonrpc.org/specification) over POST at a path, "/rpc" if it is empty: single
// calls, notifications and batches. The method is the subject, "svc.add", of a unary endpoint that [Expose] made reachable;
// routes have no part in it. Whatever bounds and guards other calls holds for each of these. A batch has at most [Limits].Batch
// calls, of which a few run at once; the time of one call, and one authentication, are for all of it.
//
//	{"jsonrpc":"2.0","id":1,"method":"svc.add","params":{"a":1,"b":2}}   ~~>   {"jsonrpc":"2.0","id":1,"result":{"sum":3}}
//
// Params are an object, the request as it is. An array is the request, too, if the endpoint's published schema says that it
// takes one; else its elements are the fields of the request in the order in which the schema has them. Without a schema, an
// array is refused. Absent params are {}. An id comes back byte by byte. A notification is checked and called like any other
// call, and its outcome is logged only; a request of nothing else is answered with 204.
//
// The answer is 200, also if calls failed. What concerns the whole HTTP request (its method, media type, authentication or
// size) is refused as on any other path. The codes of errors:
//
//	-32700         malformed JSON
//	-32600         not a request of JSON-RPC 2.0, or too large a batch
//	-32601         no such method, and the code unimplemented
//	-32602         params of the wrong form, and invalid_argument
//	-32603         internal and unknown
//	-32000-n       the other codes, n is their number in gRPC: not_found is -32005
//
// Their data is {"code":"not_found","details":[…]}, as in the bridge's other errors. Metadata of replies ([WithHeaders])
// passes for single calls. By default there is no JSON-RPC.
func WithJSONRPC(at string) Option {
	return func(s *settings) {
		at := cmp.Or(at, "/rpc")
		switch {
		case s.rpc != "":
			s.fault("WithJSONRPC", fmt.Errorf("given twice, as %s and %.80q", s.rpc, at))
		case at[0] != '/' || at == "/" || path.Clean(at) != at || strings.ContainsAny(at, "{}%?#"):
			s.fault("WithJSONRPC", fmt.Errorf("%.80q is no plain path such as /rpc", at))
		default:
			s.claim("WithJSONRPC", at)
		}
		s.rpc = at
	}
}

// jsonRPC answers one HTTP request of JSON-RPC.
func (x *exchange) jsonRPC() error {
	if x.r.Method != http.MethodPost {
		return x.method(http.MethodPost)
	}
	if err := x.sameOrigin(); err != nil {
		return err
	}
	switch mediaType, err := requestType(x.r.Header["Content-Type"]); {
	case err != nil:
		return err
	case mediaType != jsonType && mediaType != "application/json-rpc" && mediaType != "application/jsonrequest":
		return unsupported(fmt.Sprintf("the content type %.80q is not taken, but application/json is", mediaType))
	}
	v, err := x.admit(nil)
	if err != nil {
		return err
	}
	defer v.end()
	body, err := x.read(v.bounded, v.life)
	if err != nil {
		return err
	}
	deadline := x.answerBy(&v)
	c := &rpcCalls{exchange: x, visit: &v, deadline: deadline}
	answer := c.answer(bytes.Trim(body, " \t\r\n"))
	if answer == nil {
		x.answering()
		x.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	x.write(jsonType, answer)
	return nil
}

// rpcCalls are the calls of one HTTP request.
type rpcCalls struct {
	*exchange
	*visit

	deadline time.Time
	replied  atomic.Int64 // bytes
}

// answer returns nil if nothing is to be said.
func (c *rpcCalls) answer(body []byte) []byte {
	if err := unicodeFault(body); err != nil {
		return rpcFault(rpcParse, nil, err)
	}
	if !json.Valid(body) {
		return rpcFault(rpcParse, nil, jsonProblem(body))
	}
	if body[0] != '[' {
		r := rpcRequest(body)
		return c.call(r, c.w)
	}
	entries, more := elements(body, c.limits.Batch)
	switch {
	case more:
		return rpcFault(rpcInvalid, nil, fmt.Errorf("a batch has at most %d calls", c.limits.Batch))
	case len(entries) == 0:
		return rpcFault(rpcInvalid, nil, errEmptyBatch)
	}
	answers := c.batch(entries)
	var all []byte
	for _, a := range answers {
		switch {
		case a == nil:
			continue
		case all == nil:
			all = append(all, '[')
		default:
			all = append(all, ',')
		}
		all = append(all, a...)
	}
	if all == nil {
		return nil
	}
	return append(all, ']')
}

// call makes one call and returns its answer, nil for a notification. Metadata of the reply go to w, if there is one.
func (c *rpcCalls) call(r rpcEntry, w http.ResponseWriter) []byte {
	if r.fault != nil {
		return rpcFault(rpcInvalid, r.id, r.fault)
	}
	if w == nil {
		w = &unwritten{}
	}
	x := &exchange{Bridge: c.Bridge, w: w, r: c.r, client: c.client, start: c.start, subject: r.method}
	result, err := c.afforded(x, r)
	if err != nil {
		err = x.attributed(err)
		_, status := public(err)
		x.record(status, status, err)
	}
	switch {
	case r.id == nil:
		return nil
	case err != nil:
		return rpcError(r.id, err)
	}
	return writeObject([]member{rpcVersion, {"id", r.id}, {"result", result}})
}

func (c *rpcCalls) result(x *exchange, r rpcEntry) (result json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			result, err = nil, endpoint.Recovered(p)
		}
	}()
	t := c.target(r.method)
	if t == nil {
		return nil, notFound()
	}
	x.directory.warm(x.start)
	ctx, err := x.authorize(c.ctx, t)
	if err != nil {
		return nil, err
	}
	params, err := c.params(t, r.params)
	if err != nil {
		return nil, err
	}
	reply, err := x.call(ctx, c.bounded, t, c.deadline, &codec.Payload{MediaType: jsonType, Data: params})
	switch {
	case err != nil:
		return nil, err
	case len(reply.Data) == 0:
		return json.RawMessage("null"), nil
	case x.replyType(reply.MediaType, jsonType) != jsonType || !json.Valid(reply.Data):
		return nil, endpoint.Internal.Errorf("the reply is not JSON but %.80q", reply.MediaType).WithOutcome(endpoint.Executed)
	}
	return reply.Data, nil
}

// target finds a method. Names that begin with rpc. are the specification's.
func (c *rpcCalls) target(method string) *target {
	if strings.HasPrefix(method, "rpc.") || endpoint.ValidateSubject(method) != nil || !ordinary(method) {
		return nil
	}
	return c.exposed.find(method)
}

// params makes the request of an endpoint.
func (c *rpcCalls) params(t *target, params json.RawMessage) (json.RawMessage, error) {
	switch {
	case params == nil:
		return json.RawMessage("{}"), nil
	case params[0] == '{':
		return params, nil
	}
	schema, err := c.directory.request(c.bounded, t.subject)
	if err != nil {
		return nil, err
	}
	s := t.shape.of(schema)
	if s != nil && s.list {
		return params, nil
	}
	most := 0
	if s != nil {
		most = len(s.fields)
	}
	values, more := elements(params, most)
	switch {
	case s == nil:
		return nil, wrongf("params by position need the endpoint's schema, which is not known; give them by name")
	case more:
		return nil, wrongf("the request has %d fields, the params are more", most)
	}
	members := make([]member, len(values))
	for i, v := range values {
		members[i] = member{s.fields[i].name, v}
	}
	return writeObject(members), nil
}
