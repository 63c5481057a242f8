package bus

import (
	"testing"
	"time"

	"postbus.example/internal/assert"
)

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Now()
	take := func(most int) (n int) {
		for range most {
			if b.take(now) {
				n++
			}
		}
		return n
	}
	assert.Equal(t, take(100), 20, "full at first")
	now = now.Add(49 * time.Millisecond)
	assert.Equal(t, take(100), 0)
	now = now.Add(time.Millisecond)
	assert.Equal(t, take(100), 1, "one each 50 ms")
	now = now.Add(500 * time.Millisecond)
	assert.Equal(t, take(100), 10)
	now = now.Add(time.Hour)
	assert.Equal(t, take(100), 20, "never more than full")
	now = now.Add(-time.Hour)
	assert.Equal(t, take(100), 0, "a clock that goes back")
}
