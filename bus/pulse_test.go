package bus_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/internal/assert"
)

// Row 25: a process that was frozen does not take it for the clocks that what it finds was sent a while ago. What has
// time left is run.
func TestRow25AfterAFreeze(t *testing.T) {
	const freeze = 1550 * time.Millisecond // between two beats, which would otherwise be at the same moment
	for name, c := range map[string]struct {
		limit    time.Duration
		asleep   time.Duration // as the process sees it
		executed int32
	}{
		"its caller left":            {500 * time.Millisecond, freeze, 0},
		"its caller waits":           {freeze + 500*time.Millisecond, freeze, 1},
		"the network was it, not we": {500 * time.Millisecond, 0, 1},
		"a busy machine":             {500 * time.Millisecond, 900 * time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, service, caller := far(t)
				var ran atomic.Int32
				serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
					ran.Add(1)
					return r, nil
				}))
				n.Link("service").Down.Freeze()
				time.AfterFunc(freeze, func() {
					service.Oversleep(c.asleep)
					n.Link("service").Down.Thaw()
				})
				ctx, cancel := context.WithTimeout(t.Context(), c.limit)
				defer cancel()
				_, _ = echoer(caller, "svc.echo")(ctx, nil)
				time.Sleep(5 * time.Second)
				assert.Equal(t, ran.Load(), c.executed)
				assert.Equal(t, statsOf(t, service, "svc.echo").Expired, uint64(1-c.executed))
				_, err := echoer(caller, "svc.echo")(t.Context(), nil)
				assert.NoError(t, err, "what comes later is another matter")
			})
		})
	}
}

// A freeze is noticed by the pulse itself, too, where nothing was waiting, and forgotten where the send time is later.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p bus.Pulse
		slept := func(ago time.Duration) bool {
			now := time.Now()
			return p.Slept(now.Add(-ago).UnixMilli(), now.UnixMilli())
		}
		assert.True(t, !slept(time.Hour), "it stands still")
		p.Start()
		p.Start()
		time.Sleep(time.Minute)
		assert.True(t, !slept(time.Hour), "it beats")
		p.Oversleep(2 * time.Second)
		time.Sleep(100 * time.Millisecond)
		assert.True(t, slept(time.Second), "the tick was late")
		assert.True(t, !slept(0), "sent since")
		time.Sleep(time.Second)
		assert.True(t, slept(time.Hour) && !slept(999*time.Millisecond), "sent since")
		p.Stop()
		p.Stop()
		p.Start()
		time.Sleep(time.Minute)
		assert.True(t, !slept(time.Minute), "it stands still again")
	})
}
