// Package gateway is a shop of two services, catalog and orders, which stand behind one HTTP bridge. The bridge names what
// may be called and knows nothing else of them: who starts later, or as one more instance, is found.
package gateway

import "postbus.example/endpoint"

// Catalog knows what things cost.
type Catalog struct {
	Price endpoint.Unary[*Item, *Price] `rpc:",readonly" doc:"what an item costs"`
}

// Orders takes orders.
type Orders struct {
	Place endpoint.Unary[*Order, *Receipt] `doc:"orders some of an item"`
}

// Item names one.
type Item struct {
	Item string `json:"item"`
}

// Price is what one costs, and which instance says so.
type Price struct {
	Cents    int    `json:"cents"`
	Instance string `json:"instance"`
}

// Order asks for some of an item.
type Order struct {
	Item  string `json:"item"`
	Count int    `json:"count"`
}

// Receipt is what an order costs.
type Receipt struct {
	Cents int `json:"cents"`
}
