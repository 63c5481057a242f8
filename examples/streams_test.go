package examples_test

import (
	"fmt"
	"testing"

	"postbus.example/internal/assert"
)

// These run all their parts in one process, and end by themselves.
//
//nolint:dupword // lines are no sentence
var whole = map[string]struct {
	lines  int // of code, at most
	output string
}{
	"inventory": {95, `bicycle: 8 at least
  Delft has 3
  Gouda has 5
  Leiden does not answer, as one of 1
bell: 7 at least
  Delft has 7
  Gouda: not_found: Gouda has no bell
  Leiden does not answer, as one of 1
a bell: go to Delft
`},
	"tail": {65, `7 all is well
8 all is well
9 all is well
the handler ended: canceled: the caller gave up
`},
	"upload": {80, `a message: 67108864 bytes, 4291e080
a stream:  67108864 bytes, 4291e080
too much:  resource_exhausted (request_too_large): the request has 67108865 bytes, at most 67108864 are sent
`},
	"chat": {155, `ada hears * ada is here
ada hears * bob is here
bob hears * bob is here
ada hears ada: hello, bob
bob hears ada: hello, bob
ada hears * bob is gone
all is said
`},
}

func TestWholeExamples(t *testing.T) {
	for name, want := range whole {
		t.Run(name, func(t *testing.T) {
			n := code(t, name)
			assert.True(t, n <= want.lines, fmt.Sprintf("%d lines of code", n))
			p := run(t, name)
			assert.NoError(t, p.wait(t))
			assert.Equal(t, p.stdout(), want.output)
		})
	}
}
