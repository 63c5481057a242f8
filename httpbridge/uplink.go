package httpbridge

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// errLate is the error of a call whose input stopped within a message.
var errLate = endpoint.DeadlineExceeded.New("a message did not arrive in time")

// uplink is a request's body as a stream of messages. The call reads it in a goroutine of its own, which must have ended
// before the request does: net/http closes the body then, and waits for who reads it.
//
//	idle --messages--> reading --the body's end, a fault, or the call is over--> done
//	  `------------------ stop ------------------> over           stop interrupts what reads
type uplink struct {
	x    *exchange
	next func() ([]byte, error) // one message; io.EOF at the end

	since atomic.Int64 // when the message began that is being read, 0 if none is; see clock
	ended atomic.Bool  // the body was read to its end
	late  atomic.Bool  // a message took too long
	cut   atomic.Bool  // reading was interrupted: for net/http the client may have left, for this request and all on its connection

	mu      sync.Mutex
	over    bool
	reading chan struct{} // closed when it is done; nil before
}

// messages is the call's input. It may be ranged over once.
func (u *uplink) messages(mediaType string) iter.Seq2[*codec.Payload, error] {
	return u.input(func(yield func(*codec.Payload, error) bool) {
		for {
			data, err := u.next()
			switch {
			case err == io.EOF: //nolint:errorlint // itself: what wraps one is a body that broke off
				u.since.Store(0)
				u.ended.Store(true)
				return
			case err != nil:
				u.since.Store(0)
				yield(nil, u.fault(err))
				return
			}
			if !yield(&codec.Payload{MediaType: mediaType, Data: data}, nil) {
				return
			}
		}
	})
}

// input is the call's input, whoever makes messages of the body. It may be ranged over once.
func (u *uplink) input(messages iter.Seq2[*codec.Payload, error]) iter.Seq2[*codec.Payload, error] {
	return func(yield func(*codec.Payload, error) bool) {
		done := make(chan struct{})
		u.mu.Lock()
		again := u.over || u.reading != nil
		if !again {
			u.reading = done
		}
		u.mu.Unlock()
		if again {
			yield(nil, endpoint.Canceled.New("the call is over"))
			return
		}
		defer close(done)
		for p, err := range messages {
			u.since.Store(0)
			if err == nil {
				err = textual(p)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// Read reads from the body, and notes when a message begins, for the clock to see that it doesn't take for ever. A body that
// broke off is an error of its own, so that only one that ended too early looks like that.
func (u *uplink) Read(p []byte) (int, error) {
	if u.x.r.Body == nil { // of a request that no server read
		return 0, io.EOF
	}
	n, err := u.x.r.Body.Read(p)
	if err == io.ErrUnexpectedEOF { //nolint:errorlint // itself: net/http's, for a body that broke off
		err = endpoint.Canceled.Wrap(err, "the client left")
	}
	if n > 0 && u.since.Load() == 0 {
		u.since.Store(time.Now().UnixNano())
	}
	return n, err
}

// stop ends the reading and waits for its end.
func (u *uplink) stop() {
	u.mu.Lock()
	u.over = true
	reading := u.reading
	u.mu.Unlock()
	u.x.left = errors.Is(u.x.client.Err(), context.Canceled)
	if reading != nil {
		select {
		case <-reading:
		default:
			if !u.ended.Load() {
				u.interrupt()
			}
			<-reading
		}
	}
	if u.x.unread = !u.whole(); u.x.unread {
		u.x.readUntil(time.Now().Add(patience)) // net/http looks at what is left
	}
}

// interrupt ends a read. The connection can't be kept.
func (u *uplink) interrupt() {
	u.cut.Store(true)
	u.x.readUntil(past())
}

// whole reports whether the connection can be kept.
func (u *uplink) whole() bool { return u.ended.Load() && !u.cut.Load() }

// stopped reports whether what is read makes no difference any more.
func (u *uplink) stopped() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.over
}

// hurry ends a message that began too long ago.
func (u *uplink) hurry() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.over {
		u.late.Store(true) // first: for net/http, and so for the call, the client leaves
		u.interrupt()
	}
}

// fault is what the call ends with when its input can't be read on.
func (u *uplink) fault(err error) error {
	if _, ours := errors.AsType[*endpoint.Error](err); ours {
		e, status := public(err)
		return &refusal{status, e} // the call keeps the code, and forgets the reason that made the status
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errLate
	case errors.Is(err, context.Canceled), u.x.client.Err() != nil:
		return endpoint.Canceled.Wrap(err, "the client left")
	}
	return endpoint.InvalidArgument.Wrap(err, "the body can't be read")
}
