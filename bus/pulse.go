package bus

import (
	"sync"
	"sync/atomic"
	"time"
)

// A process that was stopped, or a machine that slept, finds what was sent to it meanwhile, as if it were new: received
// only now, and sent not so long ago that it could not be the clocks. The send time alone knows how long it waited. So a
// service feels its own pulse, and where that stood still, no allowance is made for the clocks' skew: what was sent before
// it went on has to have time left by its send time.

const (
	pulseEvery  = 100 * time.Millisecond
	frozenAfter = time.Second // so late is no busy machine any more
)

// pulse knows when this process last noticed that it was frozen. The zero value stands still and knows nothing. It goes by the
// wall clock: the monotonic one stands still while a machine sleeps. A wall clock that is set forward looks the same; what that
// costs is the allowance for what is under way at this moment. All methods may be called concurrently.
type pulse struct {
	beat  atomic.Int64 // of the last one, in unix milliseconds; 0: there is none
	awake atomic.Int64 // when the last freeze was noticed, in unix milliseconds

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// start makes it beat, if it does not yet.
func (p *pulse) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil && !p.stopped {
		p.beat.Store(time.Now().UnixMilli())
		p.timer = time.AfterFunc(pulseEvery, p.tick)
	}
}

// stop makes it stand still for good.
func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.beat.Store(0)
	if p.timer != nil {
		p.timer.Stop()
	}
}

func (p *pulse) tick() {
	now := time.Now().UnixMilli()
	p.notice(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.beat.Store(now)
		p.timer.Reset(pulseEvery)
	}
}

// notice looks whether there was a freeze. It is for those, too, who run before the tick does.
func (p *pulse) notice(now int64) {
	if beat := p.beat.Load(); beat != 0 && now-beat > (pulseEvery+frozenAfter).Milliseconds() {
		p.awake.Store(now)
	}
}

// slept reports whether what was sent then may have waited for us to wake up. Times are unix milliseconds.
func (p *pulse) slept(sent, now int64) bool {
	p.notice(now)
	return sent < p.awake.Load()
}
