package main

import (
	"context"
	"iter"
	"sync"

	"postbus.example/endpoint"
)

// Line is what somebody says.
type Line struct {
	From string `json:"from,omitempty"`
	Text string `json:"text"`
}

// room is where everybody hears everybody. It lives in one instance: with more of them, members are to be directed to that of
// their room, see endpoint.WithInstance. The zero value is an empty one.
type room struct {
	mu      sync.Mutex
	members map[*member]bool
}

// member is one stream's end in the room.
type member struct {
	name  string
	lines chan *Line // to be sent; closed when it was thrown out
}

// patience is how many lines a member may be behind.
const patience = 64

// chat is the whole service: what a member sends goes to all, for as long as it stays.
func (r *room) chat(ctx context.Context, in iter.Seq2[*Line, error]) iter.Seq2[*Line, error] {
	return func(yield func(*Line, error) bool) {
		m := &member{name: endpoint.FromContext(ctx).Header.Get("Name"), lines: make(chan *Line, patience)}
		if m.name == "" {
			yield(nil, endpoint.InvalidArgument.New("the header Name is missing"))
			return
		}
		r.join(m)
		defer r.leave(m)
		left := make(chan struct{})
		go func() {
			defer close(left)
			for line, err := range in { // ends with the input, or with the call
				if err != nil {
					return
				}
				r.say(&Line{From: m.name, Text: line.Text})
			}
		}()
		for {
			select {
			case line, in := <-m.lines:
				if !in {
					yield(nil, endpoint.ResourceExhausted.Errorf("%s does not keep up", m.name))
					return
				}
				if !yield(line, nil) {
					return
				}
			case <-left:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

func (r *room) join(m *member) {
	r.mu.Lock()
	if r.members == nil {
		r.members = map[*member]bool{}
	}
	r.members[m] = true
	r.mu.Unlock()
	r.say(&Line{Text: m.name + " is here"})
}

func (r *room) leave(m *member) {
	r.mu.Lock()
	delete(r.members, m)
	r.mu.Unlock()
	r.say(&Line{Text: m.name + " is gone"})
}

// say gives a line to all, and waits for nobody: who is too far behind is thrown out, so that the others are not held up.
func (r *room) say(line *Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m := range r.members {
		select {
		case m.lines <- line:
		default:
			delete(r.members, m)
			close(m.lines)
		}
	}
}
