package uplink

import "time"

// Taker takes what is read. It must not block, and the bytes are not its own.
type Taker interface {
	// Item takes an item, and returns whose it is; nil if it is to go the usual way. Of those that do, and of ends, Detour tells: what
	// comes after them must not be earlier.
	Item(subject []byte, seq uint64, body []byte, now time.Time) Line
	Detour(subject []byte)

	// Plain takes a message without headers; false if it is to go the usual way. Of all that do, Passes tells. What it returns
	// besides has something that who reads is to run.
	Plain(subject, reply, body []byte) (Runner, bool)
	Passes(subject []byte)
}

// Line is an end of a stream that items are for.
type Line interface {
	// Next takes an item, if it is the next one and none is to go the usual way.
	Next(seq uint64, body []byte, now time.Time) bool

	// Told is called when all that was read for it was given to it, or what came next was another's.
	Told()
}

// Runner has something for who reads to run, the handlers of an endpoint.
type Runner interface {
	RunInline() // runs what waits, as long as it is quick
	Distrust()  // is told that one of them blocks: none is to be run inline for a while
	TakeOver()  // has others see to what waits
}
