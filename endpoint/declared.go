package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

// declaration maps one error of the application to its name and code on the wire, both ways.
type declaration struct {
	name   string
	code   Code
	find   func(error) (error, bool)        // the declared error in a chain
	detail func(error) ([]byte, error)      // its value on the wire
	revive func(value []byte) (error, bool) // and back
}

// Errors declares an error type of the operation: when a handler's error chain holds a T, the caller gets an [*Error] of
// the code with T's text as the message, in which errors.As finds a T again. T travels as JSON in a detail of the given
// name; one that JSON can't encode counts as not declared. Both sides declare it. By default errors of foreign types cross as
// unknown, without text.
func Errors[T error](name string, code Code) Option {
	t := reflect.TypeFor[T]()
	d := declaration{
		name: name, code: code,
		find: func(err error) (error, bool) {
			e, ok := errors.AsType[T](err)
			return e, ok
		},
		detail: func(err error) ([]byte, error) { return json.Marshal(err) },
		revive: func(value []byte) (error, bool) {
			v := reflect.New(t)
			if t.Kind() == reflect.Pointer {
				v.Elem().Set(reflect.New(t.Elem()))
			}
			if json.Unmarshal(value, v.Interface()) != nil || t.Kind() == reflect.Pointer && v.Elem().IsNil() {
				return nil, false //nolint:nilerr // what can't be read is not the declared error; null would make one that is a nil pointer
			}
			return reflect.TypeAssert[error](v.Elem())
		},
	}
	if t.Kind() == reflect.Interface {
		return declare("Errors", d, fmt.Errorf("%v is an interface, not an error type", t))
	}
	return declare("Errors", d, nil)
}

// ErrorValue declares a sentinel of the operation: when errors.Is finds err in what a handler returned, the caller gets
// an [*Error] of the code with err's text as the message, for which errors.Is finds err again. Both sides declare it.
// By default errors of foreign types cross as unknown, without text.
func ErrorValue(name string, code Code, err error) Option {
	d := declaration{
		name: name, code: code,
		find:   func(e error) (error, bool) { return err, errors.Is(e, err) },
		detail: func(error) ([]byte, error) { return nil, nil },
		revive: func([]byte) (error, bool) { return err, true },
	}
	if err == nil {
		return declare("ErrorValue", d, errors.New("the error is nil"))
	}
	return declare("ErrorValue", d, nil)
}

func declare(optionName string, d declaration, fault error) Option {
	return &option{name: optionName, set: func(s *settings) error {
		if fault != nil {
			return fault
		}
		// A fault is not itself of the code: no %w.
		if d.name == "" || d.code == OK || int(d.code) >= numCodes {
			return fmt.Errorf("%q as %s needs a name and an error code", d.name, d.code.String())
		}
		for _, other := range s.spec.declared {
			if other.name == d.name {
				return fmt.Errorf("the name %q is declared twice", d.name)
			}
		}
		s.spec.declared = append(s.spec.declared, d)
		return nil
	}}
}

// author turns what a handler returned into an [*Error] whose outcome is Executed. The error itself stays as the cause.
func (s *Spec) author(err error) error {
	var out Error
	e, found := find(err)
	authored := found && !e.remote && !e.received
	if found {
		out = *e
		if err != error(e) { //nolint:errorlint // whether something wraps e is the question
			out.cause = err // what wrapped it is for the logs
		}
	} else {
		out = Error{Code: CodeOf(err), cause: err}
	}
	out.outcome = Executed
	for _, d := range s.declared {
		declared, ok := d.find(err)
		if !ok {
			continue
		}
		value, failed := d.detail(declared)
		if failed != nil {
			continue // it crosses as what it is without the declaration
		}
		if !authored { // of a caller's error only what is declared passes
			out = Error{Code: d.code, Message: declared.Error(), cause: err, outcome: Executed}
		}
		out.Details = append(out.Details[:len(out.Details):len(out.Details)], Detail{Type: d.name, Value: value})
		break
	}
	return &out
}

// revive finds the declared error in what a peer said and makes it the cause, so that errors.Is and errors.As see it.
func (s *Spec) revive(err error) error {
	e, ok := err.(*Error) //nolint:errorlint // a peer's verdict is one itself; what wraps one is this side's
	if !ok || e == nil || !e.remote || e.cause != nil {
		return err
	}
	for _, det := range e.Details {
		for _, d := range s.declared {
			if d.name != det.Type {
				continue
			}
			if cause, ok := d.safely(det.Value); ok {
				return e.WithCause(cause)
			}
		}
	}
	return err
}

// safely is revive for bytes of a peer, in which the type's own UnmarshalJSON may find a reason to panic.
func (d *declaration) safely(value []byte) (err error, ok bool) { //nolint:revive // the error is the value here
	defer func() {
		if recover() != nil {
			err, ok = nil, false
		}
	}()
	return d.revive(value)
}
