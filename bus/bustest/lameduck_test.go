package bustest_test

import (
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// A server of a cluster is about to end, as for its update, and says so. Services and callers go to another one before it
// closes their connections, and no call fails.
func TestLameDuck(t *testing.T) {
	c, err := embedded.StartCluster(3, embedded.WithConfig(`lame_duck_grace_period: "3s", lame_duck_duration: "30s"`))
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	var ran atomic.Int64
	old := c.Server(0)
	here, there := dial(t, old.URL()), dial(t, c.Server(1).URL())
	assert.NoError(t, here.Serve("svc.work", worker(&ran)))
	assert.NoError(t, there.Serve("svc.work", worker(&ran)))
	l := &load{callers: everywhere(t, c.Servers(), "svc.work", middleware.RetryPolicy{}), rate: 500, limit: 3 * time.Second}
	over := make(chan struct{})
	made := l.run(t, 0, func() error {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		<-tick.C
		l.duringf("one server is about to end")
		go func() {
			defer close(over)
			old.NATS().LameDuckShutdown()
		}()
		for old.NATS().NumClients() > 0 {
			<-tick.C
		}
		l.duringf("all have moved")
		<-tick.C
		return nil
	})
	l.none(t)
	l.report(t, 1)
	assert.Equal(t, int(ran.Load()), made, "each is executed once")
	assert.True(t, here.Conn().ConnectedUrl() != old.URL(), "moved")
	assert.NoError(t, here.Ready(t.Context()))
	<-over
}
