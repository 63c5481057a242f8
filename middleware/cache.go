package middleware

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// CachePolicy says what [Cache] keeps. The zero value is the good default. Negative values are faults.
type CachePolicy struct {
	// TTL is for how long a reply serves after it came. By default 1 s. Reply metadata Cache-Control: max-age may shorten
	// it; caches on several ways add up.
	TTL time.Duration

	// MaxBytes bounds what the replies of all callers and endpoints behind one Cache value take together: bytes,
	// headers and bookkeeping. What was not asked for the longest makes room. By default 64 MiB.
	MaxBytes int

	// MaxEntry bounds a single reply with its headers, in bytes; a larger one is not kept. By default an eighth of MaxBytes.
	MaxEntry int

	// Vary names the request headers that tell calls apart besides the encoded request. By default, for nil, it is all of
	// them but traceparent, tracestate and baggage; for an empty list none. Who leaves out a header that the reply depends
	// on, such as Authorization or a tenant, shows the replies of one to the other.
	Vary []string

	// Key says what identifies a call in place of request and headers, as in [Coalesce]; "" keeps a call out of the cache.
	// With it, Vary is a fault. By default there is none.
	Key func(context.Context, *endpoint.Call) string

	// Report is told "cache_hit_ratio" of an operation, over about the last hundred calls, at each call, and "cache_bytes", of
	// the whole cache with an empty subject, after each call that was not answered from it. It runs in the call's
	// goroutine and must be quick. By default nobody is told.
	Report func(name, subject string, value float64)
}

const (
	defaultTTL      = time.Second
	defaultMaxBytes = 64 << 20
	entryShare      = 8 // MaxEntry is MaxBytes divided by this
)

func (p *CachePolicy) complete() []error {
	var faults []error
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"TTL", int64(p.TTL)},
		{"MaxBytes", int64(p.MaxBytes)},
		{"MaxEntry", int64(p.MaxEntry)},
	} {
		if f.value < 0 {
			faults = append(faults, fmt.Errorf("%s is negative", f.name))
		}
	}
	if p.Key != nil && p.Vary != nil {
		faults = append(faults, errors.New("with a Key, Vary does nothing"))
	}
	if p.TTL == 0 {
		p.TTL = defaultTTL
	}
	if p.MaxBytes == 0 {
		p.MaxBytes = max(defaultMaxBytes, p.MaxEntry)
	}
	if p.MaxEntry == 0 {
		p.MaxEntry = max(p.MaxBytes, 0) / entryShare
	}
	if p.MaxBytes >= 0 && p.MaxEntry > p.MaxBytes {
		faults = append(faults, fmt.Errorf("MaxEntry %d is more than MaxBytes %d", p.MaxEntry, p.MaxBytes))
	}
	return faults
}

// Cache answers calls with replies it has kept: their bytes, which each caller decodes into a message of its own, and
// their headers. Identical calls that find none run once, as with [Coalesce], whose rules hold here, too. Errors are never kept, nor
// are replies whose metadata say Cache-Control: no-store, no-cache or private.
//
// Cache acts on both sides, on unary calls that are declared endpoint.ReadOnly(); all else passes through. A call that is
// answered from it is not executed anywhere: on the client's side Instance is "" and Report.Attempts 0. Each caller
// and each endpoint has its own replies, all in one room; make callers once.
//
// On the server's side Cache MUST stand inside of [Authenticate] and whatever else decides who may ask: what stands inside of
// Cache is not asked on a hit. [Fallback] marks its replies no-store. Nothing runs in the background: what is
// out of date stays until it is asked for or makes room. A hit costs a hash, a look under a lock, and what decoding the
// reply costs; every other call what Coalesce costs, and a copy of the reply.
func Cache(p CachePolicy) endpoint.Middleware {
	if faults := p.complete(); faults != nil {
		return broken("Cache", faults...)
	}
	names := varyNames(p.Vary)
	store := &cacheStore{most: p.MaxBytes}
	return func(next endpoint.Handler) endpoint.Handler {
		b := &cacheBinding{policy: p, names: names, store: store}
		b.flights = flights{next: next, landed: b.keep}
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if c.Spec.Kind != endpoint.UnaryKind || !c.Spec.ReadOnly {
				return next(ctx, c)
			}
			id, ok := identify(ctx, c, p.Key, names)
			if !ok {
				return next(ctx, c)
			}
			return b.call(ctx, c, id)
		}
	}
}

// varyNames brings header names into the form of headerNames; nil stays nil.
func varyNames(vary []string) []string {
	if vary == nil {
		return nil
	}
	var h endpoint.Header
	for _, name := range vary {
		h.Add(name, "")
	}
	return headerNames(&h)
}

// cacheBinding is a Cache around one handler.
type cacheBinding struct {
	flights

	policy CachePolicy
	names  []string
	store  *cacheStore
	hits   hitRatio // guarded by store.mu
}

// hitRatio is the share of calls that were answered from the cache, over about the last hundred.
type hitRatio struct{ calls, ratio float64 }

const ratioWindow = 100

func (h *hitRatio) add(hit bool) float64 {
	h.calls = min(h.calls+1, ratioWindow)
	if h.ratio -= h.ratio / h.calls; hit {
		h.ratio += 1 / h.calls
	}
	return h.ratio
}

func (b *cacheBinding) call(ctx context.Context, c *endpoint.Call, id identity) (any, error) {
	kept, ratio := b.store.get(b, id)
	b.report("cache_hit_ratio", c.Subject, ratio)
	if kept == nil {
		reply, err := b.flights.call(ctx, c, id)
		b.report("cache_bytes", "", float64(b.store.size()))
		return reply, err
	}
	reply, err := c.Replay(kept)
	if c.Side == endpoint.ClientSide {
		c.SetInstance("") // nobody was asked
	}
	return reply, err
}

func (b *cacheBinding) report(name, subject string, value float64) {
	if b.policy.Report != nil {
		b.policy.Report(name, subject, value)
	}
}

// keep sees the reply of a flight before those who wait for it.
func (b *cacheBinding) keep(c *endpoint.Call, id identity, r *endpoint.Result) {
	ttl := freshness(&c.Reply, b.policy.TTL)
	if ttl > 0 && r.Size() <= b.policy.MaxEntry {
		b.store.put(b, id, r, ttl)
	}
}

// freshness returns for how long a reply may be kept by its Cache-Control (RFC 9111, 5.2.2): at most ttl, 0 for not at all.
func freshness(h *endpoint.Header, ttl time.Duration) time.Duration {
	if h.Len() == 0 {
		return ttl
	}
	for _, v := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(v, ",") {
			name, arg, _ := strings.Cut(directive, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "no-store", "no-cache", "private":
				return 0
			case "max-age", "s-maxage":
				ttl = min(ttl, age(arg))
			}
		}
	}
	return ttl
}

// age reads seconds. What can't be read is stale, as the RFC advises.
func age(arg string) time.Duration {
	const most = 1 << 31 // as much as the RFC asks for
	n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(arg), `"`), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return time.Duration(min(n, most)) * time.Second
}
