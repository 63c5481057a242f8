package bus

import "github.com/nats-io/nats.go"

// What arrived and was not looked at yet waits in the client library. Callbacks never block, so that is next to nothing; but to
// answer costs more than to ask, and a peer that does nothing but ask would fill the memory in seconds. Beyond these bounds
// the library drops, which it logs and counts; a service that is so far behind refuses nearly everything anyway.
const (
	maxPending      = 1 << 18
	maxPendingBytes = 64 << 20
)

// bounded sets them for a subscription that others may publish to. Replies have none: to take one costs less than to receive it.
func bounded(sub *nats.Subscription) error { return sub.SetPendingLimits(maxPending, maxPendingBytes) }

// dropped returns how many messages the library dropped.
func dropped(sub *nats.Subscription) uint64 {
	if n, err := sub.Dropped(); err == nil {
		return uint64(max(n, 0))
	}
	return 0
}
