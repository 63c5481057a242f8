package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"postbus.example/endpoint"
)

// The exit codes, append-only. A failed call exits with exitCode plus the number of its code, which is gRPC's.
const (
	exitOK        = 0
	exitFailure   = 1   // what has no better number
	exitUsage     = 64  // EX_USAGE of sysexits.h
	exitIO        = 74  // EX_IOERR
	exitCode      = 100 // 101 canceled … 116 unauthenticated
	exitInterrupt = 130 // as shells have it: 128 and SIGINT
)

// ioError is a file or a stream that can't be read or written.
type ioError struct{ error }

func (e *ioError) Unwrap() error { return e.error }

// conclude tells what went wrong, and returns the exit code.
func (p *process) conclude(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	code := codeFor(ctx, err)
	switch {
	case errors.Is(err, errTold):
	case p.opts.JSON:
		p.sayJSON(code, err)
	case code == exitInterrupt:
		p.say("interrupted")
	default:
		p.say(human(err))
	}
	return code
}

// errTold is the error of a command that has told all there is to tell, and only wants its exit code.
var errTold = errors.New("told")

func told(err error) error { return errors.Join(errTold, err) }

func codeFor(ctx context.Context, err error) int {
	e, remote := errors.AsType[*endpoint.Error](err)
	_, misused := errors.AsType[*usageError](err)
	_, io := errors.AsType[*ioError](err)
	_, path := errors.AsType[*fs.PathError](err)
	switch {
	case misused:
		return exitUsage
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitInterrupt
	case remote && e != nil && e.Reason() == endpoint.ReasonConstruction:
		return exitUsage
	case remote && e != nil && e.Code != endpoint.OK:
		return exitCode + int(e.Code)
	case io, path:
		return exitIO
	case errors.Is(err, context.DeadlineExceeded):
		return exitCode + int(endpoint.DeadlineExceeded)
	}
	return exitFailure
}

// say writes to standard error for people. A fault of it is nobody's business: there is no other place to tell it.
func (p *process) say(text string) {
	for line := range strings.Lines(text) {
		_, _ = fmt.Fprintf(p.err, "postbus: %s\n", strings.TrimRight(line, "\n"))
	}
}

// human makes one line of an error of a call, and one of each fault of a usage error.
func human(err error) string {
	e, ok := errors.AsType[*endpoint.Error](err)
	if _, misused := errors.AsType[*usageError](err); misused || !ok || e == nil {
		return err.Error()
	}
	text := e.Error()
	if _, ran := errors.AsType[*endpoint.MissingError](err); !ran {
		text += " (" + outcomes[e.Outcome()] + ")"
	}
	return strings.ReplaceAll(text, "\n", "; ")
}

// outcomes say in words what decides whether a call may be repeated.
var outcomes = map[endpoint.Outcome]string{
	endpoint.NotSent: "not sent", endpoint.NotExecuted: "not executed", endpoint.MaybeExecuted: "may have been executed", endpoint.Executed: "executed",
}

// failure is an error as --json has it: Connect's error JSON, and what this side knows besides.
type failure struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Details json.RawMessage `json:"details,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Outcome string          `json:"outcome,omitempty"`
	Exit    int             `json:"exit,omitempty"`
}

func failureOf(err error) failure {
	e, ok := errors.AsType[*endpoint.Error](err)
	if !ok || e == nil {
		return failure{Code: endpoint.CodeOf(err).String(), Message: err.Error()}
	}
	f := failure{}
	if text, err := e.MarshalJSON(); err == nil {
		_ = json.Unmarshal(text, &f) // what was just written
	}
	f.Code, f.Reason, f.Outcome = e.Code.String(), e.Reason(), e.Outcome().String()
	if f.Message == "" {
		f.Message = e.Error()
	}
	return f
}

func (p *process) sayJSON(code int, err error) {
	f := failureOf(err)
	switch code {
	case exitUsage:
		f = failure{Code: "usage", Message: err.Error()}
	case exitInterrupt:
		f = failure{Code: endpoint.Canceled.String(), Message: "interrupted"}
	}
	f.Exit = code
	if err := json.NewEncoder(p.err).Encode(f); err != nil {
		p.say(f.Message)
	}
}
