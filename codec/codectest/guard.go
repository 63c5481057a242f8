package codectest

import (
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"

	"postbus.example/codec"
)

// guard makes a panic an error, with the part of the stack that helps.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, string(debug.Stack())}
		}
	}()
	return f()
}

type panicError struct {
	value any
	stack string
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

func panicked(err error) bool {
	_, ok := errors.AsType[*panicError](err)
	return ok
}

// append calls Append with the panic caught.
func (s *suite) append(dst []byte, v any) (out []byte, err error) {
	err = guard(func() (err error) {
		out, err = s.c.Append(dst, v)
		return err
	})
	return out, err
}

// decode calls Decode with the panic caught.
func (s *suite) decode(data []byte, v any) error {
	return guard(func() error { return s.c.Decode(data, v) })
}

// encoding returns a sample's encoding, and notes when there is none.
func (s *suite) encoding(v any) ([]byte, bool) {
	data, err := s.append(nil, v)
	if err != nil {
		s.failf("Append(nil, %T): %v", v, err)
	}
	return data, err == nil
}

// blank returns a pointer to a zero message of v's type.
func blank(v any) any { return reflect.New(reflect.TypeOf(v).Elem()).Interface() }

// badDecodeError says what is wrong with an error that Decode returned for n bytes of bad data.
func badDecodeError(err error, n int) string {
	e, ok := errors.AsType[*codec.DecodeError](err)
	switch {
	case !ok:
		return fmt.Sprintf("is a %T, bad data must be a *codec.DecodeError", err)
	case strings.TrimSpace(e.Problem) == "":
		return "has no Problem, which the sender needs to see"
	case e.Offset < -1 || e.Offset > int64(n):
		return fmt.Sprintf("has offset %d in %d bytes of data", e.Offset, n)
	case len(e.Error()) > 1024+len(e.Field):
		return fmt.Sprintf("is %d bytes long, its text must not grow with the data", len(e.Error()))
	}
	return ""
}
