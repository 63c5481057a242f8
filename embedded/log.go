package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// Levels of the server's log that log/slog has no name for.
const (
	// LevelTrace is for the protocol: each line that comes and goes, payloads included. The server writes it only if
	// the logger is enabled for it when the server starts, or if the configuration text has "trace: true".
	LevelTrace = slog.LevelDebug - 4
	// LevelFatal is for what would have ended the nats-server program. Here the server goes on as well as it can;
	// during Start it is the error that Start returns.
	LevelFatal = slog.LevelError + 4
)

// logOutput is where a server's log goes. The zero value discards it.
type logOutput struct{ to *slog.Logger }

func (o logOutput) logger(name string) *logger {
	if o.to == nil {
		return &logger{out: slog.New(slog.DiscardHandler)}
	}
	return &logger{out: o.to.With("server", name)}
}

// logger hands the server's log to slog and keeps the first fatal line: that is how a server tells that it could not
// start. The server calls it with locks held, so it must not call the server.
type logger struct {
	out *slog.Logger

	mu    sync.Mutex
	first error
}

func (l *logger) debug() bool { return l.out.Enabled(context.Background(), slog.LevelDebug) }
func (l *logger) trace() bool { return l.out.Enabled(context.Background(), LevelTrace) }

// fatal returns the first fatal line, or nil.
func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *logger) Noticef(format string, v ...any) { l.log(slog.LevelInfo, format, v) }
func (l *logger) Warnf(format string, v ...any)   { l.log(slog.LevelWarn, format, v) }
func (l *logger) Errorf(format string, v ...any)  { l.log(slog.LevelError, format, v) }
func (l *logger) Debugf(format string, v ...any)  { l.log(slog.LevelDebug, format, v) }
func (l *logger) Tracef(format string, v ...any)  { l.log(LevelTrace, format, v) }

// Fatalf does not end the process, other than nats-server's own loggers.
func (l *logger) Fatalf(format string, v ...any) {
	l.mu.Lock()
	if l.first == nil {
		l.first = newFatalError(format, v)
	}
	l.mu.Unlock()
	l.log(LevelFatal, format, v)
}

func (l *logger) log(level slog.Level, format string, v []any) {
	ctx := context.Background()
	if !l.out.Enabled(ctx, level) {
		return
	}
	l.out.LogAttrs(ctx, level, strings.TrimSpace(fmt.Sprintf(format, v...))) //nolint:sloglint // the server's words
}

// fatalError is a fatal line with the errors that were formatted into it.
type fatalError struct {
	text   string
	causes []error
}

func newFatalError(format string, v []any) *fatalError {
	e := &fatalError{text: strings.TrimSpace(fmt.Sprintf(format, v...))}
	for _, a := range v {
		if err, ok := a.(error); ok {
			e.causes = append(e.causes, err)
		}
	}
	return e
}

func (e *fatalError) Error() string   { return e.text }
func (e *fatalError) Unwrap() []error { return e.causes }
