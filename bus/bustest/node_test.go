package bustest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Row 4: a node of a cluster is lost, with an instance and a caller at it. Who was at it goes to another one at once. Every call
// that is out ends within a second, with its reply or with what is true; but for the few requests that were inside of the
// node, of callers at other nodes: nobody can tell them.
func TestRow04NodeLost(t *testing.T) {
	for name, lose := range map[string]func(*testing.T) ([]string, func()){"shut down": shutDown, "killed": killed} {
		t.Run(name, func(t *testing.T) {
			rounds := 1
			if full() {
				rounds = 10
			}
			for range rounds {
				urls, strike := lose(t)
				nodeLost(t, urls, strike)
			}
		})
	}
}

// shutDown makes a cluster, and a way to shut its first server down, which waits for nobody.
func shutDown(t *testing.T) (urls []string, strike func()) {
	t.Helper()
	c := cluster(t, 3)
	return strings.Split(c.URL(), ","), c.Server(0).Shutdown
}

// killed makes a cluster whose first server is another process, and a way to kill that.
func killed(t *testing.T) (urls []string, strike func()) {
	t.Helper()
	p := start(t, "broker", "")
	url, routes, _ := strings.Cut(p.said, " ")
	a := bustest.Server(t, embedded.WithConfig(inCluster(routes)))
	b := bustest.Server(t, embedded.WithConfig(inCluster(routes, a.NATS().ClusterAddr().String())))
	assert.Eventually(t, func() bool { return a.NATS().NumRoutes() >= 2 && b.NATS().NumRoutes() >= 2 }, "formed")
	return []string{url, a.URL(), b.URL()}, func() { _ = p.Process.Kill() }
}

// at connects to the i-th of several servers, and knows the others.
func at(t *testing.T, urls []string, i int) *bus.Bus {
	t.Helper()
	b := dial(t, strings.Join(append(urls[i:i+1:i+1], urls...), ","), bus.WithNATS(nats.DontRandomize()))
	assert.Equal(t, b.Conn().ConnectedUrl(), urls[i])
	return b
}

func nodeLost(t *testing.T, urls []string, strike func()) {
	t.Helper()
	l := &load{rate: 500, limit: 3 * time.Second}
	for i := range 2 {
		assert.NoError(t, at(t, urls, i).Serve("svc.work", slow(100*time.Millisecond)))
		l.callers = append(l.callers, raw(at(t, urls, i), "svc.work"))
	}
	assert.Eventually(t, func() bool {
		for _, call := range l.callers {
			if _, err := call(t.Context(), nil); err != nil {
				return false
			}
		}
		return true
	})
	began := time.Now()
	var lost time.Duration
	l.run(t, 0, func() error {
		l.await(200)
		l.duringf("lost")
		lost = time.Since(began)
		strike()
		l.await(500)
		return nil
	})
	l.aftermath(t, lost)
}

// truths are the outcomes of what fails with a node.
var truths = map[string]endpoint.Outcome{
	endpoint.ReasonConnectionLost: endpoint.MaybeExecuted,
	endpoint.ReasonReplyLost:      endpoint.MaybeExecuted,
	endpoint.ReasonInstanceLost:   endpoint.MaybeExecuted,
	"":                            endpoint.MaybeExecuted, // the deadline
	endpoint.ReasonDisconnected:   endpoint.NotSent,
	endpoint.ReasonNoResponders:   endpoint.NotExecuted, // the broker chose a member beyond the node, and could not get there
}

// aftermath checks what became of the calls that were out when the first caller's node was lost, and when calls succeeded again.
func (l *load) aftermath(t *testing.T, lost time.Duration) {
	t.Helper()
	kinds, back := map[string]int{}, time.Hour
	var resolved []time.Duration
	for _, r := range l.ended {
		end := r.begin + r.took
		switch {
		case r.err == nil && r.caller == 0 && r.begin > lost:
			back = min(back, end-lost)
		case r.err != nil:
			e, ok := errors.AsType[*endpoint.Error](r.err)
			assert.True(t, ok, r.String())
			kinds[fmt.Sprintf("%v/%s, %v, caller %d", e.Code, e.Reason(), e.Outcome(), r.caller)]++
			want, ok := truths[e.Reason()]
			assert.True(t, ok, "told why:", r.String())
			assert.Equal(t, e.Outcome(), want, r.String())
			if e.Code == endpoint.DeadlineExceeded {
				assert.Equal(t, r.caller, 1, "was told:", r.String())
				continue
			}
			assert.Equal(t, e.Code, endpoint.Unavailable, r.String())
		}
		if r.begin < lost+time.Second && end > lost {
			resolved = append(resolved, end-max(r.begin, lost))
		}
	}
	slices.Sort(resolved)
	t.Logf("%d calls were out or came within a second; they ended after p50 %v, at most %v; failed: %v; calls of 100 ms succeeded again after %v",
		len(resolved), resolved[len(resolved)/2], resolved[len(resolved)-1], kinds, back)
	assert.True(t, resolved[len(resolved)-1] < 2*time.Second, "each in time")
	assert.True(t, back < 2*time.Second, "and again soon")
}
