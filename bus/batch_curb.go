package bus

import (
	"log/slog"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// The calls of a frame have one reply subject, and more than one message may go there: a broker that lets replies through by
// allow_responses may let pass less than that. The replies that it denies are lost. So an instance whose answers to a frame
// were denied takes no frames any more, and says so to whoever sends one: one message passes in any case.

var errCurbed = endpoint.Unimplemented.New("this instance takes no batch frames any more").WithReason(endpoint.ReasonUnsupported).
	WithOutcome(endpoint.NotExecuted)

// curb ends frames if a message to the subject, which the broker denied, was an answer to one.
func (b *Bus) curb(subject string, cause error) {
	if !answersFrame(subject) || b.curbed.Swap(true) {
		return
	}
	for _, op := range *b.taken.Load() {
		b.unframed(op)
	}
	b.report(slog.LevelWarn, "no batch frames any more: the broker denies answers to them; where allow_responses lets it reply, max must be -1",
		slog.Any("error", cause))
}

// curbs reports whether frames came to their end. On a connection that was adopted nobody tells us.
func (b *Bus) curbs() bool {
	if !b.owned && !b.curbed.Load() {
		if err := b.nc.LastError(); err != nil {
			if subject, ok := deniedPublish(err); ok {
				b.curb(subject, err)
			}
		}
	}
	return b.curbed.Load()
}

// answersFrame reports whether a subject is where the calls of a frame wait: its token asks for acks, and has no deadline.
func answersFrame(subject string) bool {
	var meta wire.Request
	return wire.ParseToken(subject[strings.LastIndexByte(subject, '.')+1:], &meta) == nil && meta.Ack && !meta.HasTimeout && !meta.HasSent
}
