package harness

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
)

// A process starts with its role in its arguments, says one line when it is ready, and then answers each order, a line of
// JSON, by a line of JSON, until its input ends.
const roleArgument = "role"

type roleName string

const (
	brokerRole  roleName = "broker"
	serviceRole roleName = "service"
	clientRole  roleName = "client"
)

type order struct {
	Load    *Load   `json:"load,omitempty"`
	Probe   bool    `json:"probe,omitempty"`
	Profile *string `json:"profile,omitempty"` // of the CPU, to this file; "" ends it
}

type hello struct {
	Address string `json:"address"`
	Error   string `json:"error,omitempty"`
}

type answer struct {
	Result *Result `json:"result,omitempty"`
	Usage  Usage   `json:"usage"`
	Error  string  `json:"error,omitempty"`
}

// Role plays the role that the program's arguments name, and reports whether they named one. A program that starts a [Lab] asks
// it first of all, and ends when it returned true.
func Role(args []string, systems []System, broker func(kind string) (url string, err error)) (played bool, err error) {
	if len(args) != 5 || args[1] != roleArgument {
		return false, nil
	}
	role, name, address := roleName(args[2]), args[3], args[4]
	if role == brokerRole {
		url, err := broker(name)
		return true, obey(url, err, nil)
	}
	for _, s := range systems {
		if s.Name == name {
			return true, play(role, &s, address)
		}
	}
	return true, obey("", fmt.Errorf("no system %q", name), nil)
}

func play(role roleName, s *System, address string) error {
	switch {
	case role == serviceRole:
		address, err := s.Serve(address)
		return obey(address, err, nil)
	case s.Probe != nil:
		return obey("", nil, func(order) (*Result, error) {
			values, err := s.Probe(address)
			return &Result{Values: values}, err
		})
	}
	calls, err := s.Dial(address)
	return obey("", err, func(o order) (*Result, error) {
		if o.Load == nil {
			return nil, errors.New("no load")
		}
		return Drive(*o.Load, calls(o.Load.Size)), nil
	})
}

// obey says hello, and does what it is told.
func obey(address string, failed error, do func(order) (*Result, error)) error {
	out := json.NewEncoder(os.Stdout)
	if failed != nil {
		return errors.Join(failed, out.Encode(hello{Error: failed.Error()}))
	}
	if err := out.Encode(hello{Address: address}); err != nil {
		return err
	}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := out.Encode(respond(o, do)); err != nil {
			return err
		}
	}
}

func respond(o order, do func(order) (*Result, error)) (a answer) {
	var err error
	switch {
	case o.Profile != nil:
		err = profile(*o.Profile)
	case o.Load != nil || o.Probe:
		a.Result, err = do(o)
	}
	if err != nil {
		a.Error = err.Error()
	}
	a.Usage = OwnUsage()
	return a
}

func profile(file string) error {
	if file == "" {
		pprof.StopCPUProfile()
		return nil
	}
	f, err := os.Create(file) //nolint:gosec // where our parent says
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(f) // the file is complete when it stops, and closed when the process ends
}
