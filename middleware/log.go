package middleware

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"postbus.example/endpoint"
)

// LogOption configures [Log].
type LogOption func(*callLog)

// LogLevels chooses the level of a call by its code. By default, and for nil, it is [LogLevel].
func LogLevels(level func(endpoint.Code) slog.Level) LogOption {
	return func(l *callLog) {
		if l.level = level; level == nil {
			l.level = LogLevel
		}
	}
}

// LogSample lets keep decide which calls are logged; it is asked at the end of a call, with the call's error, when the level
// is enabled. By default, and for nil, every call is.
func LogSample(keep func(c *endpoint.Call, err error) bool) LogOption {
	return func(l *callLog) { l.keep = keep }
}

// LogAttrs adds attributes to each line, such as the tenant from the context. It is asked at the end of a call, when the
// line is written. What it returns is logged as it is: mind what may be seen. By default, and for nil, there are none.
func LogAttrs(more func(ctx context.Context, c *endpoint.Call) []slog.Attr) LogOption {
	return func(l *callLog) { l.more = more }
}

// LogLevel is the level that [Log] gives a code by default:
//
//	info   ok, canceled, and what is between caller and handler: invalid_argument, not_found, already_exists, unauthenticated
//	warn   what an operator may want to know: deadline_exceeded, permission_denied, resource_exhausted,
//	       failed_precondition, aborted, out_of_range, unimplemented, unavailable
//	error  what somebody has to mend: unknown, internal, data_loss
func LogLevel(c endpoint.Code) slog.Level {
	switch c {
	case endpoint.OK, endpoint.Canceled, endpoint.InvalidArgument, endpoint.NotFound, endpoint.AlreadyExists, endpoint.Unauthenticated:
		return slog.LevelInfo
	case endpoint.Unknown, endpoint.Internal, endpoint.DataLoss:
		return slog.LevelError
	default:
		return slog.LevelWarn
	}
}

// Log writes one line, "rpc", at the end of each call, with the attributes
//
//	side, subject, kind         of the call
//	code, outcome, reason       how it ended; on the server's side as the peer is told; reason if there is one
//	took                        what Log surrounds, so everything inside of it
//	request_bytes, reply_bytes  encoded; of streams what is known
//	attempt                     if it is not the first (0)
//	instance                    who served it, if known
//	trace_id                    if the call has a traceparent
//	cause, stack                at the service, of internal, unknown and data_loss; the stack of a panic
//
// Payloads, header values and the messages of other errors are never logged. Log acts on both sides and on all kinds. A
// panic that passes through is logged and goes on: see [Recover].
//
// A nil logger logs nothing. A call whose level is disabled costs no allocation; a call that
// failed may cost one at the server, to find out what the peer is told, when the level of internal errors is enabled.
func Log(to *slog.Logger, opts ...LogOption) endpoint.Middleware {
	if to == nil {
		return endpoint.Chain()
	}
	return newLog(to, opts).middleware
}

func newLog(to *slog.Logger, opts []LogOption) *callLog {
	l := &callLog{to: to, level: LogLevel}
	for _, o := range opts {
		if o != nil {
			o(l)
		}
	}
	return l
}

type callLog struct {
	to    *slog.Logger
	level func(endpoint.Code) slog.Level
	keep  func(*endpoint.Call, error) bool
	more  func(context.Context, *endpoint.Call) []slog.Attr
}

func (l *callLog) middleware(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (reply any, err error) {
		start, returned := c.Now(), false
		defer func() {
			if returned {
				l.end(ctx, c, start, err)
			} else {
				l.gone(ctx, c, start, recover())
			}
		}()
		reply, err = next(ctx, c)
		returned = true
		return reply, err
	}
}

// gone is the end of a call that did not return; p is what it panicked with, which goes on.
func (l *callLog) gone(ctx context.Context, c *endpoint.Call, start time.Time, p any) {
	if p == nil { // runtime.Goexit
		l.end(ctx, c, start, endpoint.Internal.New("the goroutine ended").WithReason(endpoint.ReasonPanic))
		return
	}
	l.end(ctx, c, start, endpoint.Recovered(p))
	panic(p)
}

func (l *callLog) end(ctx context.Context, c *endpoint.Call, start time.Time, err error) {
	code, outcome := endpoint.CodeOf(err), endpoint.OutcomeOf(err)
	if err != nil && c.Side == endpoint.ServerSide {
		// The peer may be told less than the error says, and then it is internal.
		if !l.to.Enabled(ctx, l.level(code)) && !l.to.Enabled(ctx, l.level(endpoint.Internal)) {
			return
		}
		told := c.Verdict(err)
		code, outcome = told.Code, told.Outcome()
	}
	level := l.level(code)
	if !l.to.Enabled(ctx, level) || l.keep != nil && !l.keep(c, err) {
		return
	}
	took := time.Since(start)
	request, reply := c.Sizes()
	var room [16]slog.Attr
	attrs := append(room[:0],
		slog.String("side", c.Side.String()),
		slog.String("subject", c.Subject),
		slog.String("kind", c.Spec.Kind.String()),
		slog.String("code", code.String()),
		slog.String("outcome", outcome.String()),
		slog.Duration("took", took),
		slog.Int("request_bytes", request),
		slog.Int("reply_bytes", reply),
	)
	attrs = appendKnown(attrs, c)
	attrs = appendFailure(attrs, c, code, err)
	if l.more != nil {
		attrs = append(attrs, l.more(ctx, c)...)
	}
	l.to.LogAttrs(ctx, level, "rpc", attrs...)
}

// appendKnown appends what not every call has.
func appendKnown(attrs []slog.Attr, c *endpoint.Call) []slog.Attr {
	if c.Attempt > 0 {
		attrs = append(attrs, slog.Int("attempt", c.Attempt))
	}
	if id := c.Instance(); id != "" {
		attrs = append(attrs, slog.String("instance", id))
	}
	if id := traceID(c.Trace()); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	return attrs
}

// appendFailure appends the reason, and what only this side will ever know of a failure that nobody authored.
func appendFailure(attrs []slog.Attr, c *endpoint.Call, code endpoint.Code, err error) []slog.Attr {
	if err == nil {
		return attrs
	}
	e, ok := find(err)
	if ok && e.Reason() != "" {
		attrs = append(attrs, slog.String("reason", e.Reason()))
	}
	if c.Side != endpoint.ServerSide || code != endpoint.Unknown && code != endpoint.Internal && code != endpoint.DataLoss {
		return attrs
	}
	cause := err
	if ok && e.Unwrap() != nil {
		cause = e.Unwrap()
	}
	attrs = append(attrs, slog.String("cause", cause.Error()))
	if p, ok := errors.AsType[*endpoint.PanicError](err); ok {
		attrs = append(attrs, slog.String("stack", string(p.Stack)))
	}
	return attrs
}

// traceID takes the trace's id out of a traceparent (https://www.w3.org/TR/trace-context/#traceparent-header), "" if it
// is not one: a header comes from outside and must not get into the log as it is.
func traceID(traceparent string) string {
	const begin, end, least = 3, 35, 55 // 00-<32>-<16>-00
	if len(traceparent) < least || traceparent[begin-1] != '-' || traceparent[end] != '-' {
		return ""
	}
	id := traceparent[begin:end]
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return id
}
