package cli

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.example/bus"
	"postbus.example/endpoint"
)

// lsCmd lists what is there.
type lsCmd struct {
	Long    bool          `short:"l" help:"A line for each endpoint, in place of one for each service."`
	Timeout time.Duration `default:"2s" placeholder:"TIME" help:"How long to wait for answers at most."`
}

// Help is for kong.
func (*lsCmd) Help() string {
	return `Asks all NATS micro services who is there, whatever they are written in.

    postbus ls                  # services, versions, instances
    postbus ls -l               # endpoints: subject, kind, what they do
    postbus ls --json | jq -r '.[].service'`
}

func (*lsCmd) check(*process, *faults) {}

func (c *lsCmd) run(ctx context.Context, p *process) error {
	b, err := p.connect()
	if err != nil {
		return err
	}
	defer disconnect(b)
	found, err := discover(ctx, b, "", c.Timeout)
	switch {
	case err != nil:
		return err
	case p.opts.JSON:
		return p.writeJSON(servicesOf(found))
	case len(found) == 0:
		p.say("no service answered")
		return nil
	case c.Long:
		return p.table(endpointRows(found))
	}
	return p.table(serviceRows(found))
}

func discover(ctx context.Context, b *bus.Bus, name string, limit time.Duration) ([]endpoint.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return b.Discover(ctx, name)
}

// service is what ls tells of one.
type service struct {
	Service     string     `json:"service"`
	Versions    []string   `json:"versions"`
	Instances   int        `json:"instances"`
	Description string     `json:"description,omitempty"`
	Endpoints   []listItem `json:"endpoints"`
}

// listItem is an endpoint in a list.
type listItem struct {
	Subject string `json:"subject"`
	Kind    string `json:"kind"`
	Queue   string `json:"queue,omitempty"`
	Doc     string `json:"doc,omitempty"`
}

func servicesOf(found []endpoint.Instance) []service {
	out := []service{}
	for name, group := range byService(found) {
		s := service{Service: name, Instances: len(group), Endpoints: []listItem{}}
		for i := range group {
			s.Versions = append(s.Versions, group[i].Version)
			if s.Description == "" {
				s.Description = group[i].Description
			}
		}
		slices.SortFunc(s.Versions, versionOrder)
		s.Versions = slices.Compact(s.Versions)
		for _, e := range endpointsOf(group) {
			s.Endpoints = append(s.Endpoints, listItem{e.Subject, e.Kind.String(), e.Queue, e.Doc})
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b service) int { return strings.Compare(a.Service, b.Service) })
	return out
}

func byService(found []endpoint.Instance) map[string][]endpoint.Instance {
	groups := map[string][]endpoint.Instance{}
	for _, i := range found {
		groups[i.Service] = append(groups[i.Service], i)
	}
	return groups
}

// endpointsOf gives each endpoint that some instance has, by subject. Of several versions the newest speaks.
func endpointsOf(group []endpoint.Instance) []endpoint.EndpointInfo {
	known := map[string]endpoint.EndpointInfo{}
	group = slices.Clone(group)
	slices.SortStableFunc(group, func(a, b endpoint.Instance) int { return versionOrder(a.Version, b.Version) })
	for _, i := range group {
		for _, e := range i.Endpoints {
			known[e.Subject] = e
		}
	}
	out := []endpoint.EndpointInfo{}
	for _, subject := range slices.Sorted(maps.Keys(known)) {
		out = append(out, known[subject])
	}
	return out
}

// versionOrder compares the numbers of versions: 1.10.0 is after 1.9.0. A pre-release is before its release.
func versionOrder(a, b string) int {
	coreA, preA, _ := strings.Cut(a, "-")
	coreB, preB, _ := strings.Cut(b, "-")
	if c := slices.Compare(numbers(coreA), numbers(coreB)); c != 0 {
		return c
	}
	switch {
	case preA == preB:
		return 0
	case preA == "":
		return 1
	case preB == "":
		return -1
	}
	return strings.Compare(preA, preB)
}

func numbers(version string) []int {
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part) // what is none counts as 0
		out = append(out, n)
	}
	return out
}

func serviceRows(found []endpoint.Instance) [][]string {
	rows := [][]string{{"SERVICE", "VERSION", "INSTANCES", "ENDPOINTS", "DESCRIPTION"}}
	for _, s := range servicesOf(found) {
		rows = append(rows, []string{
			s.Service, printable(strings.Join(s.Versions, ", ")), strconv.Itoa(s.Instances), strconv.Itoa(len(s.Endpoints)), printable(s.Description),
		})
	}
	return rows
}

func endpointRows(found []endpoint.Instance) [][]string {
	rows := [][]string{{"SUBJECT", "KIND", "SERVICE", "QUEUE", "DOC"}}
	for _, s := range servicesOf(found) {
		for _, e := range s.Endpoints {
			rows = append(rows, []string{e.Subject, e.Kind, s.Service, printable(e.Queue), printable(e.Doc)})
		}
	}
	return rows
}
