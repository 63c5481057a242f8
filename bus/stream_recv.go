package bus

import (
	"context"
	"io"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// keep queues an item (lock held).
func (l *line) keep(it item) {
	if l.head > 0 && len(l.queue) == cap(l.queue) { // it never got empty: move up rather than grow
		l.queue = l.queue[:copy(l.queue, l.queue[l.head:])]
		l.head = 0
	}
	l.queue = append(l.queue, it)
}

// recv waits for the next item, io.EOF at the end. What came before the line broke comes first.
func (l *line) recv(ctx context.Context) (item, error) {
	for {
		if it, err, ok := l.poll(ctx); ok {
			return it, err
		}
		select {
		case <-l.news:
		case <-ctx.Done():
		}
	}
}

// poll is recv without waiting; false if there is nothing yet.
func (l *line) poll(ctx context.Context) (it item, err error, ok bool) { //nolint:revive // ok says whether the others are there
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ctx.Err() != nil && l.broke == nil:
		return it, endpoint.ContextError(ctx), true
	case ctx.Err() != nil, l.head == len(l.queue) && l.broke != nil:
		return it, l.broke, true
	case l.head == len(l.queue):
		return it, io.EOF, l.eof
	}
	it, l.queue[l.head] = l.queue[l.head], item{}
	if l.head++; l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
	l.busy = true
	l.active()
	return it, nil, true
}

// used says that an item was consumed, and tops up the credit when it is time.
func (l *line) used(it item) {
	l.mu.Lock()
	l.busy = false
	l.active()
	to, due := l.to, l.in.Use(len(it.body))
	var g wire.Grant
	if due = due && to != ""; due {
		g = l.topUp(time.Now())
	}
	l.mu.Unlock()
	if due {
		l.post(to, "", wire.WriteWindow(g))
	}
}

// active says that something passed between the users of both ends (lock held).
func (l *line) active() {
	if l.watch.Idles() {
		l.watch.Active(time.Now())
	}
}

// maxGrown is by how many bytes the windows of all streams to a bus grow together, about.
const maxGrown = 64 << 20

// topUp returns what to grant (lock held). A consumer that is fast gets a larger window, as long as all of them together have not
// grown too much.
func (l *line) topUp(now time.Time) wire.Grant {
	switch {
	case l.in.Loose(now):
		l.bus.grown.Add(-int64(l.in.Narrow()))
	case l.in.Tight(now) && !l.over && l.bus.grown.Load() < maxGrown:
		l.bus.grown.Add(int64(l.in.Widen()))
	}
	return l.in.TopUp(now)
}
