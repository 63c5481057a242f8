// Package endpoint is the one idea of this module: an RPC is a function, and everything else is middleware around it.
//
//	func add(ctx context.Context, r *AddRequest) (*AddResponse, error)
//
//	ep := endpoint.New(add, endpoint.Idempotent())                              // an operation, ready to be served
//	sum := endpoint.Caller[*AddRequest, *AddResponse](transport, "svc.add")     // a function of the same type
//
// A handler and a caller have one type, so a caller can be decorated, faked, or served again. There are four kinds:
// [Unary], [ServerStream], [ClientStream] and [BidiStream]; a whole service is a struct of them ([Service], [Client]).
//
// # The onion
//
// Below the typed functions there is one untyped shape, [Handler], for all kinds and both sides, and one [Middleware]:
//
//	caller's side                                    server's side
//	-------------                                    -------------
//	typed function                                   transport: admission, deadline
//	  transport's own middleware   (outermost)         transport's own middleware   (outermost)
//	    the caller's options, in order                   the endpoint's options, in order
//	      transport: encode, send ~~~~~~~~~~~~~~~~~~~~~~~>  decode the request
//	      transport: receive, decode <~~~~~~~~~~~~~~~~~~~~  the user's function; encode the reply
//
// A middleware on the server's side runs before the request is decoded: it sees the subject, headers, size and deadline,
// so refusing is cheap. Encoding the reply happens inside the chain, so metrics and logs see its failure.
//
// # Errors
//
// A [Code] is an error, and makes errors: NotFound.Errorf("no user %d", id). Only what a handler authored crosses the wire
// ([Crossing]); everything else becomes a code without text. Each error has an [Outcome], which says truthfully whether the
// handler may have run, and a fixed machine word, its reason. [Errors] and [ErrorValue] declare an operation's own errors, so that
// errors.As and errors.Is find them on the caller's side.
//
// # Transports
//
// A [Transport] turns a subject into a Handler. The bus is one, over NATS; [Mux] is one in memory, for tests. This package
// imports the standard library only.
package endpoint
