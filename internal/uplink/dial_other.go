//go:build !linux

package uplink

import "syscall"

// boundSilence is for Linux: elsewhere the pings alone find a peer that is gone without a word.
func boundSilence(_, _ string, _ syscall.RawConn) error { return nil }
