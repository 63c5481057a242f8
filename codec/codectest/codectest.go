// Package codectest proves a codec: Run(t, c) is green exactly if c keeps what [codec.Codec] asks of it.
//
// In a test of your codec:
//
//	func TestConformance(t *testing.T) { codectest.Run(t, mycodec.Codec) }
//
// A codec of plain Go structs needs no more. One with message types of its own brings [Samples], and [Equal] where
// reflect.DeepEqual is the wrong measure. Run the test with -race: some obligations show only there.
package codectest

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"postbus.example/codec"
)

// Option adapts the proof to a codec. Options are values without state and may be used again.
type Option func(*suite)

// Samples replaces the messages the codec is tried with. By default, they are pointers to plain structs with json
// tags: scalars, slices, maps, nested, recursive and empty ones.
//
// Each maker returns a pointer to a new message, with equal content each time and sharing nothing with the others;
// the zero value of its type must be fit to be decoded into. Makers must be safe for concurrent use.
func Samples(makers ...func() any) Option {
	return func(s *suite) { s.samples = makers }
}

// Unencodable adds messages that Append must refuse with an error. By default, they are pointers to a channel, to a
// function and to a struct with a channel, which no codec can encode.
func Unencodable(makers ...func() any) Option {
	return func(s *suite) { s.unencodable = append(s.unencodable, makers...) }
}

// Equal sets how a decoded message is compared with the one that was encoded. By default, it is reflect.DeepEqual.
// It must be safe for concurrent use.
func Equal(equal func(got, want any) bool) Option {
	return func(s *suite) { s.equal = equal }
}

// SharesInput allows Decode to keep the bytes it is given, as [codec.Raw] does. By default, a message must survive
// that its input is overwritten. Transports know Raw by name: a codec of your own should not need this option.
func SharesInput() Option {
	return func(s *suite) { s.sharesInput = true }
}

// Run proves c, one subtest for each obligation. The codec is used from several goroutines at once.
func Run(t *testing.T, c codec.Codec, opts ...Option) {
	t.Helper()
	s := newSuite(c, opts)
	if err := s.unfit(); err != nil {
		t.Fatal(err)
	}
	for _, o := range obligations {
		t.Run(o.name, func(t *testing.T) {
			for _, err := range s.prove(o) {
				t.Error(err)
			}
		})
	}
}

// Check is Run without a test: it returns all broken obligations, joined, or nil. Each text starts with the name of
// the obligation and a colon, or with "codectest: " if the proof itself can't be made.
func Check(c codec.Codec, opts ...Option) error {
	s := newSuite(c, opts)
	if err := s.unfit(); err != nil {
		return err
	}
	var errs []error
	for _, o := range obligations {
		for _, err := range s.prove(o) {
			errs = append(errs, fmt.Errorf("%s: %w", o.name, err))
		}
	}
	return errors.Join(errs...)
}

// obligation is one promise of a codec. Its names are part of what Check reports: append only.
type obligation struct {
	name  string
	prove func(*suite)
}

var obligations = []obligation{
	{"name", (*suite).name},
	{"round trip", (*suite).roundTrip},
	{"append to a prefix", (*suite).appendToPrefix},
	{"append leaves the message alone", (*suite).appendLeavesMessage},
	{"append retains nothing", (*suite).appendRetainsNothing},
	{"decode leaves its input alone", (*suite).decodeLeavesInput},
	{"decode retains nothing", (*suite).decodeRetainsNothing},
	{"garbage", (*suite).garbage},
	{"unencodable", (*suite).refusesUnencodable},
	{"wrong target", (*suite).wrongTarget},
	{"check type", (*suite).checkType},
	{"concurrency", (*suite).concurrency},
}

// suite is one proof of one codec.
type suite struct {
	c           codec.Codec
	samples     []func() any
	unencodable []func() any
	equal       func(got, want any) bool
	sharesInput bool

	errs []error // of the obligation being proved
}

func newSuite(c codec.Codec, opts []Option) *suite {
	s := &suite{c: c, samples: plainSamples, equal: reflect.DeepEqual}
	s.unencodable = append(s.unencodable, plainUnencodable...)
	for _, opt := range opts {
		opt(s)
	}
	return s
}

// unfit says why nothing can be proved, if that is so.
func (s *suite) unfit() error {
	if s.c == nil {
		return errors.New("codectest: the codec is nil")
	}
	if len(s.samples) == 0 {
		return errors.New("codectest: there are no samples to prove anything with")
	}
	for _, sample := range s.samples {
		if p := reflect.ValueOf(sample()); p.Kind() != reflect.Pointer || p.IsNil() {
			return fmt.Errorf("codectest: sample %T is not a pointer to a message", sample())
		}
	}
	return nil
}

// prove returns what is wrong with one obligation: a panic counts as breaking it.
func (s *suite) prove(o obligation) []error {
	s.errs = nil
	if err := guard(func() error { o.prove(s); return nil }); err != nil {
		s.failf("%v", err)
	}
	return s.errs
}

// failf notes a failure. A broken codec tends to break for every input: ten of them are enough to see it.
func (s *suite) failf(format string, args ...any) {
	if len(s.errs) < 10 {
		s.errs = append(s.errs, fmt.Errorf(format, args...))
	}
}
