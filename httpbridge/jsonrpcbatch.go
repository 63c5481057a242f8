package httpbridge

import (
	"encoding/json"
	"sync"

	"postbus.example/endpoint"
)

// batchWorkers is how many calls of one batch run at once, where the bridge has room for them.
const batchWorkers = 8

// batchRoom is how much the replies of one HTTP request may be, in bodies of the largest size. Calls that have begun when there is no
// more room are answered.
const batchRoom = 16

// afforded makes a call, unless there is no more room for its reply.
func (c *rpcCalls) afforded(x *exchange, r rpcEntry) (json.RawMessage, error) {
	if most := int64(c.limits.Body) * batchRoom; c.replied.Load() >= most {
		return nil, endpoint.ResourceExhausted.Errorf("the replies of the batch have more than %d bytes: ask for less at once", most).
			WithReason(endpoint.ReasonReplyTooLarge).WithOutcome(endpoint.NotSent)
	}
	result, err := c.result(x, r)
	c.replied.Add(int64(len(result)))
	return result, err
}

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
