package middleware_test

import (
	"fmt"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// TestAllocsHedge: a call that may be hedged pays for a timer and a context that can be canceled; others pay nothing.
func TestAllocsHedge(t *testing.T) {
	hedge := middleware.Hedge(middleware.HedgePolicy{})
	assert.Equal(t, extra(t, wait, hedge), 0, "not idempotent")
	used := middleware.NewBudget(middleware.BudgetPolicy{Ratio: -1, PerSecond: -1})
	idle := middleware.Hedge(middleware.HedgePolicy{Budget: used})
	assert.Equal(t, extra(t, wait, idle, endpoint.Idempotent()), 0, "no budget")
	_ = extra(t, wait, hedge, endpoint.Idempotent()) // it gets to know the latencies
	got := extra(t, wait, hedge, endpoint.Idempotent())
	assert.True(t, got > 0 && got <= 20, fmt.Sprint(got, " for a call that may be hedged"))
}
