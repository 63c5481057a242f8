package middleware

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// rateShard holds keys in the order of their use.
//
//	newest ──older──▶ … ──older──▶ oldest     found: to the front
//	                                  │        new: in front; takes the oldest's place when there is no room
//	                                  └──▶ forgotten when idle, two with each call, so faster than they come
type rateShard struct {
	mu             sync.Mutex
	keys           map[uint64]*rateKey
	newest, oldest *rateKey
	room           int

	_ [24]byte // a cache line of its own
}

// rateKey is one key: 112 bytes, of which 80 are the bucket. One timestamp would do for a bucket whose rate and burst are
// known (the generic cell rate algorithm); not to have a second limiter beside that of x/time is worth the memory.
//
// The key itself is not here, because its length is the peer's choice. Two keys of one hash would share a bucket; with
// 64 bits and a random seed one key in 10^13 has such a twin among a million.
type rateKey struct {
	bucket       rate.Limiter
	hash         uint64
	used         time.Duration // after the start
	newer, older *rateKey
}

const forgetAtOnce = 2

// find returns the key's bucket, now the newest: that it had, or a full one.
func (s *rateShard) find(p *RatePolicy, hash uint64, now time.Duration) *rateKey {
	for range forgetAtOnce {
		if s.oldest == nil || now-s.oldest.used < p.Idle {
			break
		}
		s.remove(s.oldest)
	}
	k := s.keys[hash]
	switch {
	case k == nil:
		k = s.place()
		k.hash = hash
		k.fill(p)
		if s.keys == nil {
			s.keys = map[uint64]*rateKey{}
		}
		s.keys[hash] = k
	case now-k.used >= p.Idle: // those before it were not all forgotten yet
		k.fill(p)
		s.unlink(k)
	default:
		s.unlink(k)
	}
	k.used = now
	s.push(k)
	return k
}

// place returns memory for a new key.
func (s *rateShard) place() *rateKey {
	if len(s.keys) < s.room {
		return &rateKey{}
	}
	k := s.oldest
	s.remove(k)
	return k
}

// fill makes the bucket a full one, whatever it was: told of its rate in the year 1, it has gathered tokens ever since.
func (k *rateKey) fill(p *RatePolicy) {
	k.bucket.SetLimitAt(time.Time{}, p.Limit)
	k.bucket.SetBurstAt(time.Time{}, p.Burst)
}

func (s *rateShard) remove(k *rateKey) {
	s.unlink(k)
	delete(s.keys, k.hash)
	if len(s.keys) == 0 {
		s.keys = nil // a map never shrinks
	}
}

func (s *rateShard) push(k *rateKey) {
	k.older = s.newest
	if k.older == nil {
		s.oldest = k
	} else {
		k.older.newer = k
	}
	s.newest = k
}

func (s *rateShard) unlink(k *rateKey) {
	if k.newer == nil {
		s.newest = k.older
	} else {
		k.newer.older = k.older
	}
	if k.older == nil {
		s.oldest = k.newer
	} else {
		k.older.newer = k.newer
	}
	k.newer, k.older = nil, nil
}
