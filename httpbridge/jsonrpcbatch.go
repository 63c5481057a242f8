package httpbridge

import (
	"encoding/json"
	"sync"
)

// batchWorkers is how many calls of one batch run at once, where the bridge has room for them.
const batchWorkers = 8

// batch runs calls: the first worker has the room of the HTTP request, others only what is free.
func (c *rpcCalls) batch(entries []json.RawMessage) [][]byte {
	answers := make([][]byte, len(entries))
	next := make(chan int, len(entries))
	for i := range entries {
		next <- i
	}
	close(next)
	work := func() {
		for i := range next {
			answers[i] = c.call(rpcRequest(entries[i]), nil)
		}
	}
	var workers sync.WaitGroup
	for range min(len(entries), batchWorkers) - 1 {
		if !c.gate.more() {
			break
		}
		workers.Go(func() {
			defer c.gate.leave()
			work()
		})
	}
	work()
	workers.Wait()
	return answers
}
