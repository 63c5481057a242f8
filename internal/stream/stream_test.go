package stream_test

import (
	"testing"
	"time"

	"postbus.example/internal/assert"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

var window = wire.Grant{Messages: 4, Bytes: 100}

// use consumes an item, and grants more when it is time.
func use(r *stream.Receiver, size int) (g wire.Grant, due bool) {
	if due = r.Use(size); due {
		g = r.TopUp(time.Time{})
	}
	return g, due
}

func TestCredit(t *testing.T) {
	s, r := stream.NewSender(window), stream.NewReceiver(window)
	send := func(size int) error {
		seq := s.Next()
		s.Sent(size)
		return r.Item(seq, size)
	}
	assert.NoError(t, send(99))
	assert.True(t, s.Ready(), "a byte is left")
	assert.NoError(t, send(1000))
	assert.True(t, !s.Ready(), "the balance is negative by one item")
	assert.ErrorIs(t, r.Item(3, 0), stream.ErrOverrun)
	g, due := use(&r, 99)
	assert.True(t, due, "the balance is negative")
	assert.Equal(t, g, wire.Grant{Messages: 5, Bytes: 199})
	assert.NoError(t, s.Grant(g))
	assert.True(t, !s.Ready(), "still negative")
	g, due = use(&r, 1000)
	assert.True(t, due)
	assert.Equal(t, g, wire.Grant{Messages: 6, Bytes: 1199})
	assert.NoError(t, s.Grant(wire.Grant{Messages: 1, Bytes: 1}))
	assert.True(t, !s.Ready(), "an old grant takes nothing back, and gives nothing")
	assert.NoError(t, s.Grant(g))
	for range 4 {
		assert.True(t, s.Ready())
		assert.NoError(t, send(0))
	}
	assert.True(t, !s.Ready(), "no message is left")
	_, due = use(&r, 0)
	assert.True(t, !due, "more than half is left")
	g, due = use(&r, 0)
	assert.True(t, due)
	assert.Equal(t, g, wire.Grant{Messages: 8, Bytes: 1199})
	assert.NoError(t, s.Grant(g))
	assert.True(t, s.Ready())
}

// A window grows where its consumer is fast and waits, and shrinks when it is not fast any more.
func TestWindowGrows(t *testing.T) {
	small, most := wire.Grant{Messages: 64, Bytes: 256 << 10}, stream.MaxWindow()
	r, now, seq := stream.NewReceiver(small), time.Now(), uint64(0)
	half := func(behind int, took time.Duration) (tight, loose bool, g wire.Grant) {
		now = now.Add(took)
		for due := false; !due; {
			for ; seq < r.Used()+1+uint64(behind); seq++ {
				assert.NoError(t, r.Item(seq+1, 1))
			}
			due = r.Use(1)
		}
		if tight, loose = r.Tight(now), r.Loose(now); tight {
			r.Widen()
		}
		if loose {
			r.Narrow()
		}
		return tight, loose, r.TopUp(now)
	}
	half(0, 0) // now it is known when credit was granted
	for _, want := range []uint64{256, 1024, most.Messages} {
		tight, _, g := half(0, time.Millisecond)
		assert.True(t, tight)
		assert.Equal(t, g.Messages-r.Used(), want)
		assert.True(t, g.Bytes-r.Used() <= most.Bytes)
	}
	tight, loose, _ := half(0, time.Millisecond)
	assert.True(t, !tight && !loose, "it is as large as it gets")
	_, loose, _ = half(0, 2*time.Second)
	assert.True(t, loose)
	assert.Equal(t, r.Narrow(), uint64(0))
	tight, _, _ = half(0, 2*time.Second)
	assert.True(t, !tight, "this consumer is slow")
	tight, _, _ = half(5, time.Millisecond)
	assert.True(t, !tight, "this one did not wait")
}

func TestFaults(t *testing.T) {
	three := func() *stream.Receiver {
		r := stream.NewReceiver(window)
		for seq := range uint64(3) {
			assert.NoError(t, r.Item(seq+1, 1))
		}
		return &r
	}
	ended := three()
	assert.NoError(t, ended.End(3))
	behind := three()
	assert.NoError(t, behind.Beat(5))
	halfway := three()
	assert.NoError(t, halfway.Beat(4))
	assert.NoError(t, halfway.Item(4, 1))
	missed := three()
	assert.NoError(t, missed.Beat(4)) // three items and the end
	for name, c := range map[string]struct{ got, want error }{
		"a gap":                {three().Item(5, 1), stream.ErrGap},
		"twice":                {three().Item(3, 1), stream.ErrDuplicate},
		"zero":                 {three().Item(0, 1), stream.ErrDuplicate},
		"a late one":           {three().Item(1, 1), stream.ErrDuplicate},
		"after the end":        {ended.Item(4, 1), stream.ErrAfterEnd},
		"two ends":             {ended.End(3), stream.ErrAfterEnd},
		"an end too soon":      {three().End(4), stream.ErrGap},
		"an end too late":      {three().End(2), stream.ErrMiscounted},
		"the next beat":        {behind.Beat(5), stream.ErrBehind},
		"caught up":            {halfway.Beat(4), nil},
		"the end is missing":   {missed.Beat(4), stream.ErrBehind},
		"a beat from before":   {three().Beat(1), nil},
		"nothing was to come":  {new(stream.Receiver).Item(1, 0), stream.ErrAfterEnd},
		"nothing was to end":   {new(stream.Receiver).End(0), stream.ErrAfterEnd},
		"a beat after the end": {ended.Beat(4), nil},
	} {
		assert.Equal(t, c.got, c.want, name)
	}
	assert.Equal(t, new(stream.Receiver).Granted(), wire.Grant{})
	s := stream.NewSender(window)
	assert.ErrorIs(t, s.Grant(wire.Grant{Messages: wire.MaxAhead + 1}), stream.ErrGreedy)
	assert.ErrorIs(t, s.Grant(wire.Grant{Bytes: wire.MaxAheadBytes + 1}), stream.ErrGreedy)
	s.Sent(1)
	assert.NoError(t, s.Grant(wire.Grant{Messages: wire.MaxAhead + 1, Bytes: wire.MaxAheadBytes + 1}))
	assert.Equal(t, s.Position(), uint64(1))
	s.End()
	assert.True(t, !s.Ready() && s.Position() == 2 && s.Count() == 1)
	none := stream.Sender{}
	assert.True(t, !none.Ready() && none.Position() == 0)
}

func TestWatch(t *testing.T) {
	const every, idle = 10 * time.Second, 25 * time.Second
	start := time.Unix(0, 0)
	w := stream.NewWatch(start, every, idle)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	look := func(seconds int, want stream.Event, next time.Duration) {
		t.Helper()
		e, n := w.Look(at(seconds))
		assert.Equal(t, e, want)
		assert.Equal(t, n, next)
	}
	look(0, stream.Nothing, every)
	look(9, stream.Nothing, time.Second)
	look(10, stream.Beat, every)
	look(20, stream.Beat, 5*time.Second)
	w.Active(at(21))
	look(25, stream.Nothing, 5*time.Second)
	look(30, stream.Silent, every)
	w.Heard(at(30))
	look(40, stream.Beat, 6*time.Second)
	look(46, stream.Idle, 4*time.Second)
	w.Active(at(46))
	w.Probation(at(46))
	look(50, stream.Beat, 6*time.Second)
	look(56, stream.Unproved, 4*time.Second)
	w.Heard(at(56))
	look(57, stream.Nothing, 3*time.Second)

	w = stream.NewWatch(start, 0, 0)
	look(1_000_000, stream.Nothing, 0)
	w = stream.Watch{}
	look(1_000_000, stream.Nothing, 0)
	w = stream.NewWatch(start, 0, idle)
	look(24, stream.Nothing, time.Second)
	look(25, stream.Idle, 0)
}

// An end that counts whatever came closes the half: nothing follows, and nothing is granted.
func TestClosedReceiver(t *testing.T) {
	r := stream.NewReceiver(wire.Grant{Messages: 2, Bytes: 100})
	assert.NoError(t, r.Item(1, 1))
	r.Close()
	assert.True(t, !r.Open())
	assert.ErrorIs(t, r.Item(2, 1), stream.ErrAfterEnd)
	assert.ErrorIs(t, r.End(1), stream.ErrAfterEnd)
	due := r.Use(1)
	assert.True(t, !due)
	assert.Equal(t, r.Granted(), wire.Grant{})
}
