package middleware

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
)

// RatePolicy says what [RateLimitBy] allows each key, and what it may remember. Limit must be set: nobody but you knows
// what is right. Negative values are faults.
type RatePolicy struct {
	// Limit is how many calls per second a key may make on average. [rate.Inf] limits nothing.
	Limit rate.Limit

	// Burst is how many calls a key may make at once after a pause. By default what Limit gives in a second, at least 1.
	Burst int

	// MaxKeys bounds the keys that are remembered, and so the memory: about 150 bytes each, whatever their length. When
	// it is reached, a new key takes the place of the one that was silent longest, which starts with a full bucket when it
	// comes again. By default 1,000,000.
	MaxKeys int

	// Idle is how long a silent key is remembered. By default as long as an empty bucket takes to refill, after which it
	// makes no difference, and at least a second. A shorter Idle saves memory and forgives what is left of a key's debt.
	Idle time.Duration
}

const (
	defaultMaxKeys = 1_000_000
	leastIdle      = time.Second
)

func (p *RatePolicy) complete() []error {
	faults := belowZero(
		amount{"Limit", float64(p.Limit)}, amount{"Burst", float64(p.Burst)},
		amount{"MaxKeys", float64(p.MaxKeys)}, amount{"Idle", float64(p.Idle)},
	)
	if p.Limit == 0 {
		faults = append(faults, errors.New("there is no Limit"))
	}
	if faults != nil {
		return faults
	}
	p.Limit = min(p.Limit, rate.Inf)
	if p.Burst == 0 {
		p.Burst = int(min(max(math.Ceil(float64(p.Limit)), 1), math.MaxInt32))
	}
	refill := float64(p.Burst) / float64(p.Limit) * float64(time.Second)
	if refill >= math.MaxInt64 {
		return []error{fmt.Errorf("a Burst of %d takes longer than 292 years at a Limit of %v", p.Burst, float64(p.Limit))}
	}
	if p.MaxKeys == 0 {
		p.MaxKeys = defaultMaxKeys
	}
	if p.Idle == 0 {
		p.Idle = max(time.Duration(refill), leastIdle)
	}
	return nil
}

// RateLimitBy is [RateLimit] with a token bucket for each key: a tenant, a user, an address. What it refuses gets the
// same error: resource_exhausted with a RetryAfter, reason rate_limited and outcome NotExecuted on the server's side,
// local_limit and NotSent on the client's. Streams of all kinds count once, when they are opened.
//
// The key is asked for each call, and must be quick and safe for concurrent use. It sees the call before it is decoded; a
// key that takes something out of c.Message() makes refused calls cost their decoding. Calls with an empty key
// share one bucket, as those of any other key do: who can leave its name out must not get around the limit by it. A key that
// panics fails the call, which is not executed: internal, reason panic.
//
// Keys may come from the wire: they are hashed, never kept, and their number is bounded by MaxKeys. 1,000,000 keys
// take about 150 MB. What a key has left is forgotten when it was silent for Idle, or for the longest of all
// when there is no room; in both cases while other calls pass, so there is no goroutine behind it. All that one RateLimitBy
// value surrounds shares the buckets. Many calls at once don't wait for each other unless their keys are of the
// same of up to 64 groups. A call of a known key allocates nothing, that of a new one allocates its bucket.
//
// A nil key and the faults of the policy make each call fail.
func RateLimitBy(key func(context.Context, *endpoint.Call) string, p RatePolicy) endpoint.Middleware {
	faults := p.complete()
	if key == nil {
		faults = append(faults, errors.New("the key function is nil"))
	}
	if faults != nil {
		return broken("RateLimitBy", faults...)
	}
	buckets, limited := newRateBuckets(p), rateLimited()
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			k, err := keyOf(ctx, c, key)
			if err != nil {
				return nil, err
			}
			if ok, wait := buckets.take(k); !ok {
				return nil, limited.after(c, wait)
			}
			return next(ctx, c)
		}
	}
}

// keyOf asks the user's function for the key. Nothing is held meanwhile, and nothing was called yet: its panic has a better
// outcome than Recover could give it.
func keyOf(ctx context.Context, c *endpoint.Call, key func(context.Context, *endpoint.Call) string) (k string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = endpoint.Recovered(p).WithOutcome(untouched(c))
		}
	}()
	return key(ctx, c), nil
}

// rateBuckets are the buckets of all keys, in shards by the first bits of the keys' hashes.
type rateBuckets struct {
	policy RatePolicy
	seed   maphash.Seed // random, so that nobody can choose keys that share a bucket or a shard
	start  time.Time
	shift  int
	shards []rateShard
}

const (
	maxShards  = 64
	leastShard = 1024 // keys in a shard, so that its oldest is about the oldest of all
	hashBits   = 64
)

func newRateBuckets(p RatePolicy) *rateBuckets {
	n, bits := 1, 0
	for n < maxShards && p.MaxKeys/(2*n) >= leastShard {
		n, bits = 2*n, bits+1
	}
	b := &rateBuckets{policy: p, seed: maphash.MakeSeed(), start: time.Now(), shift: hashBits - bits, shards: make([]rateShard, n)}
	for i := range b.shards {
		b.shards[i].room = p.MaxKeys / n
	}
	return b
}

// take takes a token of the key, or says when there will be one.
func (b *rateBuckets) take(key string) (ok bool, wait time.Duration) {
	hash := maphash.String(b.seed, key)
	s := &b.shards[hash>>b.shift]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	k := s.find(&b.policy, hash, now.Sub(b.start))
	if k.bucket.AllowN(now, 1) {
		return true, 0
	}
	return false, untilToken(k.bucket.TokensAt(now), b.policy.Limit)
}
