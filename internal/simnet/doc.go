// Package simnet is a network that does what a test says: a link between the two ends of a connection, with latency,
// bandwidth, freezes, holes and cuts.
//
//	link := simnet.New()
//	near, err := link.Connect(far)      // far is what the server holds the other end of
//	near.Begin()                        // from here on the link's conditions count
//	link.Up.Latency(20 * time.Millisecond)
//	link.Down.Freeze()                  // and nothing arrives any more, until Thaw
//
// It is made for bubbles of testing/synctest, where time is virtual: a day of traffic takes seconds, and a link whose
// goroutines would not end fails the test. What such a bubble asks for is kept here: nobody waits for a mutex while time
// has to pass, and a net.Pipe, which holds nothing, has pumps on both sides that always read. A client and a server that
// write at the same moment don't wait for each other then.
//
//	near ──pipe──► absorb ► queue ► deliver ──► far        Up
//	near ◄──pipe── deliver ◄ queue ◄ absorb ◄── far        Down
//
// Time is exact, the order in which goroutines run is not: tests assert what holds under any order.
package simnet
