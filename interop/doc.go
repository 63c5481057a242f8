// Package interop proves, with clients and services that others wrote, that a Postbus service is an ordinary NATS service
// and a Postbus caller an ordinary NATS client. It has tests only; README.md says what they show and how to run them.
//
// It is a module of its own, so that none of what it talks to becomes a dependency of Postbus.
package interop
