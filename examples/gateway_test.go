package examples_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	"postbus.example/examples/gateway"
	"postbus.example/internal/assert"
)

func TestGatewayIsShort(t *testing.T) {
	n := code(t, "gateway", "gateway/bridge", "gateway/catalog", "gateway/orders")
	assert.True(t, n <= 110, fmt.Sprintf("%d lines of code", n))
}

// The bridge runs first, and alone. Services come and go behind it, and instances of them, and it is told of none.
func TestGateway(t *testing.T) {
	url := broker(t).URL()
	bridge := run(t, "gateway/bridge", "-nats", url, "-http", "127.0.0.1:0")
	front := bridge.url(t)
	order := func() (int, string) {
		t.Helper()
		r, text := post(t, front+"/orders/place", `{"item":"tea","count":2}`)
		return r.StatusCode, text
	}
	status, _ := order()
	assert.Equal(t, status, http.StatusNotFound, "nobody is there yet")

	catalog := run(t, "gateway/catalog", "-nats", url)
	catalog.url(t)
	assert.Eventually(t, func() bool { return slices.Equal(described(t, front), []string{"/catalog/price", "/prices/{item}"}) }, "the catalog is described")
	orders := run(t, "gateway/orders", "-nats", url)
	orders.url(t)
	assert.Eventually(t, func() bool { return slices.Contains(described(t, front), "/orders/place") }, "orders are described, too")
	status, text := order()
	assert.Equal(t, []any{status, text}, []any{200, `{"cents":700}`})
	r, text := post(t, front+"/orders/place", `{"item":"milk","count":1}`)
	assert.Equal(t, r.StatusCode, http.StatusNotFound, text)
	assert.Contains(t, text, "there is no milk")

	assert.Equal(t, len(sharers(t, front, 40)), 1, "one instance")
	more := run(t, "gateway/catalog", "-nats", url)
	more.url(t)
	share := sharers(t, front, 200)
	assert.Equal(t, len(share), 2, "the new instance has its share")
	for _, n := range share {
		assert.True(t, n >= 40, fmt.Sprint(share))
	}
	catalog.terminate(t)
	assert.Equal(t, len(sharers(t, front, 40)), 1, "the other one goes on")
	more.terminate(t)
	r, err := http.Get(front + "/prices/tea")
	assert.NoError(t, err)
	assert.NoError(t, r.Body.Close())
	assert.Equal(t, r.StatusCode, http.StatusServiceUnavailable, "it was there, and is away")
	orders.terminate(t)
	bridge.terminate(t)
}

// described gives the paths of the document, nil if there is none.
func described(t *testing.T, front string) []string {
	t.Helper()
	r, err := http.Get(front + "/openapi.json")
	assert.NoError(t, err)
	var doc struct{ Paths map[string]any }
	err = json.NewDecoder(r.Body).Decode(&doc)
	assert.NoError(t, r.Body.Close())
	if err != nil || r.StatusCode != http.StatusOK {
		return nil
	}
	return slices.Sorted(maps.Keys(doc.Paths))
}

// sharers asks n times for a price, and counts who answered.
func sharers(t *testing.T, front string, n int) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		var p gateway.Price
		assert.NoError(t, json.Unmarshal([]byte(get(t, front+"/prices/tea")), &p))
		assert.Equal(t, p.Cents, 350)
		count[p.Instance]++
	}
	return count
}
