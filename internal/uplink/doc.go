// Package uplink makes, writes, reads and watches the connection to the broker, beneath nats.go, for those who are above it as well.
//
// nats.go writes and dials under a lock that everybody needs who publishes, wakes a goroutine for each message, and allocates for
// each. So an Uplink dials for it, and what it gets is an Outlet, whose Write never waits:
//
//	calls, streams ──► nats.go ──► Write ─┐
//	      └──────────► Put, Post, Lay ────┴──► buffer ──► TLS ──► network ──► TLS ──► reader ──► sieve ──┬──► Read ──► nats.go
//	                   Reserve, Release                                                                  └──► Taker
//
// Writing: who has a message reserves room for it (room.go), and puts it into the buffer of the connection, which one of those who
// put writes for all (gather.go, post.go); what the network does not take at once waits there (outlet.go). Reading: what is of the
// usual kind is taken out of what nats.go would read (sieve.go), and where it is quick to run, who reads runs it (reader.go). TLS is
// beneath both (cover.go). Watching: each connection has a number, its epoch (epoch.go); silence is told from a process that is busy
// (vigil.go), and a last word of the broker's from a reason to stay away (farewell.go).
//
// It knows nothing of calls: what it has to tell those above it says to a Taker, and what that returns.
package uplink
