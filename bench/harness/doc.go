// Package harness measures systems that answer calls: clients, services and the broker are processes of their own, take
// turns in shuffled rounds, and are compared within a round only.
//
// A [System] is what is measured, a [Load] how hard, and a [Point] one under the other. A [Lab] starts the processes, which
// are this very program in another role (see [Role]), and measures points in rounds. What comes out are samples, which
// [Median], [Ratios] and [Interval] make figures of.
//
// # Reading the source
//
// system.go has the words, load.go and open.go are what a client does, role.go is a child's side and child.go its parent's,
// lab.go takes the turns, stats.go and histogram.go are the arithmetic, usage.go is what a process says about itself.
package harness
