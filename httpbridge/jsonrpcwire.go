package httpbridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"postbus.example/endpoint"
)

// The phrases and numbers of https://www.jsonrpc.org/specification#error_object.
var (
	rpcParse   = rpcCode{-32700, "Parse error"}
	rpcInvalid = rpcCode{-32600, "Invalid Request"}
	rpcMissing = rpcCode{-32601, "Method not found"}

	rpcVersion    = member{"jsonrpc", json.RawMessage(`"2.0"`)}
	errEmptyBatch = errors.New("a batch has at least one call")
)

type rpcCode struct {
	number int
	phrase string
}

// rpcEntry is one request object, or why it is none.
type rpcEntry struct {
	method string
	params json.RawMessage // an object or an array; nil if absent
	id     json.RawMessage // as it was written; nil for a notification
	fault  error
}

// rpcRequest reads a request object from valid JSON. Names of members have a case, and none may stand there twice.
func rpcRequest(data json.RawMessage) (r rpcEntry) {
	members, err := membersOf(data)
	if err != nil {
		return rpcEntry{fault: err}
	}
	version := ""
	for _, m := range members {
		first := m.value[0]
		switch m.name {
		case "jsonrpc":
			_ = json.Unmarshal(m.value, &version) // whatever is no string is not 2.0
		case "method":
			if json.Unmarshal(m.value, &r.method) != nil || first != '"' {
				r.fault = errors.New("the method is not a string")
			}
		case "params":
			if r.params = m.value; first != '{' && first != '[' {
				r.fault = errors.New("the params are neither an object nor an array")
			}
		case "id":
			switch first {
			case '{', '[', 't', 'f':
				r.fault = errors.New("the id is neither a string, nor a number, nor null")
			default:
				r.id = m.value
			}
		}
	}
	switch {
	case version != "2.0":
		r.fault = errors.New(`"jsonrpc" must be "2.0"`)
	case r.fault == nil && r.method == "":
		r.fault = errors.New("the method is missing")
	}
	return r
}

// elements returns those of a JSON array, up to a number of them, and whether there are more.
func elements(array json.RawMessage, most int) (all []json.RawMessage, more bool) {
	d := json.NewDecoder(bytes.NewReader(array))
	_, _ = d.Token() // the bracket: the array is valid
	for d.More() {
		if len(all) == most {
			return nil, true
		}
		var e json.RawMessage
		if d.Decode(&e) != nil {
			return nil, false // can't be: the array is valid
		}
		all = append(all, e)
	}
	return all, false
}

// jsonProblem says what is wrong with JSON that is not valid.
func jsonProblem(body []byte) error {
	var whole json.RawMessage
	err := json.Unmarshal(body, &whole)
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%w (at offset %d)", err, s.Offset)
	}
	return err
}

// rpcFault answers what is no request of JSON-RPC.
func rpcFault(c rpcCode, id json.RawMessage, why error) []byte {
	return rpcAnswer(id, c.number, c.phrase, []member{
		{"code", quote(endpoint.InvalidArgument.String())}, {"message", quote(why.Error())},
	})
}

// rpcError answers a call that failed.
func rpcError(id json.RawMessage, err error) []byte {
	e, _ := public(err)
	said, fault := e.MarshalJSON()
	members, broken := membersOf(said)
	if fault != nil || broken != nil { // no value it has can't be encoded
		members = nil
	}
	message := e.Code.String()
	var data []member
	for _, m := range members {
		if m.name == "message" {
			_ = json.Unmarshal(m.value, &message) // it was written as a string
			continue
		}
		data = append(data, m)
	}
	if _, ours := errors.AsType[*refusal](err); ours && e.Code == endpoint.Unimplemented {
		message = rpcMissing.phrase
	}
	return rpcAnswer(id, rpcNumber(e.Code), message, data)
}

func rpcAnswer(id json.RawMessage, number int, message string, data []member) []byte {
	if id == nil {
		id = json.RawMessage("null")
	}
	return writeObject([]member{rpcVersion, {"id", id}, {"error", writeObject([]member{
		{"code", fmt.Append(nil, number)}, {"message", quote(message)}, {"data", writeObject(data)},
	})}})
}

func rpcNumber(c endpoint.Code) int {
	switch c { //nolint:exhaustive // the others have a rule
	case endpoint.InvalidArgument:
		return -32602
	case endpoint.Unimplemented:
		return rpcMissing.number
	case endpoint.Internal, endpoint.Unknown:
		return -32603
	}
	return -32000 - int(c)
}
