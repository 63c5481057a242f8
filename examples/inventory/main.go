// Inventory asks every shop at once how much it has, and says which of them do not answer. One process plays all parts; each
// shop is an instance with a connection of its own, as if it were elsewhere.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
)

// CountRequest asks for one kind of thing.
type CountRequest struct {
	Thing string `json:"thing"`
}

// Stock is what one shop has of it.
type Stock struct {
	Pieces int `json:"pieces"`
}

// broken is the shop whose stock nobody gets to know.
const broken = "Leiden"

// count is the whole service of a shop.
func count(shop string, stock map[string]int) endpoint.Unary[*CountRequest, *Stock] {
	return func(ctx context.Context, r *CountRequest) (*Stock, error) {
		if shop == broken {
			<-ctx.Done() // canceled when the gather is over
			return nil, ctx.Err()
		}
		n, ok := stock[r.Thing]
		if !ok {
			return nil, endpoint.NotFound.Errorf("%s has no %s", shop, r.Thing)
		}
		return &Stock{Pieces: n}, nil
	}
}

func main() {
	server := must(embedded.Start())
	var all []*bus.Bus
	for shop, stock := range map[string]map[string]int{
		"Delft": {"bicycle": 3, "bell": 7}, "Gouda": {"bicycle": 5}, broken: {"bicycle": 8},
	} {
		b := must(bus.Connect(server.URL(), bus.WithName("shop"), bus.WithMetadata(map[string]string{"town": shop})))
		must(0, b.Serve("shop.count", endpoint.New(count(shop, stock), endpoint.ReadOnly())))
		all = append(all, b)
	}
	b := must(bus.Connect(server.URL()))
	towns := map[string]string{} // replies name instances
	for _, i := range must(b.Discover(context.Background(), "shop")) {
		towns[i.ID] = i.Metadata["town"]
	}

	gather := endpoint.Gather[*CountRequest, *Stock](b, "shop.count", endpoint.Stall(200*time.Millisecond))
	for _, thing := range []string{"bicycle", "bell"} {
		total := 0
		var lines []string
		for r, err := range gather(context.Background(), &CountRequest{Thing: thing}) {
			missing, absent := errors.AsType[*endpoint.MissingError](r.Err)
			switch {
			case err != nil:
				log.Fatal(err) // nobody could be asked
			case absent:
				lines = append(lines, fmt.Sprintf("  %s does not answer, as one of %d", towns[r.Instance], len(missing.Instances)))
			case r.Err != nil:
				lines = append(lines, fmt.Sprintf("  %s: %v", towns[r.Instance], r.Err))
			default:
				total += r.Value.Pieces
				lines = append(lines, fmt.Sprintf("  %s has %d", towns[r.Instance], r.Value.Pieces))
			}
		}
		slices.SortFunc(lines, cmp.Compare[string]) // they come as they come
		fmt.Printf("%s: %d at least\n", thing, total)
		for _, l := range lines {
			fmt.Println(l)
		}
	}

	first := endpoint.Gather[*CountRequest, *Stock](b, "shop.count", endpoint.First())
	for r, err := range first(context.Background(), &CountRequest{Thing: "bell"}) {
		if err == nil && r.Err == nil {
			fmt.Println("a bell: go to", towns[r.Instance]) // the others are canceled
		}
	}
	for _, b := range append(all, b) {
		must(0, b.Close())
	}
	server.Shutdown()
}

// must returns v, or ends the program with the error.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
