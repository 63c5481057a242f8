package bus_test

import (
	"slices"
	"testing"
	"time"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// On real cores, a gather over a hundred instances takes at most twice the time of the slowest of them, called alone.
func TestGatherFigure(t *testing.T) {
	if !full() {
		t.Skip("real time: with POSTBUS_FULL=1 only")
	}
	const instances, rounds, slowest = 100, 20, 50 * time.Millisecond
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	var team []*member
	for i := range instances {
		m := &member{Bus: connect(t, s, quiet()), wait: slowest * time.Duration(i+1) / instances, ended: make(chan error, 1)}
		serve(t, m.Bus, "svc.count", endpoint.New(m.handle))
		team = append(team, m)
	}
	alone, together := make([]time.Duration, rounds), make([]time.Duration, rounds)
	warm(t, caller, team)
	direct := endpoint.WithInstance(t.Context(), team[instances-1].ID())
	for i := range rounds {
		start := time.Now()
		_, err := adder(caller, "svc.count")(direct, &AddRequest{1, 2})
		assert.NoError(t, err)
		alone[i] = time.Since(start)
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, len(h.said), instances)
		assert.Equal(t, h.missing, nil)
		together[i] = h.took
	}
	slices.Sort(alone)
	slices.Sort(together)
	t.Logf("the slowest alone %v, all together %v (median), %v (worst): %.2f times", alone[rounds/2], together[rounds/2], together[rounds-1],
		float64(together[rounds/2])/float64(alone[rounds/2]))
	assert.True(t, together[rounds/2] <= 2*alone[rounds/2])
}
