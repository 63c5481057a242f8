// Package pb holds the contract of the peers that have one in protobuf, and what their generators make of it: run
// ./generate after a change.
package pb
