package bus

import (
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// doubted is a service's end of a stream, and the broker's word, so long after its begin, that its caller is gone.
func doubted(t *testing.T) (x *serverStream, begin time.Time, word func(after time.Duration) error) {
	t.Helper()
	x, begin = &serverStream{}, time.Now()
	x.prepare(&Bus{}, endpoint.InvalidArgument, func(error) {})
	t.Cleanup(func() { // before it asks the broker again, which is not there
		x.mu.Lock()
		defer x.mu.Unlock()
		x.over = true
	})
	x.to, x.in = "peer", stream.NewReceiver(wire.DefaultGrant())
	return x, begin, func(after time.Duration) error {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.nobody(begin.Add(after))
	}
}

// An item that the sieve takes proves, as any other does, that its sender lives: one word of the broker's before it and one after
// it are no two.
func TestItemsAreHeardOf(t *testing.T) {
	x, begin, word := doubted(t)
	assert.NoError(t, word(0)) // it was never heard of
	assert.True(t, x.Next(1, nil, begin.Add(time.Second)))
	assert.NoError(t, word(2*time.Second))
	assert.True(t, x.Next(2, nil, begin.Add(3*time.Second)))
	assert.NoError(t, word(4*time.Second))
	assert.ErrorIs(t, word(5*time.Second), errCallerGone)
}

// Nor are two words with much time between.
func TestOldWordAboutACaller(t *testing.T) {
	x, begin, word := doubted(t)
	assert.True(t, x.Next(1, nil, begin))
	assert.NoError(t, word(0))
	assert.NoError(t, word(believed))
	assert.ErrorIs(t, word(believed+time.Second), errCallerGone)
}
