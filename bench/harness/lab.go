package harness

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
)

// Samples are the results of points, round by round. A round that failed is nil.
type Samples map[Point][]*Result

// Lab starts the processes of systems, one client and one service for each and a broker for all, and measures them.
type Lab struct {
	Systems  []System
	Broker   string // which kind of it, for who starts one (see Role)
	Progress func(format string, args ...any)
	Probes   int    // rounds that ask probes as well, which take seconds; 0 for all
	Profiles string // a directory for CPU profiles of the last round; "" for none

	broker *child
	pairs  map[string]*pair
}

// pair is the processes of one system.
type pair struct {
	system          *System
	client, service *child
}

// Run measures all points, round by round, each round in an order of its own. Points with the same load stand side by side,
// so that what is compared is close in time. Where a process fails, the round lacks a result, the others go on, and Run returns
// the errors with what there is. Calls that fail are told by the results.
func (l *Lab) Run(points []Point, rounds int) (Samples, error) {
	samples := Samples{}
	var errs []error
	for round := range rounds {
		for _, p := range shuffled(points) {
			if l.Probes > 0 && round >= l.Probes && p.Load == (Load{}) {
				continue
			}
			r, err := l.measure(p, round == rounds-1)
			if err != nil {
				err = fmt.Errorf("round %d, %s, %d callers: %w", round+1, p.System, p.Load.Callers, errors.Join(err, l.drop(p.System)))
				errs = append(errs, err)
				l.Progress("  %v\n", err)
			} else if r.Errors > 0 {
				l.Progress("  %s, %d callers: %d errors, the first: %s\n", p.System, p.Load.Callers, r.Errors, r.Error)
			}
			samples[p] = append(samples[p], r)
		}
		l.Progress("  round %d of %d\n", round+1, rounds)
	}
	return samples, errors.Join(errs...)
}

// shuffled puts the loads into an order, and the systems under each load into one.
func shuffled(points []Point) []Point {
	order := slices.Clone(points)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	first := map[Load]int{}
	for i, p := range order {
		if _, ok := first[p.Load]; !ok {
			first[p.Load] = i
		}
	}
	slices.SortStableFunc(order, func(a, b Point) int { return cmp.Compare(first[a.Load], first[b.Load]) })
	return order
}

func (l *Lab) measure(p Point, last bool) (*Result, error) {
	pr, err := l.pair(p.System)
	if err != nil {
		return nil, err
	}
	if pr.system.Probe != nil {
		return l.probe(pr)
	}
	var broker *child
	if pr.system.Broker {
		broker = l.broker
	}
	if l.Profiles != "" && last {
		name := fmt.Sprintf("%s-%d-%d", strings.ReplaceAll(p.System, " ", "-"), p.Load.Callers, p.Load.Size)
		end, err := l.profile(name, map[string]*child{"client": pr.client, "service": pr.service, "broker": broker})
		if err != nil {
			return nil, err
		}
		defer end()
	}
	service, err1 := pr.service.usage()
	server, err2 := broker.usage()
	before := readMachine()
	a, err3 := pr.client.ask(order{Load: &p.Load})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	after := readMachine()
	serviceAfter, err1 := pr.service.usage()
	brokerAfter, err2 := broker.usage()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	r := a.Result
	r.Service, r.Broker = serviceAfter.Since(service), brokerAfter.Since(server)
	r.Foreign = after.foreign(before, r.Client.CPU+r.Service.CPU+r.Broker.CPU)
	return r, nil
}

// probe asks once, and ends the processes: what a probe leaves behind must not meet the next one.
func (l *Lab) probe(pr *pair) (*Result, error) {
	a, err := pr.client.ask(order{Probe: true})
	if err != nil {
		return nil, err
	}
	return a.Result, l.drop(pr.system.Name)
}

// drop ends the processes of a system; it gets others when it is measured again.
func (l *Lab) drop(name string) error {
	pr := l.pairs[name]
	if pr == nil {
		return nil
	}
	delete(l.pairs, name)
	return errors.Join(pr.client.stop(), pr.service.stop())
}

func (l *Lab) profile(name string, children map[string]*child) (end func(), err error) {
	say := func(file func(role string) string) error {
		var errs []error
		for role, c := range children {
			if c != nil {
				name := file(role)
				_, err := c.ask(order{Profile: &name})
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	err = say(func(role string) string { return filepath.Join(l.Profiles, name+"-"+role+".pprof") })
	return func() { _ = say(func(string) string { return "" }) }, err
}

// pair returns the processes of a system, which it starts when they are asked for.
func (l *Lab) pair(name string) (*pair, error) {
	if pr := l.pairs[name]; pr != nil {
		return pr, nil
	}
	i := slices.IndexFunc(l.Systems, func(s System) bool { return s.Name == name })
	if i < 0 {
		return nil, errors.New("no such system")
	}
	pr := &pair{system: &l.Systems[i]}
	var err error
	address := ""
	if pr.system.Broker {
		if l.broker == nil {
			if l.broker, err = startChild(brokerRole, l.Broker, ""); err != nil {
				return nil, err
			}
		}
		address = l.broker.address
	}
	if pr.system.Serve != nil {
		if pr.service, err = startChild(serviceRole, name, address); err != nil {
			return nil, err
		}
		address = pr.service.address
	}
	if pr.client, err = startChild(clientRole, name, address); err != nil {
		return nil, errors.Join(err, pr.service.stop())
	}
	if l.pairs == nil {
		l.pairs = map[string]*pair{}
	}
	l.pairs[name] = pr
	return pr, nil
}

// Close ends all processes.
func (l *Lab) Close() error {
	var errs []error
	for name := range l.pairs {
		errs = append(errs, l.drop(name))
	}
	errs = append(errs, l.broker.stop())
	l.broker = nil
	return errors.Join(errs...)
}
