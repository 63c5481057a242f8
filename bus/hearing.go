package bus

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// hearing is for who asks the broker for something, and by a round trip whether it complained. The connection keeps its last
// complaint only, and there may be others at the same time; on a connection of ours all are heard, in their order, but a
// little later than the round trip ends.
type hearing struct {
	bus    *Bus
	about  []string // what the texts of complaints to be heard have in them
	before error

	mu   sync.Mutex
	said []error
	news chan struct{} // has an element when something was said
}

const (
	hearTime = time.Second // the patience with the handler of our own connection, which a user may have replaced
	maxSaid  = 1024        // complaints that are kept, if they are about something else
)

// listen hears from now on what the broker says about any of these.
func (b *Bus) listen(about ...string) *hearing {
	h := &hearing{bus: b, about: about, before: b.nc.LastError(), news: make(chan struct{}, 1)}
	if b.owned {
		b.denials.mu.Lock()
		defer b.denials.mu.Unlock()
		b.denials.hearings[h] = true
	}
	return h
}

// quoted is how the broker writes a subject.
func quoted(s string) string { return strconv.Quote(s) }

// note gives an error of our connection to those who listen.
func (d *denials) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.hearings {
		h.note(err)
	}
}

func (h *hearing) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.said) >= maxSaid {
		h.said = slices.DeleteFunc(h.said, func(err error) bool { return !h.concerns(err) })
	}
	h.said = append(h.said, err)
	select {
	case h.news <- struct{}{}:
	default:
	}
}

func (h *hearing) concerns(err error) bool {
	return errors.Is(err, nats.ErrPermissionViolation) &&
		slices.ContainsFunc(h.about, func(s string) bool { return strings.Contains(err.Error(), s) })
}

// end stops listening. It may be called twice.
func (h *hearing) end() {
	h.bus.denials.mu.Lock()
	defer h.bus.denials.mu.Unlock()
	delete(h.bus.denials.hearings, h)
}

// complaints returns what the broker said until now, and stops listening.
func (h *hearing) complaints(ctx context.Context) []error {
	defer h.end()
	last := h.bus.nc.LastError()
	if last == nil || h.before != nil && errors.Is(last, h.before) {
		return nil
	}
	said := []error{last}
	if h.bus.owned {
		said = h.upTo(ctx, last)
	}
	return slices.DeleteFunc(said, func(err error) bool { return !h.concerns(err) })
}

// upTo waits until our handler has come to the connection's last error.
func (h *hearing) upTo(ctx context.Context, last error) []error {
	ctx, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	for {
		h.mu.Lock()
		said := slices.Clone(h.said)
		h.mu.Unlock()
		if slices.ContainsFunc(said, func(err error) bool { return err == last }) { //nolint:errorlint // this very error
			return said
		}
		select {
		case <-h.news:
		case <-ctx.Done():
			return append(said, last)
		}
	}
}
