package endpoint

import (
	"context"
	"sync/atomic"
	"time"
)

// Report is what [Observe] tells of a call. Read it after the call returned.
type Report struct {
	Instance    string // who served it, "" if unknown
	Attempts    int    // how often it was tried, 0 if it failed before the first
	Reply       Header // reply metadata
	Trailer     Header
	RequestSize int           // encoded, in bytes
	ReplySize   int           // encoded, in bytes
	Wait        time.Duration // from the call's start until its last attempt was handed to the transport
	Total       time.Duration // from the call's start to its end
}

// Observe gives a context and the report that the first call made with it fills in. Later calls leave it alone.
func Observe(ctx context.Context) (context.Context, *Report) {
	o := &observer{}
	return context.WithValue(ctx, observerKey{}, o), &o.report
}

type observerKey struct{}

type observer struct {
	report Report
	taken  atomic.Bool
	start  time.Time
	tries  atomic.Int64
	last   atomic.Int64 // nanoseconds after start
}

func observerOf(ctx context.Context, now time.Time) *observer {
	o, _ := ctx.Value(observerKey{}).(*observer)
	if o == nil || o.taken.Swap(true) {
		return nil
	}
	o.start = now
	return o
}

func (o *observer) attempt() {
	o.tries.Add(1)
	o.last.Store(int64(time.Since(o.start)))
}

func (o *observer) done(c *Call) {
	r := &o.report
	r.Instance, r.Attempts = c.instance, int(o.tries.Load())
	r.Reply, r.Trailer = c.Reply.Clone(), c.Trailer.Clone()
	r.RequestSize, r.ReplySize = c.Sizes()
	r.Wait, r.Total = time.Duration(o.last.Load()), time.Since(o.start)
}

// Observed reports whether somebody watches this call with Observe: a transport then asks who served it.
func (c *Call) Observed() bool { return c.root.observer != nil }
