package bus

import (
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// tick is the timer of a line: it beats, and notices silence.
func (l *line) tick() {
	l.mu.Lock()
	if l.over || l.quiet || l.broke != nil {
		l.mu.Unlock()
		return
	}
	now := time.Now()
	e, next := l.watch.Look(now)
	if e == stream.Idle && l.busy { // the consumer takes its time, nobody is idle
		l.watch.Active(now)
		e, next = l.watch.Look(now)
	}
	if next > 0 {
		l.timer.Reset(next)
	}
	to, self, position, granted := l.to, l.self, l.out.Position(), l.in.Granted()
	l.mu.Unlock()
	switch e {
	case stream.Nothing:
	case stream.Beat:
		if to != "" {
			l.post(to, self, wire.WriteBeat(position, granted))
		}
	case stream.Idle:
		l.fail(errIdle)
	case stream.Unproved:
		l.fail(errNotStream)
	case stream.Silent:
		l.fail(errSilent)
	}
}

var (
	errIdle = endpoint.DeadlineExceeded.New("the stream carried no item for too long").
		WithReason(endpoint.ReasonIdle).WithOutcome(endpoint.MaybeExecuted)
	errSilent = endpoint.Unavailable.New("the peer of the stream is silent").
			WithReason(endpoint.ReasonInstanceSilent).WithOutcome(endpoint.MaybeExecuted)
	errNotStream = endpoint.Unavailable.New("the import lets a single reply through: its export needs response_type stream").
			WithReason(endpoint.ReasonImportNotStream).WithOutcome(endpoint.MaybeExecuted)
)
