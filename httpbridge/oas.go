package httpbridge

import "encoding/json"

// The parts of https://spec.openapis.org/oas/v3.1.1 and v3.2.0 that the bridge writes. Maps are written in the order of their
// keys.

type oasDocument struct {
	OpenAPI    string                `json:"openapi"`
	Info       oasInfo               `json:"info"`
	Servers    []oasServer           `json:"servers"`
	Security   []map[string][]string `json:"security"`
	Tags       []oasTag              `json:"tags,omitempty"`
	Paths      map[string]oasPath    `json:"paths"`
	Components oasComponents         `json:"components"`
}

type oasInfo struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description string `json:"description,omitempty"`

	Contact json.RawMessage `json:"contact,omitempty"`
	License json.RawMessage `json:"license,omitempty"`
}

type oasServer struct {
	URL string `json:"url"`
}

type oasTag struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

// oasPath has operations by their methods in lower case.
type oasPath map[string]*oasOperation

type oasOperation struct {
	ID          string                 `json:"operationId"`
	Summary     string                 `json:"summary"`
	Description string                 `json:"description,omitempty"`
	Tags        []string               `json:"tags,omitempty"`
	Parameters  []oasParameter         `json:"parameters,omitempty"`
	RequestBody *oasBody               `json:"requestBody,omitempty"`
	Responses   map[string]oasResponse `json:"responses"`

	subject, method string
}

type oasParameter struct {
	Name        string              `json:"name"`
	In          string              `json:"in"`
	Description string              `json:"description,omitempty"`
	Required    bool                `json:"required,omitempty"`
	Schema      json.RawMessage     `json:"schema,omitempty"`
	Content     map[string]oasMedia `json:"content,omitempty"`
}

type oasBody struct {
	Required bool                `json:"required"`
	Content  map[string]oasMedia `json:"content"`
}

type oasMedia struct {
	Schema     json.RawMessage `json:"schema,omitempty"`
	ItemSchema json.RawMessage `json:"itemSchema,omitempty"` // 3.2
}

type oasResponse struct {
	Ref         string               `json:"$ref,omitempty"`
	Description string               `json:"description,omitempty"`
	Headers     map[string]oasHeader `json:"headers,omitempty"`
	Content     map[string]oasMedia  `json:"content,omitempty"`
}

type oasHeader struct {
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema"`
}

type oasComponents struct {
	Schemas         map[string]json.RawMessage `json:"schemas"`
	Responses       map[string]oasResponse     `json:"responses"`
	SecuritySchemes map[string]json.RawMessage `json:"securitySchemes,omitempty"`
}

const componentRef = "#/components/schemas/"

func refTo(name string) json.RawMessage {
	return writeObject([]member{{"$ref", quote(componentRef + name)}})
}

// errorSchema is the bridge's error JSON, https://connectrpc.com/docs/protocol#error-end-stream.
var errorSchema = json.RawMessage(`{"description":"Why a call failed.","type":"object","properties":{` +
	`"code":{"type":"string","enum":["canceled","unknown","invalid_argument","deadline_exceeded","not_found","already_exists",` +
	`"permission_denied","resource_exhausted","failed_precondition","aborted","out_of_range","unimplemented","internal",` +
	`"unavailable","data_loss","unauthenticated"]},` +
	`"message":{"description":"For people.","type":"string"},` +
	`"details":{"description":"For programs.","type":"array","items":{"type":"object","properties":{` +
	`"type":{"type":"string"},"value":{"description":"Base64 without padding; of a detail that is JSON, its text.","type":"string","contentEncoding":"base64"},` +
	`"debug":{"description":"The value, if it is JSON."}},"required":["type","value"]}}},"required":["code"]}`)

func errorResponse(description string) oasResponse {
	return oasResponse{Description: description, Content: map[string]oasMedia{jsonType: {Schema: refTo("Error")}}}
}
