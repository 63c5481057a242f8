// Package addsvc is Go kit's classic example: a service that adds numbers and joins words, with errors of its own.
package addsvc

import (
	"context"
	"errors"
	"math"

	"postbus.example/endpoint"
)

type (
	// SumRequest has the numbers to add.
	SumRequest struct {
		A int `json:"a"`
		B int `json:"b"`
	}
	// SumReply has their sum.
	SumReply struct {
		V int `json:"v"`
	}
	// ConcatRequest has the words to join.
	ConcatRequest struct {
		A string `json:"a"`
		B string `json:"b"`
	}
	// ConcatReply has both in one.
	ConcatReply struct {
		V string `json:"v"`
	}
)

// Service is the contract: servers, clients and fakes are values of it.
type Service struct {
	Sum    endpoint.Unary[*SumRequest, *SumReply]       `rpc:"sum,readonly" doc:"adds two numbers of 32 bits"`
	Concat endpoint.Unary[*ConcatRequest, *ConcatReply] `rpc:"concat,readonly" doc:"joins two words, to 10 bytes at most"`
}

// The service's errors, which callers find with errors.Is.
var (
	ErrTwoZeroes       = errors.New("can't sum two zeroes")
	ErrIntOverflow     = errors.New("integer overflow")
	ErrMaxSizeExceeded = errors.New("the result exceeds the maximum size")
)

// maxSize is the longest result of Concat, in bytes.
const maxSize = 10

// Options declares the errors for both sides.
func (Service) Options(string) []endpoint.Option {
	return []endpoint.Option{
		endpoint.ErrorValue("addsvc.two_zeroes", endpoint.InvalidArgument, ErrTwoZeroes),
		endpoint.ErrorValue("addsvc.int_overflow", endpoint.OutOfRange, ErrIntOverflow),
		endpoint.ErrorValue("addsvc.max_size_exceeded", endpoint.InvalidArgument, ErrMaxSizeExceeded),
	}
}

// New is the service itself.
func New() Service { return Service{Sum: sum, Concat: concat} }

func sum(_ context.Context, r *SumRequest) (*SumReply, error) {
	if r.A == 0 && r.B == 0 {
		return nil, ErrTwoZeroes
	}
	if !small(r.A) || !small(r.B) || !small(r.A+r.B) {
		return nil, ErrIntOverflow
	}
	return &SumReply{V: r.A + r.B}, nil
}

func small(n int) bool { return n >= math.MinInt32 && n <= math.MaxInt32 }

func concat(_ context.Context, r *ConcatRequest) (*ConcatReply, error) {
	if len(r.A)+len(r.B) > maxSize {
		return nil, ErrMaxSizeExceeded
	}
	return &ConcatReply{V: r.A + r.B}, nil
}
