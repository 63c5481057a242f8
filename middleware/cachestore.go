package middleware

import (
	"container/list"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// cacheStore is the room that all bindings of one Cache share: least recently used goes first.
type cacheStore struct {
	most int

	mu      sync.Mutex
	bytes   int
	entries map[cacheKey]*list.Element // of *cacheEntry
	recent  list.List                  // the most recently used in front
}

type cacheKey struct {
	binding *cacheBinding
	id      identity
}

type cacheEntry struct {
	cacheKey

	result  *endpoint.Result
	expires time.Time
	bytes   int
}

// entryOverhead is what an entry takes besides bytes and headers, measured and rounded up.
const entryOverhead = 512

// get returns a reply that is not out of date, nil if there is none, and the binding's ratio of hits with this one.
func (s *cacheStore) get(b *cacheBinding, id identity) (*endpoint.Result, float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var r *endpoint.Result
	if at := s.entries[cacheKey{b, id}]; at != nil {
		if e := at.Value.(*cacheEntry); time.Now().Before(e.expires) {
			s.recent.MoveToFront(at)
			r = e.result
		} else {
			s.remove(at)
		}
	}
	return r, b.hits.add(r != nil)
}

// put keeps a reply, and drops what there is no more room for; itself if it alone is too much.
func (s *cacheStore) put(b *cacheBinding, id identity, r *endpoint.Result, ttl time.Duration) {
	e := &cacheEntry{cacheKey: cacheKey{b, id}, result: r, expires: time.Now().Add(ttl), bytes: r.Size() + entryOverhead}
	if e.bytes > s.most {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[e.cacheKey]; old != nil {
		s.remove(old)
	}
	for s.bytes+e.bytes > s.most {
		s.remove(s.recent.Back())
	}
	if s.entries == nil {
		s.entries = map[cacheKey]*list.Element{}
	}
	s.entries[e.cacheKey] = s.recent.PushFront(e)
	s.bytes += e.bytes
}

func (s *cacheStore) remove(at *list.Element) {
	e := s.recent.Remove(at).(*cacheEntry)
	delete(s.entries, e.cacheKey)
	s.bytes -= e.bytes
}

func (s *cacheStore) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}
