package bus

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
)

// What the broker quotes is read back as it was, and nothing else is taken for it.
func FuzzDeniedPublish(f *testing.F) {
	for _, s := range []string{"svc.add", "", `a"b\c`, "ü\u200b\xff\n", `x" Violation for Publish to "y`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := deniedPublish(fmt.Errorf("%w: Permissions Violation for Publish to %q", nats.ErrPermissionViolation, s))
		assert.True(t, ok, s)
		assert.Equal(t, got, s)
		for _, text := range []string{s, `Permissions Violation for Publish to "` + s, fmt.Sprintf("Permissions Violation for Publish with Reply of %q", s)} {
			_, _ = deniedPublish(fmt.Errorf("%w: %s", nats.ErrPermissionViolation, text))
			_, ok := deniedPublish(errors.New(text))
			assert.True(t, !ok, "another error")
		}
	})
}
