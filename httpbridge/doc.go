// Package httpbridge lets everybody call what is on the bus who is not on it: one path is one subject.
//
//	POST /svc/add  {"a":1,"b":2}   ~~>   svc.add   ~~>   {"sum":3}
//
//	http.ListenAndServe(":8080", httpbridge.New(bus, httpbridge.Expose("svc.add", "math.*")))
//
// A [Bridge] is an http.Handler. It takes any [endpoint.Transport], so it stands in front of the bus, and in tests in front
// of an endpoint.Mux. Nothing is reachable that no [Expose] or [Route] named.
//
// # Paths
//
// /a.b.Service/Method and /a/b/Service/Method are the subject a.b.Service.Method. Empty tokens, wildcards, white space,
// control characters, tokens that start with $ or _INBOX and percent-encoded ASCII are no subject: they are answered with
// 404 and never reach the transport. /healthz and /readyz are the bridge's own.
//
// [Route] gives a subject a path of its own, with a method and values in it: PUT /v1/users/{id}. Of a path, the bridge's own
// comes first, then a route that has the method, then the subject.
//
// # What it speaks
//
// JSON over POST, which is also the unary protocol of Connect (https://connectrpc.com/docs/protocol), and binary over
// POST: application/proto, application/cbor and any other media type that the endpoint takes. A body passes through
// untouched, it is never decoded here but where a [Route] has fields to add; gzip is taken off and put on.
// Connect-Timeout-Ms becomes the call's deadline.
//
// GET for endpoints that are read-only, never for merely idempotent ones: /svc/get?message={"id":1}, as Connect has it, with an
// ETag and 304.
//
// Streams of all kinds, see below: Connect's, Server-Sent Events and lines of JSON. What an endpoint is, the bridge learns by
// discovery ([New]); without, POST of one message for one reply is what is left.
//
// JSON-RPC 2.0, with batches and notifications, where [WithJSONRPC] says so; and an OpenAPI document of it all, made of the
// schemas that the endpoints publish, where [WithOpenAPI] does.
//
// # A request's way
//
//	preflight         204, 403     by WithCORS, on any path
//	drain, limits     503, 429     room for one more call?
//	path              404          named by Route or Expose?
//	method            405          the route's, else POST; GET for what is read-only
//	origin            403          http.CrossOriginProtection, and WithCORS
//	content type      415          never a form or text, so that browsers ask first
//	headers           431, 400
//	WithAuth          401, 403     before the body is read
//	WithAuthorization 403          for each call
//	body              413, 408     read to its end, so that a client's leaving is noticed
//	call              the status of its code
//
// Streams, GET and routes with fields need to know the endpoint before it is asked who calls: by 404, 405 and 415, strangers can tell
// what is exposed and served, of which kind it is, and whether it is read-only. They execute nothing.
//
// From WithAuth on, what is under way ends with its client, with Connect-Timeout-Ms (504), and when [Bridge.Drain] gives up
// waiting (503).
//
// Over HTTP/1.1, the answer to what is refused before its body was read waits up to a quarter of a second for the rest of it, so
// that the connection can be kept; after that the connection is closed.
//
// # Streams
//
// An endpoint that streams is called by the same path. Who calls chooses how the items come:
//
//	curl --json '{"n":2}' host/svc/count                                           lines of JSON
//	curl --json '{"n":2}' -H 'Accept: text/event-stream' host/svc/count            Server-Sent Events
//	new EventSource('/svc/count?message={"n":2}')                                  the same by GET, if it is read-only
//	curl -H 'Content-Type: application/x-ndjson' --data-binary @f host/svc/total   many requests, one a line
//	a client of Connect                                                            application/connect+json, +proto, +cbor, …
//
// Lines (application/x-ndjson, or application/jsonl):
//
//	{"result":{"n":1}}
//	{"result":{"n":2}}
//	{"error":{"code":"unavailable","message":"…"}}   the last one, if the stream failed
//
// Events (text/event-stream); ids count from 1 in each answer, and Last-Event-Id reaches the endpoint if [WithHeaders] names it:
//
//	id: 1
//	data: {"n":1}
//
//	:                                                when nothing came for 15 seconds: [Timeouts].Heartbeat
//
//	event: error                                     if the stream failed
//	data: {"code":"unavailable","message":"…"}
//
//	event: end                                       always the last one: an EventSource should be closed now, or it asks again
//	data: {"metadata":{"X-Sum":["3"]}}               the end's metadata, {} if none passes
//
// Connect (https://connectrpc.com/docs/protocol#streaming-rpcs), each message in an envelope, both ways:
//
//	flags  length, 4 bytes, big endian  message
//	0      …                            a message; 1: gzip, as Connect-Content-Encoding says
//	2      …                            from the bridge, the last one: {"error":{…},"metadata":{…}}, each if there is one
//
// Each item is flushed, and the next is asked for when it is written: a client that reads slowly slows the service down. Headers are
// sent with the first item or the end, and no later than after a heartbeat; until then an error has a status of its own, but
// for Connect, whose errors are in the last message from authentication on, under 200.
//
// A stream may last as long as it likes, or as Connect-Timeout-Ms says. It ends, and its handler is canceled, when its client
// leaves or takes nothing for [Timeouts].Write, and when [Bridge.Drain] gives up waiting: then its last words are the error
// unavailable. It counts as one call of [Limits].
//
// Both ways at once is for HTTP/2, with or without TLS. HTTP/1.1 carries it for clients that can; others send all, and read then.
// While such a client sends, nothing tells that it left before the service asks for its next message.
//
// # Errors
//
// An error is Connect's JSON, {"code":"not_found","message":"…","details":[…]}, under the status that belongs to its code
// ([endpoint.Code.Status]). Where the fault lies in HTTP itself, the code is the one that a Connect client derives from the
// status: unimplemented for 404, unknown for 405 and 415. What a handler authored is shown; the text of internal errors
// that arise on the way is logged and not shown. A client that left is 499 canceled, never a server's error.
//
// # Headers
//
// By default traceparent, tracestate and baggage pass to the endpoint, and none pass back: see [WithHeaders]. Nothing a client
// sends is trusted for its address or identity.
package httpbridge
