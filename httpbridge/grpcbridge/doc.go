// Package grpcbridge lets gRPC and gRPC-Web clients call what is on the bus, through the listener and on the paths of an HTTP
// bridge:
//
//	b := httpbridge.New(bus, httpbridge.Expose("acme.inventory.v1.>"), grpcbridge.Enable())
//	b.ListenAndServe(ctx, ":8080")
//
// The path of a gRPC method, /acme.inventory.v1.Inventory/Reserve, is the subject acme.inventory.v1.Inventory.Reserve. Messages
// pass through untouched: neither descriptors nor generated code are needed here, and the endpoint decodes what the client sent, as
// codec/protobuf does it. All four kinds of calls are served; the bridge asks the transport's directory which one an endpoint is
// of. What it can't find out is served as unary: without the grant for discovery a call of a stream is refused as unimplemented.
//
// What the bridge was told by its options holds for these calls, too: what is exposed, authentication before a message is read,
// the headers that pass, limits, timeouts, drain and log.
//
// # What is taken
//
// The content types application/grpc and application/grpc-web, alone (which means protobuf) or with +proto, +json or +cbor:
// these are application/proto, application/json and application/cbor to the endpoint. gRPC needs HTTP/2, with TLS or without
// (h2c), as [httpbridge.Bridge.Server] speaks it; gRPC-Web does with HTTP/1.1, but for bidirectional streams. Its text format
// (application/grpc-web-text) is not taken. A page of another origin needs [httpbridge.WithCORS]. Messages may be compressed with
// gzip, both ways; replies are from 1 KiB on, where the client takes it.
//
// The deadline is grpc-timeout, for unary calls up to [httpbridge.Timeouts].MaxCall. Metadata passes by [httpbridge.WithHeaders]: headers of a
// reply as headers, its trailers as trailers. Values of -bin headers stay as they travel, in base64.
//
// # Errors
//
// An error has the code of the same name. Its details are those of google.rpc.Status (grpc-status-details-bin): a detail of type
// T has the type URL type.googleapis.com/T. Its retry advice is grpc-retry-pushback-ms. What HTTP has a status of its own for is
// told by code: a method that nobody serves is unimplemented, a message over [httpbridge.Limits].Body is resource_exhausted.
package grpcbridge
