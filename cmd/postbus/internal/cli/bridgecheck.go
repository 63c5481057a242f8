package cli

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// maxShutdown is within what Bridge.Run waits by itself.
const maxShutdown = 29 * time.Second

// check makes the options of the bridge and has them judged by a bridge in front of nothing.
func (c *bridgeCmd) check(p *process, f *faults) {
	if len(c.Expose)+len(c.Route) == 0 {
		f.addf("", "nothing is offered: give --expose or --route")
	}
	c.checkTLS(f)
	if c.ShutdownTimeout > maxShutdown {
		f.addf("--shutdown-timeout", "%v is over %v", c.ShutdownTimeout, maxShutdown)
	}
	c.surface.check(f)
	c.options = slices.Concat(c.bridgeOptions(), c.routes(f), c.surface.options(&c.admission), c.admission.options(p.opts.InstanceName, p.logger(), f))
	silent := httpbridge.WithLogger(slog.New(slog.DiscardHandler))
	trial := httpbridge.New(endpoint.NewMux(), append(c.options, silent)...)
	for _, err := range parts(trial.Err()) {
		f.add("", inOurWords(err))
	}
}

func (c *bridgeCmd) bridgeOptions() []httpbridge.Option {
	return []httpbridge.Option{
		httpbridge.Expose(c.Expose...),
		httpbridge.WithHeaders(c.HeaderIn, c.HeaderOut),
		httpbridge.WithLimits(httpbridge.Limits{
			Body: int(c.MaxBody), Header: int(c.MaxHeader), Concurrent: c.MaxCalls, PerConnection: c.MaxCallsPerConnection, Batch: c.MaxBatch,
		}),
		httpbridge.WithTimeouts(httpbridge.Timeouts{
			Call: c.CallTimeout, MaxCall: c.MaxCallTimeout, Header: c.HeaderTimeout, Body: c.BodyTimeout, Write: c.WriteTimeout,
			Heartbeat: c.Heartbeat, Idle: c.IdleTimeout,
		}),
	}
}

func (c *bridgeCmd) routes(f *faults) []httpbridge.Option {
	var options []httpbridge.Option
	for _, route := range c.Route {
		pattern, subject, ok := strings.Cut(route, "=")
		if !ok {
			f.addf("--route", "%.80q is not such as 'GET /v1/users/{id}=users.get'", route)
			continue
		}
		options = append(options, httpbridge.Route(strings.TrimSpace(pattern), strings.TrimSpace(subject)))
	}
	return options
}

// parts takes joined errors apart, however deep.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

// flagsOf are the flags that an option of the bridge is made of.
var flagsOf = map[string]string{
	"Expose": "--expose", "Route": "--route", "WithCORS": "--cors-…", "WithJSONRPC": "--json-rpc", "WithOpenAPI": "--openapi-…", "WithIdentity": "--identity-key", "WithHeaders": "--header-in, --header-out", "WithTimeouts": "--call-timeout, --max-call-timeout",
}

// inOurWords names the flag in place of the option.
func inOurWords(err error) error {
	option, rest, ok := strings.Cut(err.Error(), ": ")
	flags := flagsOf[option]
	if !ok || flags == "" {
		return err
	}
	return fmt.Errorf("%s: %s", flags, strings.ReplaceAll(rest, "\n", "; "))
}
