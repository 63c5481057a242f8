package wire

import (
	"bytes"
	"iter"
	"strings"

	"postbus.example/endpoint"
)

// The verbs of control frames. Unknown ones are ignored.
const (
	VerbCancel  = "cancel"  // the caller of these calls left
	VerbPing    = "ping"    // are these calls here?
	VerbBeat    = "beat"    // the instance lives; these calls are not here
	VerbUnknown = "unknown" // the one call that was asked for is not here
)

// MaxCalls is how many calls one control frame is about, the one in its subject included.
const MaxCalls = 256

// maxCall is the longest name of a call.
const maxCall = 64

// ImportRoot is where the broker puts the reply subjects of other accounts. Clients can't hand one out.
const ImportRoot = "_R_"

// AppendCall writes the 64 random bits that name a call.
func AppendCall(dst []byte, call uint64) []byte { return appendBase62(dst, call, secretDigits) }

// ParseCall reads what AppendCall wrote.
func ParseCall(s string) (call uint64, ok bool) {
	if len(s) != secretDigits {
		return 0, false
	}
	return parseBase62(s)
}

// Control is a control subject, taken apart.
type Control struct {
	Subject           string
	Service, Instance string // "" below ImportRoot, where nothing can be read
	Call              string // "" there, too
}

// Prefix is what the control subjects of the instance's calls have in common.
func (c Control) Prefix() string { return strings.TrimSuffix(c.Subject, c.Call) }

// ParseControl reads a control subject below the root or below ImportRoot. Nothing else is one, whatever a peer says.
func ParseControl(root, subject string) (c Control, ok bool) {
	if len(subject) > endpoint.MaxSubject {
		return c, false
	}
	if rest, ok := strings.CutPrefix(subject, ImportRoot+"."); ok {
		return Control{Subject: subject}, endpoint.ValidateSubject(rest) == nil
	}
	rest, ok := strings.CutPrefix(subject, root+".")
	if !ok {
		return c, false
	}
	c.Subject = subject
	c.Service, rest, _ = strings.Cut(rest, ".")
	c.Instance, rest, _ = strings.Cut(rest, ".")
	c.Call, ok = strings.CutPrefix(rest, "c.")
	if !ok || !isCall(c.Call) || !word(c.Instance) || endpoint.ValidateServiceName(c.Service) != nil {
		return Control{}, false
	}
	return c, true
}

func isCall(s string) bool { return s != "" && len(s) <= maxCall && alnum(s) }

// WriteAck makes the headers of an early ack.
func WriteAck(instance string) Headers { return Headers{Ack: {instance}} }

// ReadAck tells an early ack from a reply: it has the header, no body, and is no error. What it says of the instance is "" when
// that can't be one.
func ReadAck(h Headers, body []byte) (instance string, ok bool) {
	if len(h) == 0 || len(body) > 0 {
		return "", false
	}
	v, ok := fold(h, Ack)
	if !ok {
		return "", false
	}
	for _, name := range [...]string{Code, ServiceCode, ServiceError} {
		if _, failed := fold(h, name); failed {
			return "", false
		}
	}
	if !word(v) {
		v = ""
	}
	return v, true
}

// WriteControl makes the headers of a control frame.
func WriteControl(verb string) Headers { return Headers{Ctl: {verb}} }

// ReadControl returns the verb of a control frame, "" for what is none.
func ReadControl(h Headers) string {
	v, _ := fold(h, Ctl)
	return v
}

// fold finds a header in any case, the first in the order of names.
func fold(h Headers, want string) (value string, ok bool) {
	if v := h[want]; len(v) > 0 {
		return strings.Trim(v[0], " \t"), true
	}
	from := ""
	for name, v := range h {
		if len(v) > 0 && strings.EqualFold(name, want) && (from == "" || name < from) {
			value, from = strings.Trim(v[0], " \t"), name
		}
	}
	return value, from != ""
}

// AppendCalls adds a call's name to the body of a control frame.
func AppendCalls(body []byte, call string) []byte {
	if len(body) > 0 {
		body = append(body, '\n')
	}
	return append(body, call...)
}

// Calls reads the body of a control frame: names of calls, one a line, at most MaxCalls. It ends where it can't be read.
func Calls(body []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for n := 0; len(body) > 0 && n < MaxCalls; n++ {
			line, rest, _ := bytes.Cut(body, []byte{'\n'})
			if len(line) > maxCall {
				return
			}
			if call := string(line); !isCall(call) || !yield(call) {
				return
			}
			body = rest
		}
	}
}
