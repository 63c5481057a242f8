package bus

import "time"

// Oversleep makes the bus believe that its process was frozen until now.
func (b *Bus) Oversleep(d time.Duration) { b.pulse.beat.Add(-d.Milliseconds()) }

// Pulse is for tests of it alone.
type Pulse struct{ pulse }

// Start, Stop and Slept are its methods.
func (p *Pulse) Start()                     { p.start() }
func (p *Pulse) Stop()                      { p.stop() }
func (p *Pulse) Slept(sent, now int64) bool { return p.slept(sent, now) }
func (p *Pulse) Oversleep(d time.Duration)  { p.beat.Add(-d.Milliseconds()) }
