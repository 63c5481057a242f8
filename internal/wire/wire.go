// Package wire is the protocol of docs/protocol.md as pure functions: what stands in the reply token, in headers and in
// error replies. It knows neither NATS connections nor time; every function is a value in, value out.
package wire

import "time"

// The headers of the protocol, in the one spelling that is written. They are read in any case.
const (
	Timeout       = "Rpc-Timeout"
	Sent          = "Rpc-Sent"
	ContentType   = "Content-Type"
	Ack           = "Rpc-Ack"
	Tell          = "Rpc-Tell"
	TraceParent   = "traceparent"
	Attempt       = "Rpc-Attempt"
	Stream        = "Rpc-Stream"
	Code          = "Rpc-Code"
	Reason        = "Rpc-Reason"
	OutcomeHeader = "Rpc-Outcome"
	RetryAfter    = "Rpc-Retry-After"
	Instance      = "Rpc-Instance"
	Ctl           = "Rpc-Ctl"
	Open          = "Rpc-Open"
	Seq           = "Rpc-Seq"
	End           = "Rpc-End"
	Window        = "Rpc-Window"
	Heartbeat     = "Rpc-Heartbeat"
	Details       = "Rpc-Details"
	SizeHeader    = "Rpc-Size"
	MaxReply      = "Rpc-Max-Reply"
	EntryHeader   = "Rpc-Entry"
	Encoding      = "Content-Encoding"
	ServiceError  = "Nats-Service-Error"
	ServiceCode   = "Nats-Service-Error-Code"
)

// The roots that a bus uses unless told otherwise.
const (
	RPCRoot = "_RPC"
	SRVRoot = "$SRV"
)

// Version is what instances publish as rpc.v. They publish rpc.features too once they have any of ack, direct, frames,
// chunks, streams; nothing is assumed of an instance without it.
const Version = "1"

// Request is the metadata of one request: from its token, its headers, or both. The zero value says nothing.
type Request struct {
	HasTimeout bool
	Timeout    time.Duration // remaining when sent
	HasSent    bool
	Sent       int64  // unix milliseconds
	MediaType  string // "" if not said
	Ack        bool   // the caller understands an early ack
	Tell       bool   // put the instance on the reply
	Trace      string // W3C traceparent
	Attempt    int
	Stream     string
	Window     Grant         // of a stream, the zero value if not said
	Heartbeat  time.Duration // of a stream, 0 if not said
	MaxReply   uint64        // bytes of a reply that the caller puts together, 0 if not said
	TakesS2    bool          // it decodes S2 as well
	Size       uint64        // the request is so long, and follows in chunks; 0: it is here
	Encoding   string        // of chunks
	Own        bool          // the reply subject is a token of this protocol: the caller is one of ours
}

// MaxTimeout is the longest timeout; longer ones are clamped, so that arithmetic with them can't overflow.
const MaxTimeout = time.Duration(1) << 62

// AppendTimeout writes a duration in gRPC's grammar, at most eight digits and a unit: milliseconds from a second up and
// where they say it all, else microseconds, nanoseconds below one of those, and coarser units where eight digits don't do.
// It rounds down, so that nobody gets more time than there is; nothing left is 0m.
func AppendTimeout(dst []byte, d time.Duration) []byte {
	units := timeoutUnits[:]
	switch {
	case d <= 0:
		return append(dst, '0', 'm')
	case d >= time.Second || d%time.Millisecond == 0:
		units = units[2:]
	case d >= time.Microsecond:
		units = units[1:]
	}
	for _, u := range units {
		if n := d / u.size; n <= 99_999_999 {
			return append(appendInt(dst, int64(n)), u.name)
		}
	}
	return append(dst, "99999999H"...)
}

var timeoutUnits = [...]struct {
	name byte
	size time.Duration
}{{'n', time.Nanosecond}, {'u', time.Microsecond}, {'m', time.Millisecond}, {'S', time.Second}, {'M', time.Minute}, {'H', time.Hour}}

func appendInt(dst []byte, n int64) []byte {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(dst, b[i:]...)
		}
	}
}

// ParseTimeout reads gRPC's grammar. Above MaxTimeout it clamps.
func ParseTimeout(s string) (time.Duration, bool) {
	d, end, ok := readTimeout(s, 0)
	if !ok || end < len(s) {
		return 0, false
	}
	return d, true
}

// readTimeout is ParseTimeout of what begins there, and returns where it ends.
func readTimeout[T text](s T, from int) (d time.Duration, end int, ok bool) {
	const most = 8 // digits
	var n int64
	for end = from; end < len(s) && end < from+most && s[end]-'0' <= 9; end++ {
		n = n*10 + int64(s[end]-'0')
	}
	if end == from || end == len(s) {
		return 0, end, false
	}
	for i := range timeoutUnits {
		u := &timeoutUnits[i]
		switch {
		case u.name != s[end]:
		case u.size > time.Second && n > int64(MaxTimeout/u.size):
			return MaxTimeout, end + 1, true
		default:
			return time.Duration(n) * u.size, end + 1, true
		}
	}
	return 0, end, false
}
