package endpoint

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Header is the metadata of a call: an ordered list of names and values, several values to a name. Names are read in any
// case and keep the spelling they were written with. The zero value is empty and ready. A Header is not safe for
// concurrent writes; an independent copy is made by Clone, not by assignment.
type Header struct{ fields []field }

type field struct{ name, value string }

// Get returns the first value of name, "" if there is none.
func (h *Header) Get(name string) string {
	for i := range h.fields {
		if strings.EqualFold(h.fields[i].name, name) {
			return h.fields[i].value
		}
	}
	return ""
}

// Values returns all values of name in order, as a new slice; nil if there are none.
func (h *Header) Values(name string) []string {
	var vs []string
	for i := range h.fields {
		if strings.EqualFold(h.fields[i].name, name) {
			vs = append(vs, h.fields[i].value)
		}
	}
	return vs
}

// Set replaces all values of name by one.
func (h *Header) Set(name, value string) {
	h.Del(name)
	h.Add(name, value)
}

// Add appends a value.
func (h *Header) Add(name, value string) { h.fields = append(h.fields, field{name, value}) }

// Del removes all values of name.
func (h *Header) Del(name string) {
	h.fields = slices.DeleteFunc(h.fields, func(f field) bool { return strings.EqualFold(f.name, name) })
}

// Len returns the number of values.
func (h *Header) Len() int { return len(h.fields) }

// All ranges over names and values in order.
func (h *Header) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, f := range h.fields {
			if !yield(f.name, f.value) {
				return
			}
		}
	}
}

// Clone returns an independent copy.
func (h *Header) Clone() Header { return Header{slices.Clone(h.fields)} }

// MaxHeaderBytes is what the headers of one message may weigh in all: names, values and four bytes a line.
const MaxHeaderBytes = 8 << 10

// MaxHeaderLines is how many headers one message may have: many empty ones would take far more memory than they weigh.
const MaxHeaderLines = 512

// reservedHeaders belong to the protocol or the broker; applications must not write them. See Request headers
// in docs/protocol.md.
var reservedHeaders = []string{"status", "description", "content-type", "content-encoding", "accept"}

// ReservedHeader reports whether a name belongs to the protocol or the broker: applications can't send it and bridges
// must not pass it on.
func ReservedHeader(name string) bool {
	if len(name) >= 4 && strings.EqualFold(name[:4], "rpc-") || len(name) >= 5 && strings.EqualFold(name[:5], "nats-") {
		return true
	}
	return slices.ContainsFunc(reservedHeaders, func(r string) bool { return strings.EqualFold(r, name) })
}

// Validate checks that the header may be sent: legal names that are not reserved, values without control
// characters besides tab (RFC 9110, 5.5), at most [MaxHeaderLines], and [MaxHeaderBytes] in all. It joins all faults.
func (h *Header) Validate() error {
	var errs []error
	for _, f := range h.fields {
		switch {
		case !headerToken(f.name):
			errs = append(errs, fmt.Errorf("header name %.80q is not a token", f.name))
		case ReservedHeader(f.name):
			errs = append(errs, fmt.Errorf("header %.80q is reserved", f.name))
		case strings.ContainsFunc(f.value, control):
			errs = append(errs, fmt.Errorf("header %.80q: its value has a control character", f.name))
		}
	}
	if err := h.oversize(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (h *Header) size() int {
	n := 0
	for _, f := range h.fields {
		n += len(f.name) + len(f.value) + 4
	}
	return n
}

func (h *Header) oversize() error {
	switch size := h.size(); {
	case size > MaxHeaderBytes:
		return fmt.Errorf("headers of %d bytes, at most %d are sent", size, MaxHeaderBytes)
	case len(h.fields) > MaxHeaderLines:
		return fmt.Errorf("%d headers, at most %d are sent", len(h.fields), MaxHeaderLines)
	}
	return nil
}

// Fault is Validate as the error of a call, of the code that says whose fault it is: reason header_too_large or
// malformed_header; nil if the header may be sent. It is for transports.
func (h *Header) Fault(code Code) *Error {
	err := h.Validate()
	if err == nil {
		return nil
	}
	reason := ReasonMalformedHeader
	if h.oversize() != nil {
		reason = ReasonHeaderTooLarge
	}
	return code.Wrap(err, err.Error()).WithReason(reason)
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// headerToken follows the token of RFC 9110, 5.6.2, which NATS (ADR-4) accepts too.
func headerToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
