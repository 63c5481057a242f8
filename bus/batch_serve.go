package bus

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// A batch frame is taken apart where it arrives: each entry is a request like any other, admitted, run, acked and answered by
// itself. What has a short answer and nothing else to say goes back in a frame, too:
//
//	frame ──► entries ──► dispatcher ──► answer ──► part ──► one message   when all have an answer, or after partTime
//	                                        └─────► a message of its own  errors, acks, headers, long answers
//
// All of them go to the reply subject of the frame, which is what a broker lets a service answer to.

// partTime is how long an answer waits for those of the other calls in its frame.
const partTime = time.Millisecond

// arrival is a request as it arrived: in a message, or as an entry of a frame. An entry has its token as its reply subject.
type arrival struct {
	msg   *nats.Msg
	frame *inbound // nil for a message
}

// sender is who waits for the answer.
func (a *arrival) sender() recipient {
	if a.frame == nil {
		return recipient{subject: a.msg.Reply}
	}
	id, _, _ := strings.Cut(a.msg.Reply, "~")
	return recipient{subject: a.frame.to, frame: a.frame, entry: id}
}

// done says that a request has come to its end.
func (a *arrival) done() {
	if a.frame != nil && a.frame.left.Add(-1) == 0 {
		a.frame.flush()
	}
}

// inbound is a frame some of whose calls have no answer yet.
type inbound struct {
	op   *operation
	to   string // its reply subject
	left atomic.Int32

	mu    sync.Mutex
	waits part
	timed bool
}

// part is an answer to a frame, to some of its calls.
type part struct {
	data []byte
	has  []answered
}

// answered is an answer in a part, and where its body is.
type answered struct {
	entry     string
	until     time.Time
	from, end int32
}

// receiveFrame is the callback of the subject of frames. It never blocks.
func (op *operation) receiveFrame(msg *nats.Msg) {
	if msg.Reply == "" || op.bus.hostileReply(msg.Reply) {
		op.bus.malformed.Add(1)
		return
	}
	if op.bus.curbs() {
		op.bus.replyError(op.bus.sender(arrival{msg: msg}), errCurbed, nil)
		return
	}
	if err := op.unpack(msg); err != nil {
		op.bus.malformed.Add(1)
		op.bus.replyError(op.bus.sender(arrival{msg: msg}), err, nil)
	}
}

var (
	errImportedFrame = endpoint.Unimplemented.New("batch frames do not pass through imports").WithReason(endpoint.ReasonUnsupported).
				WithOutcome(endpoint.NotExecuted)
	errFrameHeader = endpoint.InvalidArgument.New("a batch frame has no headers").WithReason(endpoint.ReasonMalformedHeader).
			WithOutcome(endpoint.NotExecuted)
	errFrameName = endpoint.InvalidArgument.New("an entry of the batch frame has a name that is no reply token").WithReason(endpoint.ReasonProtocol).
			WithOutcome(endpoint.NotExecuted)
)

// unpack admits the calls of a frame, or says why none of them is.
func (op *operation) unpack(msg *nats.Msg) *endpoint.Error {
	switch {
	case strings.HasPrefix(msg.Reply, wire.ImportRoot+"."): // a mapping that may let one message through
		return errImportedFrame
	case len(msg.Header) > 0 || garbled(msg):
		return errFrameHeader
	}
	var room [wire.MaxEntries]wire.Entry
	entries, err := wire.ReadEntries(room[:0], msg.Data)
	if err != nil {
		return err
	}
	text, now := string(msg.Data), time.Now()
	msgs := make([]nats.Msg, len(entries))
	for i, e := range entries {
		if msgs[i].Reply = wire.Name(e, text); !wire.IsToken(msgs[i].Reply) {
			return errFrameName
		}
		msgs[i].Subject, msgs[i].Data = op.subject, e.Body(msg.Data)
	}
	in := &inbound{op: op, to: msg.Reply}
	in.left.Store(int32(len(entries)))
	for i := range msgs {
		op.jobs.push(job{arrival: arrival{&msgs[i], in}, received: now})
	}
	return nil
}

// answer puts an answer into a part. The body is copied.
func (in *inbound) answer(to recipient, body []byte) {
	size, left := wire.EntrySize(len(to.entry), len(body)), int(in.left.Load())
	var full part
	in.mu.Lock()
	if len(in.waits.data)+size > min(wire.MaxBatch, int(in.op.bus.maxPayload.Load())) {
		full, in.waits = in.waits, part{}
	}
	p := &in.waits
	if p.data == nil {
		p.data, p.has = make([]byte, 0, left*size), make([]answered, 0, left)
	}
	p.data = wire.AppendEntry(p.data, to.entry, body)
	p.has = append(p.has, answered{to.entry, to.until, int32(len(p.data) - len(body)), int32(len(p.data))})
	timed := in.timed || left == 1
	in.timed = true
	in.mu.Unlock()
	if !timed {
		in.op.parts.add(in)
	}
	in.send(full)
}

// flush sends the answers that wait.
func (in *inbound) flush() {
	in.mu.Lock()
	p := in.waits
	in.waits, in.timed = part{}, false
	in.mu.Unlock()
	in.send(p)
}

// send publishes a part, or keeps its answers, each for itself.
func (in *inbound) send(p part) {
	if len(p.has) == 0 {
		return
	}
	b, until := in.op.bus, time.Time{}
	for _, a := range p.has {
		if a.until.After(until) {
			until = a.until
		}
	}
	place, _, err := b.up.admit(len(p.data), until, nil)
	if err == nil {
		err = b.publish(in.to, nil, p.data)
		place.release(len(p.data))
	}
	if err == nil {
		return
	}
	for _, a := range p.has {
		to := recipient{subject: in.to, frame: in, entry: a.entry, until: a.until}
		if err := in.apart(err, to, p.data[a.from:a.end]); err != nil {
			b.report(slog.LevelError, "reply not sent", slog.String("subject", in.op.subject), slog.Any("error", err))
		}
	}
}

// apart keeps an answer whose part was not sent, or sends it by itself where the broker takes less than it did.
func (in *inbound) apart(err error, to recipient, body []byte) error {
	b, h := in.op.bus, to.named(nil)
	if errors.Is(err, nats.ErrMaxPayload) {
		b.maxPayload.Store(b.nc.MaxPayload())
		err = b.publish(in.to, h, body)
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		b.replyError(to, tooLarge(len(body), h, b.nc.MaxPayload()).WithOutcome(endpoint.Executed), nil)
		return nil
	}
	return b.keep(err, to, h, body)
}

// parts are the frames of an operation that have answers which wait.
type parts struct {
	mu    sync.Mutex
	wait  []*inbound
	timer *time.Timer
}

func (p *parts) add(in *inbound) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait = append(p.wait, in)
	if len(p.wait) == 1 {
		p.timer = reset(p.timer, partTime, p.flush)
	}
}

// flush sends what waits, some of it after a shorter time.
func (p *parts) flush() {
	p.mu.Lock()
	wait := p.wait
	p.wait = nil
	p.mu.Unlock()
	for _, in := range wait {
		in.flush()
	}
}
