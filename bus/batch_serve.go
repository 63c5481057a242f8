package bus

import (
	"errors"
	"log/slog"
	"slices"
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

// arrival is a request as it arrived: in a message, or as an entry of a frame.
type arrival struct {
	msg   *nats.Msg  // the message, that of the whole frame for an entry
	frame *inbound   // nil for a message
	entry wire.Entry // where it is in the frame
}

// body is what an entry has of one.
func (a *arrival) body() []byte { return a.entry.Body(a.msg.Data) }

// read reads the metadata of a request: what its token says, or the name of its entry, and its headers.
func (a *arrival) read(with *wire.Reader, meta *wire.Request, app *endpoint.Header) *endpoint.Error {
	if a.frame != nil {
		return with.Call(a.entry, a.msg.Data, meta)
	}
	if err := with.Token(a.msg.Reply[strings.LastIndexByte(a.msg.Reply, '.')+1:], meta); err != nil {
		return err
	}
	return wire.ReadRequest(wire.Headers(a.msg.Header), meta, app)
}

// address says in to who waits for the answer.
func (a *arrival) address(to *recipient) {
	to.subject, to.frame = a.msg.Reply, a.frame
	if a.frame != nil {
		to.entry = a.entry.ID(a.msg.Data)
	}
}

// sender is who waits for the answer.
func (a *arrival) sender() (to recipient) {
	a.address(&to)
	return to
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
	waits *part // nil for none
	timed bool
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
	var room [wire.MaxEntries]job
	jobs, err := op.unpack(room[:0], msg)
	if err != nil {
		op.bus.malformed.Add(1)
		op.bus.replyError(op.bus.sender(arrival{msg: msg}), err, nil)
	}
	for _, j := range jobs {
		op.jobs.push(j)
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

// unpack makes jobs of the calls of a frame, or says why none of them is executed.
func (op *operation) unpack(jobs []job, msg *nats.Msg) ([]job, *endpoint.Error) {
	switch {
	case strings.HasPrefix(msg.Reply, wire.ImportRoot+"."): // a mapping that may let one message through
		return nil, errImportedFrame
	case len(msg.Header) > 0 || garbled(msg):
		return nil, errFrameHeader
	}
	var room [wire.MaxEntries]wire.Entry
	entries, err := wire.ReadEntries(room[:0], msg.Data)
	if err != nil {
		return nil, err
	}
	in, now := &inbound{op: op, to: msg.Reply}, time.Now()
	in.left.Store(int32(len(entries)))
	for _, e := range entries {
		if !e.IsCall(msg.Data) {
			return nil, errFrameName
		}
		jobs = append(jobs, job{arrival: arrival{msg, in, e}, received: now})
	}
	return jobs, nil
}

// answer puts an answer into a part. The body is copied.
func (in *inbound) answer(to *recipient, body []byte) {
	size, left := wire.EntrySize(len(to.entry), len(body)), int(in.left.Load())
	var full *part
	in.mu.Lock()
	p := in.waits
	if p != nil && len(p.data)+size > min(wire.MaxBatch, int(in.op.bus.maxPayload.Load())) {
		full, p = p, nil
	}
	if p == nil {
		p = in.op.parts.empty(left, left*size)
		in.waits = p
	}
	p.data = wire.AppendEntry(p.data, to.entry, body)
	p.since, p.waits = to.since, append(p.waits, to.waits)
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
	in.waits, in.timed = nil, false
	in.mu.Unlock()
	in.send(p)
}

// send publishes a part, or keeps its answers, each for itself.
func (in *inbound) send(p *part) {
	if p == nil {
		return
	}
	b, size := in.op.bus, len(p.data)
	if !b.lay(in.to, p.data) {
		place, _, err := b.up.Admit(size, p.since.Add(slices.Max(p.waits)), nil)
		if err == nil {
			err = b.publish(in.to, nil, p.data)
			place.Release(size)
		}
		if err != nil {
			in.lost(p, err)
		}
	}
	in.op.parts.sent(p)
}

// lost keeps the answers of a part that was not sent.
func (in *inbound) lost(p *part, why error) {
	var room [wire.MaxEntries]wire.Entry
	entries, _ := wire.ReadEntries(room[:0], p.data) // which we wrote
	for i, e := range entries {
		to := recipient{subject: in.to, frame: in, entry: wire.Name(e, p.data), since: p.since, waits: p.waits[i]}
		if err := in.apart(why, to, e.Body(p.data)); err != nil {
			in.op.bus.report(slog.LevelError, "reply not sent", slog.String("subject", in.op.subject), slog.Any("error", err))
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
