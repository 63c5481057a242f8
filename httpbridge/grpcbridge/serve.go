package grpcbridge

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"postbus.example/codec"
)

func unary(ctx context.Context, r *connect.Request[message]) (*connect.Response[message], error) {
	c := callOf(ctx)
	reply, err := c.Unary(payload(mediaType(r.Header()), r.Msg))
	if err != nil {
		return nil, c.failed(err)
	}
	return c.response(reply), nil
}

func clientStream(ctx context.Context, s *connect.ClientStream[message]) (*connect.Response[message], error) {
	c := callOf(ctx)
	media := mediaType(s.RequestHeader())
	reply, err := c.ClientStream(media, c.requests(s.Conn(), media))
	if err != nil {
		return nil, c.failed(err)
	}
	return c.response(reply), nil
}

func serverStream(ctx context.Context, r *connect.Request[message], s *connect.ServerStream[message]) error {
	c := callOf(ctx)
	return c.send(s.Conn(), c.ServerStream(payload(mediaType(r.Header()), r.Msg)))
}

func bidiStream(ctx context.Context, s *connect.BidiStream[message, message]) error {
	c := callOf(ctx)
	media := mediaType(s.RequestHeader())
	return c.send(s.Conn(), c.BidiStream(media, c.requests(s.Conn(), media)))
}

// mediaType is that of a client's messages: of application/grpc+json it is application/json. The content type is one that is taken.
func mediaType(h http.Header) string {
	_, name, given := strings.Cut(h.Get("Content-Type"), "+")
	if !given {
		name = "proto"
	}
	return "application/" + name
}

func payload(media string, m *message) *codec.Payload {
	return &codec.Payload{MediaType: media, Data: m.data}
}

// requests are the messages of a client. What breaks them off, other than their end, is yielded last.
func (c *call) requests(from connect.StreamingHandlerConn, media string) iter.Seq2[*codec.Payload, error] {
	return func(yield func(*codec.Payload, error) bool) {
		for {
			var m message
			c.body.next()
			err := from.Receive(&m)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(nil, inputFault(err))
				return
			}
			if !yield(payload(media, &m), nil) {
				return
			}
		}
	}
}

// send sends the replies of a stream, its headers with the first one.
func (c *call) send(to connect.StreamingHandlerConn, replies iter.Seq2[*codec.Payload, error]) error {
	opened := false
	open := func() {
		if !opened {
			opened = true
			maps.Copy(to.ResponseHeader(), c.Header())
		}
	}
	for p, err := range replies {
		open()
		if err != nil {
			maps.Copy(to.ResponseTrailer(), c.Trailer())
			return failure(err)
		}
		if err := to.Send(&message{p.Data}); err != nil {
			return err
		}
	}
	open()
	maps.Copy(to.ResponseTrailer(), c.Trailer())
	return nil
}

func (c *call) response(reply *codec.Payload) *connect.Response[message] {
	r := connect.NewResponse(&message{reply.Data})
	maps.Copy(r.Header(), c.Header())
	maps.Copy(r.Trailer(), c.Trailer())
	return r
}

// failed is the error of a call that had no reply. gRPC has one place for its metadata.
func (c *call) failed(err error) error {
	f := failure(err)
	for _, h := range []http.Header{c.Header(), c.Trailer()} {
		for name, values := range h {
			f.Meta()[name] = append(f.Meta()[name], values...)
		}
	}
	return f
}
