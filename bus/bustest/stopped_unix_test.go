//go:build unix

package bustest_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Row 25: a process that was stopped for less than the clocks may differ, and goes on, runs nothing whose caller has left.
func TestRow25StoppedProcess(t *testing.T) {
	s := bustest.Server(t)
	service, b := start(t, "service", s.URL()), dial(t, s.URL())
	work := raw(b, "svc.work")
	count := endpoint.Caller[struct{}, *tally](b, "svc.tally")
	_, err := work(t.Context(), []byte("1ms"))
	assert.NoError(t, err)
	assert.NoError(t, service.Process.Signal(syscall.SIGSTOP))
	awaitStop(t, service.Process.Pid)
	awake := time.After(1500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	var sent atomic.Uint64
	for range 100 {
		wg.Go(func() {
			if _, err := work(ctx, []byte("1ms")); endpoint.OutcomeOf(err) == endpoint.MaybeExecuted && errors.Is(err, endpoint.DeadlineExceeded) {
				sent.Add(1)
			}
		})
	}
	waits := make(chan error, 1)
	go func() {
		_, err := work(t.Context(), []byte("1ms"))
		waits <- err
	}()
	wg.Wait()
	assert.True(t, sent.Load() > 0, "left while it was stopped")
	<-awake // a stop of less than a second is none
	assert.NoError(t, service.Process.Signal(syscall.SIGCONT))
	assert.NoError(t, <-waits, "who still waits is served")
	var n *tally
	assert.Eventually(t, func() bool {
		n, err = count(t.Context(), struct{}{})
		return err == nil && n.Expired == sent.Load()
	}, "the others are refused")
	assert.Equal(t, n.Ran, 2, "and not run")
}

// awaitStop waits until a child has stopped: the signal is only on its way when it was sent, and what the child still takes, it runs.
func awaitStop(t *testing.T, pid int) {
	t.Helper()
	var status syscall.WaitStatus
	err := error(syscall.EINTR)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
	}
	assert.NoError(t, err)
	assert.True(t, status.Stopped(), "stopped")
}
