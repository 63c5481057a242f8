package bus_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Row 4: what was sent by way of a connection that is lost, and that nobody acked, ends at once.
func TestRow04LostAtOnce(t *testing.T) {
	for name, spoil := range map[string]func(n *bustest.Net){
		"the link is cut":     func(n *bustest.Net) { n.Link("caller").Cut() },
		"the broker restarts": func(n *bustest.Net) { n.Server.Shutdown() },
	} {
		for conn, connect := range connections {
			t.Run(name+", "+conn, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := bustest.NewNet(t)
					caller := connect(t, n)
					silent := n.Dial("service") // acks nothing
					_, err := silent.Subscribe("svc.silent", func(*nats.Msg) {})
					assert.NoError(t, err)
					assert.NoError(t, silent.Flush())
					synctest.Wait()
					time.AfterFunc(300*time.Millisecond, func() { spoil(n) })
					takes(t, 300*time.Millisecond, func() {
						errs := each(100, func(int) error {
							_, err := echoer(caller, "svc.silent")(t.Context(), nil)
							return err
						})
						for _, err := range errs {
							failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
						}
					})
					assert.Equal(t, caller.Slots(), 0)
				})
			})
		}
	}
}

// connections are the two kinds that a bus has.
var connections = map[string]func(t *testing.T, n *bustest.Net) *bus.Bus{
	"owned": func(_ *testing.T, n *bustest.Net) *bus.Bus { return n.Connect("caller", quiet()) },
	"adopted": func(t *testing.T, n *bustest.Net) *bus.Bus {
		t.Helper()
		b, err := bus.New(n.Dial("caller", nats.MaxReconnects(-1), nats.ReconnectWait(time.Second)), quiet())
		assert.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, b.Drain(context.Background())) })
		return b
	},
}

// Row 4: where it is known which instance has the call, it goes on: the instance is asked when the connection is back.
func TestRow04AckedCallsGoOn(t *testing.T) {
	for conn, connect := range connections {
		t.Run(conn, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				service, caller := n.Connect("service", quiet()), connect(t, n)
				serve(t, service, "svc.long", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
					time.Sleep(9 * time.Second)
					return r, nil
				}))
				time.AfterFunc(time.Second, n.Link("caller").Cut)
				start := time.Now()
				for _, err := range each(300, func(int) error {
					_, err := echoer(caller, "svc.long")(t.Context(), nil)
					return err
				}) {
					assert.NoError(t, err)
				}
				took := time.Since(start) // the last of 300 handlers began a little later
				assert.True(t, took >= 9*time.Second && took < 9100*time.Millisecond, took.String())
			})
		})
	}
}

// Row 4: the reply came while the caller was away. The instance has kept it, and sends it again to who asks for the call.
func TestRow04RepliedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		serve(t, service, "svc.long", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			time.Sleep(time.Second)
			return r, nil
		}))
		time.AfterFunc(900*time.Millisecond, func() {
			n.Link("caller").Up.Freeze()
			n.Link("caller").Cut()
		})
		time.AfterFunc(1100*time.Millisecond, n.Link("caller").Up.Thaw)
		start := time.Now()
		got, err := echoer(caller, "svc.long")(t.Context(), []byte("x"))
		assert.NoError(t, err)
		assert.Equal(t, string(got), "x")
		assert.True(t, time.Since(start) < 4*time.Second, time.Since(start).String())
		assert.Equal(t, own(caller).Late, uint64(0))
		time.Sleep(6 * time.Second)
		assert.Equal(t, service.Kept(), 0)
	})
}

// Row 4: the instance went while the connection was away. That is not believed at once, since it may come back, too.
func TestRow04InstanceGoneMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t, bus.WithDefaultTimeout(time.Minute))
		serve(t, service, "svc.long", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
			<-ctx.Done()
			return r, nil
		}))
		time.AfterFunc(900*time.Millisecond, func() {
			n.Link("service").Up.Freeze()
			n.Link("service").Cut()
			n.Link("caller").Cut()
		})
		t.Cleanup(n.Link("service").Up.Thaw)
		start := time.Now()
		_, err := echoer(caller, "svc.long")(t.Context(), nil)
		failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
		took := time.Since(start)
		assert.True(t, took > 5*time.Second && took < 9*time.Second, took.String())
	})
}

// Row 4: a service keeps what it finished while it was away, for callers that still wait.
func TestRow04RepliesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		foreigner := n.Dial("caller")
		away := 2500 * time.Millisecond // none comes back sooner: see below
		serve(t, service, "svc.work", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			if len(r) == 0 {
				time.Sleep(5 * time.Millisecond) // for longer than who reads runs it, who is to find the connection lost
				n.Link("service").Up.Freeze()
				n.Link("service").Cut()
				time.AfterFunc(away, n.Link("service").Up.Thaw)
				synctest.Wait()
			}
			if string(r) == "fails" {
				return nil, endpoint.NotFound.New("no such thing")
			}
			return r, nil
		}))
		start := time.Now()
		got, err := foreigner.Request("svc.work", nil, 9*time.Second)
		assert.NoError(t, err)
		assert.Equal(t, string(got.Data), "")
		assert.True(t, time.Since(start) >= away, time.Since(start).String())
		_, err = echoer(caller, "svc.work")(t.Context(), []byte("fails"))
		failed(t, err, endpoint.NotFound, "", endpoint.Executed)
		assert.Equal(t, service.Unsent(), 0)
	})
}

// Row 4: the broker restarts, and takes everybody's connection. Whoever comes back first, the reply gets there.
func TestRow04BrokerRestarts(t *testing.T) {
	var first, second atomic.Int32
	for range 40 {
		synctest.Test(t, func(t *testing.T) {
			n, service, caller := far(t)
			serve(t, service, "svc.long", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
				time.Sleep(time.Second)
				return r, nil
			}))
			var mu sync.Mutex
			var order []string
			for name, b := range map[string]*bus.Bus{"service": service, "caller": caller} {
				back := b.Conn().StatusChanged(nats.CONNECTED)
				go func() {
					if _, ok := <-back; ok {
						mu.Lock()
						defer mu.Unlock()
						order = append(order, name)
					}
				}()
				t.Cleanup(func() { b.Conn().RemoveStatusListener(back) })
			}
			time.AfterFunc(900*time.Millisecond, func() {
				n.Server.Shutdown()
				time.Sleep(200 * time.Millisecond)
				assert.NoError(t, n.Server.Restart())
			})
			_, err := echoer(caller, "svc.long")(t.Context(), nil)
			assert.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			if order[0] == "service" {
				first.Add(1)
			} else {
				second.Add(1)
			}
		})
	}
	assert.True(t, first.Load() > 0 && second.Load() > 0, "either came back first")
}

// Row 4: what is kept is bounded, and nobody's for ever.
func TestRow04KeptRepliesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		serve(t, service, "svc.big", rawEndpoint(func(context.Context, []byte) ([]byte, error) {
			time.Sleep(time.Second)
			return make([]byte, 1<<20-1024), nil
		}))
		time.AfterFunc(500*time.Millisecond, func() {
			n.Link("service").Up.Freeze()
			n.Link("service").Cut()
		})
		time.AfterFunc(2*time.Second, func() { assert.Equal(t, service.Kept(), 4) })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		each(10, func(int) error {
			_, err := echoer(caller, "svc.big")(ctx, nil)
			assert.True(t, endpoint.OutcomeOf(err) == endpoint.MaybeExecuted)
			return nil
		})
		time.Sleep(4 * time.Second)
		assert.Equal(t, service.Kept(), 0)
		n.Link("service").Up.Thaw()
	})
}

// A service that drains while it is away waits for its connection, to say what it has to say.
func TestRow04DrainWaitsForTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, _ := far(t)
		foreigner := n.Dial("caller")
		serve(t, service, "svc.work", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			time.Sleep(time.Second)
			return r, nil
		}))
		replied := make(chan error, 1)
		go func() {
			_, err := foreigner.Request("svc.work", []byte("x"), 9*time.Second)
			replied <- err
		}()
		time.Sleep(500 * time.Millisecond)
		n.Link("service").Up.Freeze()
		n.Link("service").Cut()
		time.AfterFunc(3*time.Second, n.Link("service").Up.Thaw)
		synctest.Wait()
		assert.NoError(t, service.Drain(t.Context()))
		assert.NoError(t, <-replied)
	})
}
