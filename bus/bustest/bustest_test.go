package bustest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	Number struct{ N int }
	Square struct{ N int }
)

func square(_ context.Context, r *Number) (*Square, error) { return &Square{r.N * r.N}, nil }

func TestNew(t *testing.T) {
	b := bustest.New(t, bus.WithName("calc"))
	assert.NoError(t, b.Serve("math.square", endpoint.New(square)))
	got, err := endpoint.Caller[*Number, *Square](b, "math.square")(t.Context(), &Number{7})
	assert.NoError(t, err)
	assert.Equal(t, got.N, 49)
	assert.NoError(t, b.Ready(t.Context()))
}

func TestConnectSeveralToOneServer(t *testing.T) {
	s := bustest.Server(t)
	a, b := bustest.Connect(t, s), bustest.Connect(t, s)
	assert.True(t, a.ID() != b.ID(), "two instances")
	assert.NoError(t, a.Serve("math.square", endpoint.New(square)))
	got, err := endpoint.Caller[*Number, *Square](b, "math.square")(t.Context(), &Number{3})
	assert.NoError(t, err)
	assert.Equal(t, got.N, 9)
}

// fake is a test that collects what is done to it, and ends when it is told to.
type fake struct {
	testing.TB
	mu       sync.Mutex
	cleanups []func()
	errors   []string
	fatal    bool
}

func (f *fake) Helper() {}

func (f *fake) Cleanup(c func()) { f.cleanups = append(f.cleanups, c) }

func (f *fake) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}

func (f *fake) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	f.fatal = true
	panic(f)
}

func (f *fake) end() {
	for _, cleanup := range slices.Backward(f.cleanups) {
		cleanup()
	}
}

func TestHandlerThatHangsFailsTheTest(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: takes the ten seconds that a handler has")
	}
	f := &fake{TB: t}
	b := bustest.New(f)
	entered, release := make(chan struct{}), make(chan struct{})
	assert.NoError(t, b.Serve("math.hang", endpoint.New(func(context.Context, *Number) (*Square, error) {
		close(entered)
		<-release
		return &Square{}, nil
	})))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = endpoint.Caller[*Number, *Square](b, "math.hang")(context.Background(), &Number{})
	}()
	<-entered
	f.end()
	close(release)
	<-done
	assert.Equal(t, len(f.errors), 1)
	assert.Contains(t, f.errors[0], "math.hang (1)")
}

func TestHandlerThatListensDoesNot(t *testing.T) {
	f := &fake{TB: t}
	b := bustest.New(f)
	assert.NoError(t, b.Serve("math.square", endpoint.New(square)))
	f.end()
	assert.Equal(t, len(f.errors), 0)
	assert.True(t, b.Conn().IsClosed(), "drained")
}

func TestFaultsAreFatal(t *testing.T) {
	for name, start := range map[string]func(f *fake){
		"bus.WithName": func(f *fake) { bustest.New(f, bus.WithName("no.dots")) },
		"embedded":     func(f *fake) { bustest.Server(f, embedded.WithMaxPayload(-1)) },
	} {
		f := &fake{TB: t}
		func() {
			defer func() { _ = recover() }()
			start(f)
		}()
		f.end()
		assert.True(t, f.fatal, name)
		assert.True(t, strings.HasPrefix(f.errors[0], "bustest: "), f.errors[0])
	}
}

func TestStartIsQuick(t *testing.T) {
	start := time.Now()
	bustest.New(t)
	t.Logf("server and bus in %v", time.Since(start))
	assert.True(t, time.Since(start) < 5*time.Second, "quick")
}
