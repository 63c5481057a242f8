package cli

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/alecthomas/kong"
)

// faults gathers what is wrong, so that all of it is said at once.
type faults []error

func (f *faults) add(where string, err error) {
	switch {
	case err == nil:
	case where == "":
		*f = append(*f, err)
	default:
		*f = append(*f, fmt.Errorf("%s: %w", where, err))
	}
}

func (f *faults) addf(where, format string, a ...any) { f.add(where, fmt.Errorf(format, a...)) }

// join returns all faults as one usage error, nil if there are none.
func (f *faults) join() error {
	if len(*f) == 0 {
		return nil
	}
	return usage(errors.Join(*f...))
}

// usageError is a command that can't be run as it was asked for.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// gentle makes kong note a value that can't be read and go on, where it would stop at the first.
func gentle(f *faults, s *sources) []kong.Option {
	known := kong.NewRegistry().RegisterDefaults()
	var options []kong.Option
	for _, t := range []reflect.Type{
		reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[time.Duration](), reflect.TypeFor[size](), reflect.TypeFor[choice](),
	} {
		options = append(options, kong.TypeMapper(t, &noting{known.ForType(t), t.Kind() == reflect.Bool, f, s}))
	}
	return options
}

// noting is a mapper that never fails.
type noting struct {
	kong.Mapper
	is      bool
	faults  *faults
	sources *sources
}

// IsBool tells kong that a flag needs no value.
func (n *noting) IsBool() bool { return n.is }

// Decode notes the fault under the place that the value came from.
func (n *noting) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	err := n.Mapper.Decode(ctx, target)
	if err == nil {
		err = permitted(ctx.Value, target)
	}
	if err != nil {
		n.faults.add(n.sources.origin(ctx.Value), err)
		target.SetZero()
	}
	return nil
}
