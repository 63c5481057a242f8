package cli

import (
	"encoding/json"
	"time"

	"postbus.example/httpbridge"
	"postbus.example/httpbridge/grpcbridge"
)

// surface is what the bridge shows besides calls: its description, other protocols, other origins.
type surface struct {
	OpenAPI            bool     `name:"openapi" group:"expose" default:"true" negatable:"" help:"Describe what is offered, at /openapi.json."`
	OpenAPITitle       string   `name:"openapi-title" group:"expose" placeholder:"TEXT" help:"What the description calls the API."`
	OpenAPIVersion     string   `name:"openapi-version" group:"expose" placeholder:"VERSION" help:"The API's version in the description."`
	OpenAPIDescription string   `name:"openapi-description" group:"expose" placeholder:"TEXT" help:"What it is for."`
	OpenAPIServer      []string `name:"openapi-server" group:"expose" placeholder:"URL" help:"The URL that paths are relative to, as clients see it. By default the host's own root."`
	OpenAPIPublic      bool     `name:"openapi-public" group:"expose" help:"Let everybody read the description, also those who may not call."`
	GRPC               bool     `name:"grpc" group:"expose" default:"true" negatable:"" help:"Take gRPC and gRPC-Web on the same address."`
	JSONRPC            string   `name:"json-rpc" group:"expose" placeholder:"PATH" help:"Take JSON-RPC 2.0 at this path, such as /rpc. By default nowhere."`

	CORSOrigin         []string      `name:"cors-origin" group:"cors" placeholder:"URL" help:"An origin whose pages may call: https://app.example, https://*.app.example, http://localhost:*, or * for any. By default none."`
	CORSCredentials    bool          `name:"cors-credentials" group:"cors" help:"Let them call with what the browser has: cookies, client certificates. Tokens and keys do without."`
	CORSHeader         []string      `name:"cors-header" group:"cors" placeholder:"NAME" help:"A header that they may send, besides those of the protocols and of --header-in."`
	CORSExpose         []string      `name:"cors-expose" group:"cors" placeholder:"NAME" help:"A header of answers that they may read, besides those of --header-out."`
	CORSMaxAge         time.Duration `name:"cors-max-age" group:"cors" default:"2h" placeholder:"TIME" help:"How long browsers remember what they were told."`
	CORSPrivateNetwork bool          `name:"cors-private-network" group:"cors" help:"Let pages of the internet call into this private network."`
}

func (s *surface) options(a *admission) []httpbridge.Option {
	var options []httpbridge.Option
	if s.OpenAPI {
		options = append(options, httpbridge.WithOpenAPI(httpbridge.Info{
			Title: s.OpenAPITitle, Version: s.OpenAPIVersion, Description: s.OpenAPIDescription, Servers: s.OpenAPIServer,
			Public: s.OpenAPIPublic, Security: a.schemes(),
		}))
	}
	if s.GRPC {
		options = append(options, grpcbridge.Enable())
	}
	if s.JSONRPC != "" {
		options = append(options, httpbridge.WithJSONRPC(s.JSONRPC))
	}
	return append(options, s.cors()...)
}

// schemes describe how callers prove who they are.
func (a *admission) schemes() map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	if a.APIKeys != "" {
		all["apiKey"] = json.RawMessage(`{"type":"apiKey","in":"header","name":"X-API-Key"}`)
	}
	if a.jwt() {
		all["bearer"] = json.RawMessage(`{"type":"http","scheme":"bearer","bearerFormat":"JWT"}`)
	}
	return all
}

func (s *surface) cors() []httpbridge.Option {
	if len(s.CORSOrigin) == 0 {
		return nil
	}
	return []httpbridge.Option{httpbridge.WithCORS(httpbridge.CORSPolicy{
		Origins: s.CORSOrigin, Credentials: s.CORSCredentials, Headers: s.CORSHeader, Expose: s.CORSExpose, MaxAge: s.CORSMaxAge,
		PrivateNetwork: s.CORSPrivateNetwork,
	})}
}

// check notes what goes nowhere.
func (s *surface) check(f *faults) {
	if len(s.CORSOrigin) == 0 && (s.CORSCredentials || s.CORSPrivateNetwork || len(s.CORSHeader)+len(s.CORSExpose) > 0) {
		f.addf("--cors-…", "needs --cors-origin")
	}
	if !s.OpenAPI && (s.OpenAPIPublic || s.OpenAPITitle+s.OpenAPIVersion+s.OpenAPIDescription != "" || len(s.OpenAPIServer) > 0) {
		f.addf("--openapi-…", "goes with --openapi")
	}
}
