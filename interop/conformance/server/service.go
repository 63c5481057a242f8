//go:build conformance

package main

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"postbus.example/endpoint"

	v1 "postbus.example/interop/conformance/gen/conformancev1"
)

const service = "connectrpc.conformance.v1.ConformanceService"

// endpoints are the suite's service, as its service.proto describes it: each request says what is to be answered. Unimplemented
// is left out, as it must be.
func endpoints() map[string]*endpoint.Endpoint {
	return map[string]*endpoint.Endpoint{
		service + ".Unary": endpoint.New(unary[*v1.UnaryRequest](func(p *v1.ConformancePayload) *v1.UnaryResponse {
			return &v1.UnaryResponse{Payload: p}
		})),
		service + ".IdempotentUnary": endpoint.New(unary[*v1.IdempotentUnaryRequest](func(p *v1.ConformancePayload) *v1.IdempotentUnaryResponse {
			return &v1.IdempotentUnaryResponse{Payload: p}
		}), endpoint.ReadOnly()),
		service + ".ServerStream": endpoint.NewServerStream(endpoint.Emit(serverStream)),
		service + ".ClientStream": endpoint.NewClientStream(clientStream),
		service + ".BidiStream":   endpoint.NewBidiStream(endpoint.Emit(bidiStream)),
	}
}

func unary[Req interface {
	proto.Message
	GetResponseDefinition() *v1.UnaryResponseDefinition
}, Resp any](reply func(*v1.ConformancePayload) Resp) endpoint.Unary[Req, Resp] {
	return func(ctx context.Context, r Req) (Resp, error) {
		p, err := single(ctx, r.GetResponseDefinition(), r)
		return reply(p), err
	}
}

func clientStream(ctx context.Context, in iter.Seq2[*v1.ClientStreamRequest, error]) (*v1.ClientStreamResponse, error) {
	var all []proto.Message
	var d *v1.UnaryResponseDefinition
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		if all == nil {
			d = r.GetResponseDefinition()
		}
		all = append(all, r)
	}
	p, err := single(ctx, d, all...)
	return &v1.ClientStreamResponse{Payload: p}, err
}

// single answers with one message.
func single(ctx context.Context, d *v1.UnaryResponseDefinition, requests ...proto.Message) (*v1.ConformancePayload, error) {
	info := describe(ctx, requests)
	metadata(ctx, d.GetResponseHeaders(), d.GetResponseTrailers())
	if err := pause(ctx, d.GetResponseDelayMs()); err != nil {
		return nil, err
	}
	if e := d.GetError(); e != nil {
		return nil, failure(e, info)
	}
	return &v1.ConformancePayload{Data: d.GetResponseData(), RequestInfo: info}, nil
}

func serverStream(ctx context.Context, r *v1.ServerStreamRequest, send func(*v1.ServerStreamResponse) error) error {
	d := r.GetResponseDefinition()
	metadata(ctx, d.GetResponseHeaders(), d.GetResponseTrailers())
	info := describe(ctx, []proto.Message{r})
	for _, data := range d.GetResponseData() {
		if err := pause(ctx, d.GetResponseDelayMs()); err != nil {
			return err
		}
		if err := send(&v1.ServerStreamResponse{Payload: &v1.ConformancePayload{Data: data, RequestInfo: info}}); err != nil {
			return err
		}
		info = nil
	}
	return failure(d.GetError(), info)
}

// bidiStream answers each request as it comes, if it is asked for full duplex, and what is left of the answers at the end.
func bidiStream(ctx context.Context, in iter.Seq2[*v1.BidiStreamRequest, error], send func(*v1.BidiStreamResponse) error) error {
	t := &talk{ctx: ctx, send: send}
	for r, err := range in {
		if err != nil {
			return err
		}
		if more, err := t.hear(r); !more || err != nil {
			return err
		}
	}
	return t.rest()
}

// talk is one bidirectional stream.
type talk struct {
	ctx    context.Context
	send   func(*v1.BidiStreamResponse) error
	begun  bool
	full   bool
	d      *v1.StreamResponseDefinition
	unsaid []proto.Message // requests that no answer described yet
	sent   int
}

func (t *talk) hear(r *v1.BidiStreamRequest) (more bool, err error) {
	if !t.begun {
		t.begun, t.full, t.d = true, r.GetFullDuplex(), r.GetResponseDefinition()
		metadata(t.ctx, t.d.GetResponseHeaders(), t.d.GetResponseTrailers())
	}
	t.unsaid = append(t.unsaid, r)
	if !t.full {
		return true, nil
	}
	if t.sent == len(t.d.GetResponseData()) {
		return false, t.rest()
	}
	return true, t.say()
}

func (t *talk) say() error {
	if err := pause(t.ctx, t.d.GetResponseDelayMs()); err != nil {
		return err
	}
	p := &v1.ConformancePayload{Data: t.d.GetResponseData()[t.sent]}
	switch {
	case t.sent == 0:
		p.RequestInfo = describe(t.ctx, t.unsaid)
	case len(t.unsaid) > 0:
		p.RequestInfo = &v1.ConformancePayload_RequestInfo{Requests: anys(t.unsaid)}
	}
	t.sent++
	t.unsaid = nil
	return t.send(&v1.BidiStreamResponse{Payload: p})
}

func (t *talk) rest() error {
	for t.sent < len(t.d.GetResponseData()) {
		if err := t.say(); err != nil {
			return err
		}
	}
	var info *v1.ConformancePayload_RequestInfo
	if t.sent == 0 {
		info = describe(t.ctx, t.unsaid)
	}
	return failure(t.d.GetError(), info)
}

// describe tells what arrived.
func describe(ctx context.Context, requests []proto.Message) *v1.ConformancePayload_RequestInfo {
	info := &v1.ConformancePayload_RequestInfo{Requests: anys(requests)}
	at := map[string]int{}
	for name, value := range endpoint.FromContext(ctx).Header.All() {
		i, known := at[name]
		if !known {
			i = len(info.RequestHeaders)
			at[name] = i
			info.RequestHeaders = append(info.RequestHeaders, &v1.Header{Name: name})
		}
		info.RequestHeaders[i].Value = append(info.RequestHeaders[i].Value, value)
	}
	if d, ok := ctx.Deadline(); ok && time.Until(d) < unasked/2 {
		ms := time.Until(d).Milliseconds()
		info.TimeoutMs = &ms
	}
	return info
}

func anys(messages []proto.Message) (all []*anypb.Any) {
	for _, m := range messages {
		a, err := anypb.New(m)
		if err != nil {
			panic(err) // what was decoded can be encoded
		}
		all = append(all, a)
	}
	return all
}

func metadata(ctx context.Context, header, trailer []*v1.Header) {
	c := endpoint.FromContext(ctx)
	for _, h := range header {
		for _, v := range h.GetValue() {
			c.Reply.Add(h.GetName(), v)
		}
	}
	for _, h := range trailer {
		for _, v := range h.GetValue() {
			c.Trailer.Add(h.GetName(), v)
		}
	}
}

func pause(ctx context.Context, ms uint32) error {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure makes the error that was asked for; info, if nothing told it before, is one of its details.
func failure(e *v1.Error, info *v1.ConformancePayload_RequestInfo) error {
	if e == nil {
		return nil
	}
	details := e.GetDetails()
	if info != nil {
		details = append(details, anys([]proto.Message{info})...)
	}
	out := endpoint.Code(e.GetCode()).New(e.GetMessage())
	for _, d := range details {
		out = out.With(endpoint.Detail{Type: string(d.MessageName()), Value: d.GetValue()})
	}
	return out
}
