package bus_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"postbus.example/internal/assert"
)

const (
	actorPart = "POSTBUS_ACTOR"
	actorURL  = "POSTBUS_ACTOR_URL"
)

// parts are what this test binary does in a process of its own: each gets the broker's URL and answers line by line, until
// nobody asks any more.
var parts = map[string]func(t *testing.T, url string) (answer func(line string) string){
	"stranger": playStranger,
}

// actor is a process of a test.
type actor struct {
	t    testing.TB
	part string
	in   io.WriteCloser
	out  *bufio.Scanner
}

// cast starts a process for a part; it ends with the test.
func cast(t testing.TB, part, url string) *actor {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestActor$")
	cmd.Env = append(os.Environ(), actorPart+"="+part, actorURL+"="+url)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	assert.NoError(t, err)
	out, err := cmd.StdoutPipe()
	assert.NoError(t, err)
	assert.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &actor{t: t, part: part, in: in, out: bufio.NewScanner(out)}
}

// ask says a line and waits for the answer.
func (a *actor) ask(line string) string {
	a.t.Helper()
	_, err := fmt.Fprintln(a.in, line)
	assert.NoError(a.t, err, a.part)
	if !a.out.Scan() {
		a.t.Fatalf("the %s has left: %v", a.part, a.out.Err())
	}
	answer, ok := strings.CutPrefix(a.out.Text(), "> ")
	assert.True(a.t, ok, "the "+a.part+" says "+a.out.Text())
	return answer
}

// TestActor is not a test but a part of those that use several processes; by itself it does nothing.
func TestActor(t *testing.T) {
	part := parts[os.Getenv(actorPart)]
	if part == nil {
		return
	}
	answer := part(t, os.Getenv(actorURL))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println("> " + answer(lines.Text()))
	}
}
