package grpcbridge

import (
	"errors"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/anypb"

	"postbus.example/endpoint"
)

// typeURL is the head of the type of a detail.
const typeURL = "type.googleapis.com/"

// failure is an error as gRPC tells it. The codes have the same numbers.
func failure(err error) *connect.Error {
	e, ok := errors.AsType[*endpoint.Error](err)
	if !ok || e == nil {
		e = endpoint.CodeOf(err).New("")
	}
	out := connect.NewError(connect.Code(e.Code), errors.New(strings.ToValidUTF8(e.Message, "\uFFFD")))
	for _, d := range e.Details {
		detail, err := connect.NewErrorDetail(&anypb.Any{TypeUrl: typeURL + strings.ToValidUTF8(d.Type, "\uFFFD"), Value: d.Value})
		if err == nil { // it always is: an Any is taken as it is
			out.AddDetail(detail)
		}
	}
	if e.RetryAfter != 0 { // https://github.com/grpc/proposal/blob/master/A6-client-retries.md: less than 0 is never
		out.Meta().Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(e.RetryAfter.Milliseconds(), 10))
	}
	return out
}

// inputFault is why a stream of requests broke off, in the words of the bridge.
func inputFault(err error) error {
	if e, ok := errors.AsType[*endpoint.Error](err); ok {
		return e
	}
	c, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return endpoint.Canceled.Wrap(err, "the request can't be read")
	}
	return endpoint.Code(c.Code()).Wrap(err, c.Message())
}
