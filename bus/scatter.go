package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// A gather is many calls and one consumer. Each instance that is known to serve the subject gets a call of its own, on its
// direct subject; where that can't be, one request goes to all who listen, see crowd.
//
//	         ┌── found: takes direct calls ──► called ──► answers ──────────────► Reply
//	         │                                   ├──────► nobody there, lost ──► missing, if it was known to be there
//	looking ─┤                                   └──────► silent till the end ─► missing
//	         ├── found: does not, beside others ──────────────────────────────► Reply: unsupported
//	         └── nobody takes them, and none is one of a group ──► crowd
//
// It is over when all who are known have answered, and it is known who is there; after silence of Stall; by the deadline; or when
// the consumer leaves, as it does when it has its quorum. What is under way then is canceled.

// gathering is one gather under way. One goroutine has it, and its members have one each.
type gathering struct {
	p         *proxy
	c         *endpoint.Call
	ctx       context.Context
	leave     context.CancelFunc
	body      []byte
	mediaType string

	eye    *onlooker // nil where a single instance is asked
	news   <-chan struct{}
	enough <-chan struct{} // nil when it is known who is there
	way    way
	held   []candidate // found, while it is open which way they are asked
	crowd  crowd

	members sync.WaitGroup
	waits   int           // for so many results
	results chan result   // of the members
	over    chan struct{} // closed when nobody takes results any more

	said     int                        // replies that the consumer got
	last     time.Time                  // when it had the last one
	answered map[string]bool            // whose, of those who say who they are
	lost     map[string]*endpoint.Error // who is known, and did not answer; and why, if that is known
}

// way is how the instances are asked.
type way uint8

const (
	undecided way = iota
	onebyone
	together
)

// result is how the call of a member ended.
type result struct {
	of      candidate
	message any
	err     error
}

const (
	never  = time.Hour             // beyond any gather's patience: its timer is set again then
	timeUp = 50 * time.Millisecond // before the deadline: who says then that it passed is a little ahead
)

// gather is the handler of a gather's caller.
func (p *proxy) gather(ctx context.Context, c *endpoint.Call) (any, error) {
	body, mediaType, err := c.Encoded()
	if err != nil {
		return nil, err
	}
	if !p.bus.connected() {
		return nil, p.bus.offline()
	}
	x := &gathering{
		p: p, c: c, body: body, mediaType: mediaType, last: time.Now(), answered: map[string]bool{}, lost: map[string]*endpoint.Error{},
		results: make(chan result), over: make(chan struct{}),
	}
	if _, ok := ctx.Deadline(); ok {
		x.ctx, x.leave = context.WithCancel(ctx)
	} else {
		x.ctx, x.leave = context.WithTimeout(ctx, p.bus.timeout)
	}
	defer x.end() // also when the consumer's loop ends its goroutine
	x.begin()
	if err := x.run(); err != nil {
		return nil, err
	}
	return nil, x.finish()
}

// begin looks for who is to be asked, or asks the one that the context names.
func (x *gathering) begin() {
	id := endpoint.InstanceFrom(x.ctx)
	if id == "" {
		x.eye = x.p.bus.census.watch(x.p.bus, x.p.subject)
		x.news, x.enough = x.eye.news, x.eye.enough
		return
	}
	x.way = onebyone
	x.call(candidate{resident: resident{id: id}}, func(c *endpoint.Call) (any, error) {
		return x.p.direct(x.ctx, c, id)
	})
}

// run asks, and hands over what is answered, until the gather is over.
func (x *gathering) run() error {
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		if err := x.recruit(); err != nil {
			return err
		}
		if err := x.listen(); err != nil {
			return err
		}
		rest, over := x.rest()
		if over {
			return nil
		}
		timer.Reset(rest)
		select {
		case r := <-x.results:
			if err := x.take(r); err != nil {
				return err
			}
		case <-x.news:
		case <-x.enough:
			x.enough = nil
		case <-x.crowd.news:
		case <-timer.C:
		case <-x.ctx.Done():
			if errors.Is(x.ctx.Err(), context.DeadlineExceeded) {
				return nil
			}
			return endpoint.ContextError(x.ctx)
		}
	}
}

// rest tells whether the gather is over, or when to look again.
func (x *gathering) rest() (time.Duration, bool) {
	stall := x.c.Spec.Stall
	switch {
	case x.way == onebyone && x.enough == nil && x.waits == 0:
		return 0, true
	case x.way == together && x.crowd.nobody != nil:
		return 0, true
	case x.way == together && stall == 0 && x.said > 0 && len(x.crowd.holders) == 0:
		stall = crowdStall
	}
	if stall == 0 || x.way == undecided { // nobody was asked, so nobody is silent
		return never, false
	}
	quiet := time.Since(x.last)
	return stall - quiet, quiet >= stall
}

// recruit takes those who were found, and sees to it that they are asked.
func (x *gathering) recruit() error {
	if x.eye == nil {
		return nil
	}
	for _, m := range x.p.bus.census.take(x.eye) {
		if x.way == together { // who is found later has got the request to all, or will get the next one
			break
		}
		if x.held = append(x.held, m); x.way == undecided && m.direct && m.queue != "" {
			x.choose(onebyone) // a request to all would reach one of its group
		}
	}
	if x.way == undecided && x.enough == nil {
		if x.choose(x.decide()); x.way == together {
			return x.shout()
		}
	}
	if x.way != onebyone {
		return nil
	}
	held := x.held
	x.held = nil
	for _, m := range held {
		if err := x.join(m); err != nil {
			return err
		}
	}
	return nil
}

// choose says how they are asked. Silence counts from now.
func (x *gathering) choose(w way) {
	x.way, x.last = w, time.Now()
}

// decide is the way when all are known who are there: to all at once where somebody takes no direct calls, and nobody is one of a
// group.
func (x *gathering) decide() way {
	strangers := false
	for _, m := range x.held {
		strangers = strangers || !m.direct
		if m.queue != "" {
			return onebyone
		}
	}
	if len(x.held) > 0 && !strangers {
		return onebyone
	}
	return together
}

// join asks one more instance.
func (x *gathering) join(m candidate) error {
	if !m.direct {
		return x.deliver(m.id, nil, endpoint.Unimplemented.Errorf("the instance %s takes no direct calls, and there are others beside it", m.id).
			WithReason(endpoint.ReasonUnsupported).WithOutcome(endpoint.NotSent))
	}
	to := wire.Direct(x.p.bus.rpcRoot, m.service, m.id, x.p.subject)
	x.call(m, func(c *endpoint.Call) (any, error) {
		return x.p.attempt(x.ctx, c, to, nil)
	})
	return nil
}

// call makes the call of a member.
func (x *gathering) call(m candidate, attempt func(*endpoint.Call) (any, error)) {
	c := x.c.Member()
	x.waits++
	x.members.Go(func() {
		r := result{of: m}
		func() {
			defer func() {
				if p := recover(); p != nil {
					r.err = endpoint.Recovered(p)
				}
			}()
			r.message, r.err = attempt(c)
		}()
		select {
		case x.results <- r:
		case <-x.over:
		}
	})
}

// errAbsent is why an instance that is known did not answer: the broker says so.
var errAbsent = endpoint.Unavailable.New("it is not there").WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)

// errUnasked is why an instance that is known did not answer: the gather ended before anybody knew how to ask it, or whether it is
// still there.
var errUnasked = endpoint.Unavailable.New("the gather ended before it was asked").WithReason(endpoint.ReasonNoAnswer).WithOutcome(endpoint.NotSent)

// take hands over what a member said, or notes that it said nothing.
func (x *gathering) take(r result) error {
	x.waits--
	e, _ := errors.AsType[*endpoint.Error](r.err)
	switch {
	case e == nil:
		x.p.bus.census.heard(r.of.resident)
	case e.Reason() == endpoint.ReasonNoResponders:
		if x.eye == nil {
			return e
		}
		x.p.bus.census.absent(r.of)
		if !r.of.doubtful {
			x.lost[r.of.id] = errAbsent
		}
		return nil
	case x.upForAll(e), e.Code == endpoint.Canceled && !e.Remote():
		x.lost[r.of.id] = nil
		return nil
	case e.Remote():
		x.p.bus.census.heard(r.of.resident)
	case e.Reason() == endpoint.ReasonConnectionClosed:
		return e
	case e.Code == endpoint.Unavailable && e.Outcome() == endpoint.MaybeExecuted:
		x.lost[r.of.id] = e
		return nil
	}
	return x.deliver(r.of.id, r.message, r.err)
}

// upForAll reports whether the time of all is up: an instance that says so is a little ahead, and did not answer.
func (x *gathering) upForAll(err error) bool {
	deadline, _ := x.ctx.Deadline()
	return endpoint.CodeOf(err) == endpoint.DeadlineExceeded && time.Until(deadline) < timeUp
}

// deliver gives a reply to the consumer, and waits for it. Of several under one name the first counts.
func (x *gathering) deliver(id string, message any, err error) error {
	if x.answered[id] {
		x.p.bus.mux.late.Add(1)
		return nil
	}
	if id != "" {
		x.answered[id] = true
	}
	x.said++
	left := x.c.Send(&endpoint.Gathered{Instance: id, Message: message, Err: err})
	x.last = time.Now()
	return left
}

// finish cancels what is still under way, and says who is missing.
func (x *gathering) finish() error {
	x.leave()
	for x.waits > 0 {
		if err := x.take(<-x.results); err != nil {
			return err
		}
	}
	if err := x.roll(); err != nil {
		return err
	}
	if x.eye != nil && x.way != together {
		for _, m := range append(x.held, x.p.bus.census.rest(x.eye)...) {
			if _, asked := x.lost[m.id]; !asked {
				x.lost[m.id] = errUnasked
			}
		}
	}
	for id := range x.answered {
		delete(x.lost, id)
	}
	if x.said == 0 && len(x.lost) == 0 {
		return x.silence()
	}
	for _, g := range endpoint.Missing(x.lost) {
		if err := x.c.Send(g); err != nil {
			return err
		}
	}
	return nil
}

// silence is why nobody answered where nobody is known.
func (x *gathering) silence() *endpoint.Error {
	sent := endpoint.MaybeExecuted
	if x.way != together {
		sent = endpoint.NotSent
	}
	switch {
	case x.crowd.nobody != nil:
		return x.crowd.nobody
	case errors.Is(x.ctx.Err(), context.DeadlineExceeded):
		return endpoint.ContextError(x.ctx).WithOutcome(sent)
	case x.way == together:
		return endpoint.Unavailable.Errorf("nobody answered on %s", x.p.subject).WithReason(endpoint.ReasonNoAnswer).WithOutcome(sent)
	}
	return endpoint.Unavailable.Errorf("nobody serves %s", x.p.subject).WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)
}

// end gives back what the gather holds. Its members share its request: it waits for them.
func (x *gathering) end() {
	late := errors.Is(x.ctx.Err(), context.DeadlineExceeded)
	x.leave()
	close(x.over)
	if x.eye != nil {
		x.p.bus.census.leave(x.eye)
	}
	x.disperse(late)
	x.members.Wait()
}
