package codectest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"

	"postbus.example/codec"
)

func (s *suite) decodeLeavesInput() {
	for _, sample := range s.samples {
		data, ok := s.encoding(sample())
		if !ok {
			continue
		}
		room := make([]byte, len(data)+64) // what follows belongs to somebody else
		copy(room, data)
		overwrite(room[len(data):])
		before := bytes.Clone(room)
		if err := s.decode(room[:len(data)], blank(sample())); err != nil {
			s.failf("Decode(%T): %v", sample(), err)
		}
		if !bytes.Equal(room[:len(data)], before[:len(data)]) {
			s.failf("Decode(%T) changed its input", sample())
		}
		if !bytes.Equal(room[len(data):], before[len(data):]) {
			s.failf("Decode(%T) wrote behind its input", sample())
		}
	}
}

func (s *suite) decodeRetainsNothing() {
	if s.sharesInput {
		return
	}
	for _, sample := range s.samples {
		data, ok := s.encoding(sample())
		if !ok {
			continue
		}
		data = bytes.Clone(data)
		got := blank(sample())
		if err := s.decode(data, got); err != nil {
			s.failf("Decode(%T): %v", sample(), err)
			continue
		}
		overwrite(data)
		if !s.equal(got, sample()) {
			s.failf("Decode(%T) retained its input: overwriting it changed the message to %+v", got, got)
		}
	}
}

// garbage decodes what no peer should send. It always tries the same bytes, so that a failure can be repeated.
func (s *suite) garbage() {
	rng := rand.New(rand.NewPCG(1, 2))
	var noise [][]byte
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		noise = append(noise, b)
	}
	for _, sample := range s.samples {
		s.survives(nil, sample)
		for _, b := range noise {
			s.survives(b, sample)
		}
		for c := range 256 { // depth bombs, in whatever byte opens a level
			s.survives(bytes.Repeat([]byte{byte(c)}, 1<<14), sample)
		}
		if data, ok := s.encoding(sample()); ok {
			s.damaged(data, sample, rng)
		}
	}
}

// damaged decodes data cut short and data with a few bytes changed.
func (s *suite) damaged(data []byte, sample func() any, rng *rand.Rand) {
	for n := range min(len(data), 2048) {
		s.survives(data[:n:n], sample)
	}
	for range 500 {
		b := bytes.Clone(data)
		for range rng.IntN(4) + 1 {
			if len(b) > 0 {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
		}
		s.survives(b, sample)
	}
	s.survives(append(bytes.Clone(data), data...), sample)
}

func (s *suite) survives(data []byte, sample func() any) {
	into := blank(sample())
	err := s.decode(data, into)
	if panicked(err) {
		s.failf("Decode(%.64q, %T): %v", data, into, err)
	} else if err != nil {
		if flaw := badDecodeError(err, len(data)); flaw != "" {
			s.failf("Decode(%.64q, %T): the error %s: %v", data, into, flaw, err)
		}
	}
}

func (s *suite) refusesUnencodable() {
	for _, bad := range s.unencodable {
		v := bad()
		if _, err := s.append(nil, v); err == nil {
			s.failf("Append(%T) must return an error", v)
		} else if panicked(err) {
			s.failf("Append(%T) must return an error: %v", v, err)
		}
	}
}

// wrongTarget calls with what is no message at all: any error will do, and no panic.
func (s *suite) wrongTarget() {
	sample := s.samples[0]
	data, _ := s.encoding(sample())
	null := reflect.Zero(reflect.TypeOf(sample())).Interface()
	for _, v := range []any{nil, null, 0, struct{}{}} {
		if _, err := s.append(nil, v); panicked(err) {
			s.failf("Append(%T(%v)): %v", v, v, err)
		}
	}
	for _, v := range []any{nil, null, 0} {
		if err := s.decode(data, v); err == nil || panicked(err) {
			s.failf("Decode into %T(%v), which is no message, must be an error: %v", v, v, err)
		} else if _, blamed := errors.AsType[*codec.DecodeError](err); blamed {
			s.failf("Decode into %T(%v) blames the sender: %v", v, v, err)
		}
	}
}

func (s *suite) checkType() {
	checker, ok := s.c.(codec.TypeChecker)
	if !ok {
		return
	}
	check := func(t reflect.Type) error { return guard(func() error { return checker.CheckType(t) }) }
	for _, sample := range s.samples {
		t := reflect.TypeOf(sample())
		for _, t := range []reflect.Type{t, t.Elem()} {
			if err := check(t); err != nil {
				s.failf("CheckType(%v) refuses what Append encodes: %v", t, err)
			}
		}
	}
	for _, bad := range s.unencodable {
		t := reflect.TypeOf(bad())
		if t == nil || t.Kind() != reflect.Pointer {
			continue
		}
		err := check(t)
		// If the zero value can be encoded, then the value is at fault, not its type.
		if _, refused := s.append(nil, reflect.New(t.Elem()).Interface()); err == nil && refused != nil {
			s.failf("CheckType(%v) accepts what Append never encodes: %v", t, refused)
		}
		if panicked(err) {
			s.failf("CheckType(%v): %v", t, err)
		}
	}
	if err := check(nil); panicked(err) {
		s.failf("CheckType(nil): %v", err)
	}
}

// concurrency works on messages of its own and on shared ones, which Append only reads, in several goroutines.
func (s *suite) concurrency() {
	const goroutines, rounds = 8, 25
	shared := make([]any, len(s.samples))
	for i, sample := range s.samples {
		shared[i] = sample()
	}
	var (
		wg   sync.WaitGroup
		errs = make(chan error, goroutines)
	)
	for range goroutines {
		wg.Go(func() {
			if err := s.work(rounds, shared); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		s.failf("%v", err)
	}
}

// work returns its failure instead of noting it: the suite belongs to one goroutine.
func (s *suite) work(rounds int, shared []any) error {
	buf := make([]byte, 0, 256)
	for range rounds {
		for i, sample := range s.samples {
			for _, v := range []any{sample(), shared[i]} {
				data, err := s.append(buf[:0], v)
				if err != nil {
					return fmt.Errorf("Append(%T) among others: %w", v, err)
				}
				got := blank(v)
				if err := s.decode(bytes.Clone(data), got); err != nil {
					return fmt.Errorf("Decode(%T) among others: %w", v, err)
				}
				if !s.equal(got, sample()) {
					return fmt.Errorf("among other goroutines, %T came back as %+v, want %+v", v, got, sample())
				}
			}
		}
	}
	return nil
}
