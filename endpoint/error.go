package endpoint

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Error is a failure that may cross the wire: its code, message, details and retry advice do; its cause never does.
// The zero value is an error of code OK, which nobody should return.
//
// An Error is treated as immutable once made: With and the setters return copies. It is safe for concurrent use. A nil
// *Error in an error interface is a mistake that counts as an unknown error.
type Error struct {
	Code    Code
	Message string   // for the peer, one or a few lines
	Details []Detail // for the peer's program

	// RetryAfter tells the peer when to try again: 0 says nothing, negative says never.
	RetryAfter time.Duration

	cause    error
	reason   string
	outcome  Outcome
	remote   bool // a peer's verdict
	received bool // came out of a caller in this process: not authored here
}

// Error returns the code, the reason if any, and the message, or the cause where there is no message.
// It is meant for people and logs on this side; what the peer gets is Code and Message.
func (e *Error) Error() string {
	if e == nil {
		return "nil *endpoint.Error"
	}
	var b strings.Builder
	b.WriteString(e.Code.String())
	if e.reason != "" {
		b.WriteString(" (" + e.reason + ")")
	}
	switch {
	case e.Message != "":
		b.WriteString(": " + e.Message)
	case e.cause != nil:
		b.WriteString(": " + e.cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause, nil if there is none. On the caller's side it is the declared error that the service
// returned ([Errors], [ErrorValue]).
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.cause
}

// Is makes errors.Is work with codes, and with the context errors for the codes that stand for them.
func (e *Error) Is(target error) bool {
	if e == nil {
		return false
	}
	if c, ok := target.(Code); ok {
		return c == e.Code
	}
	return e.Code == DeadlineExceeded && target == context.DeadlineExceeded || e.Code == Canceled && target == context.Canceled
}

// Outcome tells whether the handler may have run.
func (e *Error) Outcome() Outcome { return e.outcome }

// Reason returns a fixed machine word that says more than the code, "" if there is none. See the Reason constants.
func (e *Error) Reason() string { return e.reason }

// Remote reports whether a peer said so, rather than this process.
func (e *Error) Remote() bool { return e.remote }

// WithOutcome returns a copy with the outcome. It is for transports and middleware.
func (e *Error) WithOutcome(o Outcome) *Error {
	n := *e
	n.outcome = o
	return &n
}

// WithReason returns a copy with the machine word. It is for transports and middleware.
func (e *Error) WithReason(word string) *Error {
	n := *e
	n.reason = word
	return &n
}

// WithRetryAfter returns a copy with the advice when to try again; negative says never.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	n := *e
	n.RetryAfter = d
	return &n
}

// WithCause returns a copy with another cause, which stays on this side.
func (e *Error) WithCause(cause error) *Error {
	n := *e
	n.cause = cause
	return &n
}

// AsRemote returns a copy marked as a peer's verdict. It is for transports.
func (e *Error) AsRemote() *Error {
	n := *e
	n.remote = true
	return &n
}

// AsAuthored returns a copy that counts as this process's own words, so that it crosses the wire whole even when it
// came out of a caller. It is for middleware that forwards errors on purpose.
func (e *Error) AsAuthored() *Error {
	n := *e
	n.remote, n.received = false, false
	return &n
}

// asReceived marks what a caller returned: such an error is not authored by whoever passes it on. An error of a
// middleware's own type stays what it is, unless it would smuggle an unmarked one along: then it becomes the cause.
func asReceived(err error) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // one that is wrapped follows below
		if e == nil || e.received {
			return err
		}
		n := *e
		n.received = true
		return &n
	}
	if e, ok := find(err); ok && !e.received {
		n := *e
		n.received, n.cause = true, err
		return &n
	}
	return err
}

// find returns the first [*Error] of a chain; a nil one is none.
func find(err error) (*Error, bool) {
	e, ok := errors.AsType[*Error](err)
	return e, ok && e != nil
}

// Outcome says whether the handler may have run. It decides what may be retried, so it is always true and never
// hopeful: what can't be proved is MaybeExecuted, the zero value.
type Outcome uint8

// The outcomes, visible on the wire by name; append-only.
const (
	MaybeExecuted Outcome = iota // nobody knows
	NotSent                      // the request did not leave this process
	NotExecuted                  // the handler certainly did not run
	Executed                     // the handler ran, to its end or in part
)

var outcomeNames = [...]string{"maybe_executed", "not_sent", "not_executed", "executed"}

// String returns the name: not_executed.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return outcomeNames[MaybeExecuted]
}

// The reasons that transports and middleware of this module give. They are fixed words: programs compare them.
const (
	ReasonNoResponders     = "no_responders"     // nobody listens on the subject
	ReasonDisconnected     = "disconnected"      // no connection to the broker; nothing was sent
	ReasonConnectionLost   = "connection_lost"   // the connection broke while waiting for the reply
	ReasonConnectionClosed = "connection_closed" // the transport was closed
	ReasonDraining         = "draining"          // the service or the transport is shutting down
	ReasonBacklogFull      = "backlog_full"      // too many calls wait already
	ReasonWriteBacklog     = "write_backlog"     // too much waits to be written to the broker, and the network takes nothing; nothing was sent
	ReasonBacklogWait      = "backlog_wait"      // waited longer than the backlog's limit
	ReasonExpired          = "expired"           // the deadline passed before the handler was to run
	ReasonRequestTooLarge  = "request_too_large" // over the transport's limit
	ReasonReplyTooLarge    = "reply_too_large"   // over the transport's limit
	ReasonJetStreamOverlap = "jetstream_overlap" // a stream's acknowledgement came instead of a reply
	ReasonPanic            = "panic"             // the handler or a middleware panicked
	ReasonEncode           = "encode"            // a message could not be encoded
	ReasonDecode           = "decode"            // a message could not be decoded
	ReasonHeaderTooLarge   = "header_too_large"  // over 8 KiB of headers, or 512 of them
	ReasonMalformedHeader  = "malformed_header"  // an Rpc-* header or token that can't be read, or a forbidden name
	ReasonMediaType        = "media_type"        // a content type that the endpoint does not take
	ReasonConstruction     = "construction"      // the caller was made with faults
	ReasonProtocol         = "protocol"          // the peer broke the protocol
	ReasonRateLimited      = "rate_limited"      // a rate limiter of the peer said no
	ReasonLocalLimit       = "local_limit"       // a limiter of this process said no
	ReasonBreakerOpen      = "breaker_open"      // a circuit breaker of this process is open
	ReasonTimeout          = "timeout"           // a total or attempt timeout passed
	ReasonIdle             = "idle"              // a stream carried no item for too long
	ReasonUnsupported      = "unsupported"       // this transport can't carry such calls
	ReasonInjected         = "injected"          // a fault that was injected on purpose, for a test
	ReasonHedgeLost        = "hedge_lost"        // another attempt of a hedged call won; the cause of the loser's context
	ReasonInstanceLost     = "instance_lost"     // the instance that had the call is gone
	ReasonReplyLost        = "reply_lost"        // the instance that had the call does not have it any more, and no reply came
	ReasonInstanceSilent   = "instance_silent"   // the other end of a stream was silent for three heartbeats
	ReasonImportNotStream  = "import_not_stream" // an import between accounts lets a single reply through
	ReasonNoAnswer         = "no_answer"         // an instance that a gather knows of was silent until its end
	ReasonPublishDenied    = "publish_denied"    // the broker does not let this client publish to the subject
)

// OutcomeOf returns the outcome of a call by its error: Executed for nil, MaybeExecuted for foreign errors.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Executed
	}
	if e, ok := find(err); ok {
		return e.outcome
	}
	return MaybeExecuted
}

// CodeOf classifies any error: OK for nil, the code of an [*Error] or Code in its chain, the matching code for context
// errors, else Unknown.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	if e, ok := find(err); ok {
		return e.Code
	}
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}

// failure makes sure that an error has the code of one.
func failure(c Code) Code {
	if c == OK || int(c) >= numCodes {
		return Unknown
	}
	return c
}

// Crossing applies the rule of what may cross a wire. What a handler or middleware authored crosses with its message and
// its first [MaxDetails] details; errors that came out of a caller, and errors of other types, cross as a code without
// text; context errors keep their codes. The result has no cause. It is for transports; nil stays nil.
func Crossing(err error) *Error {
	if err == nil {
		return nil
	}
	e, ok := find(err)
	if !ok {
		return &Error{Code: failure(CodeOf(err))}
	}
	out := *e
	out.cause = nil
	out.Code = failure(e.Code)
	if !e.remote && !e.received {
		n := min(len(e.Details), MaxDetails)
		out.Details = e.Details[:n:n]
		return &out
	}
	out = Error{Code: Internal, outcome: e.outcome}
	if e.Code == DeadlineExceeded || e.Code == Canceled {
		out.Code = e.Code
	}
	return &out
}
