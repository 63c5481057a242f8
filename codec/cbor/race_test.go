//go:build race

package cbor_test

// raceEnabled tells allocation tests to stand aside: under the race detector sync.Pool drops values on purpose.
const raceEnabled = true
