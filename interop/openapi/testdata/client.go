// Command main is compiled with a client that oapi-codegen made of the bridge's OpenAPI document, and calls with it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
)

func main() {
	ctx := context.Background()
	client, err := NewClientWithResponses(os.Args[1])
	check(err)
	sum, err := client.AddsvcSumWithResponse(ctx, AddsvcSumRequest{A: 1, B: 2})
	check(err)
	routed, err := client.AddsvcSumGet2WithResponse(ctx, 20, &AddsvcSumGet2Params{B: 22})
	check(err)
	get, err := client.AddsvcSumGetWithResponse(ctx, &AddsvcSumGetParams{Message: AddsvcSumRequest{A: 3, B: 4}})
	check(err)
	put, err := client.AddsvcSumPutWithResponse(ctx, 5, AddsvcSumPutJSONRequestBody{A: 6})
	check(err)
	zero, err := client.AddsvcSumWithResponse(ctx, AddsvcSumRequest{})
	check(err)
	fmt.Println(sum.JSON200.V, routed.JSON200.V, get.JSON200.V, put.JSON200.V, zero.StatusCode(), zero.JSON400.Code)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
