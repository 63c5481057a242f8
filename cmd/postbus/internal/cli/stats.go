package cli

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// statsSilence ends the wait for more instances, after the first that told its counters.
const statsSilence = 250 * time.Millisecond

// extra is what Postbus instances count beyond ADR-32.
type extra struct {
	InFlight int64  `json:"in_flight"`
	Waiting  int64  `json:"waiting"`
	Refused  uint64 `json:"refused"`
	Expired  uint64 `json:"expired"`
	P50      int64  `json:"p50_ns"`
	P99      int64  `json:"p99_ns"`
}

// statsOf asks the instances of a service, of which some are known, for their counters. What does not answer is left out.
func statsOf(ctx context.Context, nc *nats.Conn, service string, known int) (map[string]*micro.Stats, error) {
	found := map[string]*micro.Stats{}
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // nothing hangs on it
	if err := nc.PublishRequest("$SRV.STATS."+service, inbox, nil); err != nil {
		return nil, err
	}
	for len(found) < known {
		m, err := next(ctx, sub, len(found) > 0)
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders):
			return found, ctx.Err()
		case err != nil:
			return found, err
		}
		var s micro.Stats
		if json.Unmarshal(m.Data, &s) == nil && s.ID != "" && found[s.ID] == nil {
			found[s.ID] = &s
		}
	}
	return found, nil
}

func next(ctx context.Context, sub *nats.Subscription, hurry bool) (*nats.Msg, error) {
	if hurry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, statsSilence)
		defer cancel()
	}
	return sub.NextMsgWithContext(ctx)
}
