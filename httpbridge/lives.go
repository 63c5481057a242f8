package httpbridge

import (
	"context"
	"sync"
	"time"
)

// lives are the requests under way, so that a drain that gives up waiting ends them. It is a list that requests are members
// of by themselves: to join it and to leave it costs next to nothing, other than to derive from a context of the bridge's.
type lives struct {
	mu    sync.Mutex
	first *life
	cause error // not nil: it is over, also for who comes now
}

// life is the membership of one request: its context, and whether its body is being read just now.
type life struct {
	context.Context

	cancel      context.CancelCauseFunc
	interrupt   func() // ends a read
	prev, next  *life
	mu          sync.Mutex
	reading     bool
	interrupted bool
}

// join makes a context of a client's, which ends with a drain as well. It must leave.
func (s *lives) join(client context.Context, interrupt func()) *life {
	l := &life{interrupt: interrupt}
	l.Context, l.cancel = context.WithCancelCause(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		l.cancel(s.cause)
		return l
	}
	if l.next = s.first; l.next != nil {
		l.next.prev = l
	}
	s.first = l
	return l
}

// leave ends the context.
func (s *lives) leave(l *life) {
	s.mu.Lock()
	switch {
	case l.prev != nil:
		l.prev.next = l.next
	case s.first == l:
		s.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	s.mu.Unlock()
	l.cancel(nil)
}

// end cancels all there are and all that come.
func (s *lives) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cause = cause
	for l := s.first; l != nil; l = l.next {
		l.cancel(cause)
		l.mu.Lock()
		if l.interrupted = l.reading; l.interrupted {
			l.interrupt()
		}
		l.mu.Unlock()
	}
}

// read runs f, which reads, unless the context has ended. It is interrupted when the bridge's patience ends.
func (l *life) read(f func() error) error {
	l.mu.Lock()
	l.reading = true
	l.mu.Unlock()
	err := l.Err()
	if err == nil {
		err = f()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading = false // from now on nothing is interrupted: it must not happen to what comes after
	if err == nil && l.interrupted {
		err = l.Err() // the connection can't be kept: net/http may have taken the interruption for the client's end
	}
	return err
}

// past is a deadline that ends what reads.
func past() time.Time { return time.Unix(1, 0) }
