// Package layers keeps the house in order: who may import whom, what each package shows to the public, and that it
// says what it shows. It consists of tests only; read layers_test.go for the policy.
//
// The import policy is a text, after go/build/deps_test.go of Go itself. The public faces are golden files in
// testdata/api, so that growth shows in every diff; they are rewritten with
//
//	go test ./internal/layers -update
package layers
