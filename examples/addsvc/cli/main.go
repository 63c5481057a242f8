// Command cli calls addsvc: cli sum 1 2, cli concat a b.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"

	"postbus.example/endpoint"
	"postbus.example/examples/addsvc"
	"postbus.example/examples/telemetry"
	"postbus.example/middleware"
)

func main() {
	telemetry.Run("addsvc-cli", "", func(ctx context.Context, p *telemetry.Program) error {
		p.Defaults.Log = nil // the result is all that a shell wants
		p.Bus.Use(middleware.Client(p.Defaults))
		return call(ctx, endpoint.Client[addsvc.Service](p.Bus, "addsvc"))
	})
}

func call(ctx context.Context, svc addsvc.Service) error {
	if flag.NArg() != 3 {
		return errors.New("usage: cli sum 1 2, or cli concat a b")
	}
	switch a, b := flag.Arg(1), flag.Arg(2); flag.Arg(0) {
	case "sum":
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		if err := errors.Join(errX, errY); err != nil {
			return err
		}
		reply, err := svc.Sum(ctx, &addsvc.SumRequest{A: x, B: y})
		if err != nil {
			return err
		}
		fmt.Println(reply.V)
	case "concat":
		reply, err := svc.Concat(ctx, &addsvc.ConcatRequest{A: a, B: b})
		if err != nil {
			return err
		}
		fmt.Println(reply.V)
	default:
		return fmt.Errorf("%q is neither sum nor concat", flag.Arg(0))
	}
	return nil
}
