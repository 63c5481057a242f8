package endpoint

import (
	"fmt"
	"strconv"
)

// Code classifies an outcome: the sixteen codes of gRPC and Connect, and OK. A Code is an error itself, so
// errors.Is(err, endpoint.NotFound) works, and a handler may simply return one.
//
// Codes are visible on the wire by name and number. The list is append-only.
type Code uint8

// The codes. Their texts on the wire are in lower case with underscores: not_found.
const (
	OK                 Code = iota // no error
	Canceled                       // the caller gave up
	Unknown                        // a failure that nobody classified
	InvalidArgument                // the request is wrong, whatever the state of the system
	DeadlineExceeded               // the time was up
	NotFound                       // something asked for doesn't exist
	AlreadyExists                  // something to be made exists
	PermissionDenied               // the caller is known and may not
	ResourceExhausted              // a limit or quota is used up
	FailedPrecondition             // the state of the system forbids it; a retry won't help before it is mended
	Aborted                        // a conflict; retry the whole transaction
	OutOfRange                     // past the end
	Unimplemented                  // no such operation here
	Internal                       // a bug or broken invariant
	Unavailable                    // not reachable now; try again
	DataLoss                       // data is lost or corrupt
	Unauthenticated                // the caller is not known

	numCodes = iota
)

// codeTable is the one table of names and HTTP-like numbers, used on the bus and by the bridge.
var codeTable = [numCodes]struct {
	name   string
	status int
}{
	OK:                 {"ok", 200},
	Canceled:           {"canceled", 499},
	Unknown:            {"unknown", 500},
	InvalidArgument:    {"invalid_argument", 400},
	DeadlineExceeded:   {"deadline_exceeded", 504},
	NotFound:           {"not_found", 404},
	AlreadyExists:      {"already_exists", 409},
	PermissionDenied:   {"permission_denied", 403},
	ResourceExhausted:  {"resource_exhausted", 429},
	FailedPrecondition: {"failed_precondition", 400},
	Aborted:            {"aborted", 409},
	OutOfRange:         {"out_of_range", 400},
	Unimplemented:      {"unimplemented", 501},
	Internal:           {"internal", 500},
	Unavailable:        {"unavailable", 503},
	DataLoss:           {"data_loss", 500},
	Unauthenticated:    {"unauthenticated", 401},
}

// String returns the name on the wire. A number that is no code is "code(n)".
func (c Code) String() string {
	if int(c) < numCodes {
		return codeTable[c].name
	}
	return "code(" + strconv.Itoa(int(c)) + ")"
}

// Error is String; it makes a Code an error.
func (c Code) Error() string { return c.String() }

// Status returns the HTTP status of the code, which is also its Nats-Service-Error-Code.
func (c Code) Status() int {
	if int(c) < numCodes {
		return codeTable[c].status
	}
	return codeTable[Unknown].status
}

// ParseCode finds a code by its name on the wire.
func ParseCode(name string) (Code, bool) {
	for c := range codeTable {
		if codeTable[c].name == name {
			return Code(c), true
		}
	}
	return Unknown, false
}

// CodeFromStatus reads the status of a foreign service or HTTP server, which has no code by name.
func CodeFromStatus(status int) Code {
	switch status {
	case 400:
		return InvalidArgument
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return NotFound
	case 408, 504:
		return DeadlineExceeded
	case 409:
		return Aborted
	case 412:
		return FailedPrecondition
	case 413, 429:
		return ResourceExhausted
	case 499:
		return Canceled
	case 500:
		return Internal
	case 501:
		return Unimplemented
	case 502, 503:
		return Unavailable
	default:
		return Unknown
	}
}

// New makes an error with a message that is meant for the peer.
func (c Code) New(msg string) *Error { return &Error{Code: c, Message: msg} }

// Errorf makes an error with a formatted message that is meant for the peer. It does not wrap: see Wrap.
func (c Code) Errorf(format string, a ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, a...)}
}

// Wrap makes an error with a message for the peer and a cause that stays on this side, for logs and errors.Is.
func (c Code) Wrap(cause error, msg string) *Error {
	return &Error{Code: c, Message: msg, cause: cause}
}
