package middleware

import (
	"sync"
	"sync/atomic"

	"postbus.example/endpoint"
)

// keptSubjects is how many subjects a middleware value remembers, about: more is a program that makes up subjects.
const keptSubjects = 10_000

// subjects is what a middleware value keeps for each subject, in bounded memory. Those who bound themselves to one look
// it up only once. When half of the bound is new, whatever nobody looked up meanwhile is forgotten: no clock, no list,
// no walk. Whoever is still bound to something forgotten looks again.
type subjects[T any] struct {
	mu         sync.Mutex
	young, old map[subjectKey]*kept[T]
}

// subjectKey tells the two sides apart: one middleware value may stand around a handler and around its callers.
type subjectKey struct {
	side    endpoint.Side
	subject string
}

type kept[T any] struct {
	key       subjectKey
	forgotten atomic.Bool
	value     T
}

// get finds what is kept for the key, or keeps what prepare makes of a zero value; fresh tells which. No lock of anybody
// else is taken below that of subjects.
func (s *subjects[T]) get(key subjectKey, prepare func(*T)) (k *kept[T], fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.young[key]; k != nil {
		return k, false
	}
	k = s.old[key]
	if fresh = k == nil; fresh {
		k = &kept[T]{key: key}
		prepare(&k.value)
	}
	delete(s.old, key)
	if len(s.young) >= keptSubjects/2 {
		for _, k := range s.old {
			k.forgotten.Store(true)
		}
		s.old, s.young = s.young, nil
	}
	if s.young == nil {
		s.young = map[subjectKey]*kept[T]{}
	}
	s.young[key] = k
	return k, fresh
}

// subjectBinding is where a caller or handler, which has one subject, finds what is kept for it without a lock.
type subjectBinding[T any] struct{ bound atomic.Pointer[kept[T]] }

// of returns what is kept for the call's subject.
func (b *subjectBinding[T]) of(s *subjects[T], c *endpoint.Call, prepare func(*T)) (v *T, fresh bool) {
	if k := b.bound.Load(); k != nil && k.key.subject == c.Subject && k.key.side == c.Side && !k.forgotten.Load() {
		return &k.value, false
	}
	k, fresh := s.get(subjectKey{c.Side, c.Subject}, prepare)
	b.bound.Store(k)
	return &k.value, fresh
}
