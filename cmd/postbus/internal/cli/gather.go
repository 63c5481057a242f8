package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// gatherCmd asks all instances of an endpoint.
type gatherCmd struct {
	request

	Timeout time.Duration `default:"5s" placeholder:"TIME" help:"When to give up."`
	First   bool          `help:"The first good reply is enough."`
	Quorum  int           `placeholder:"N" help:"So many good replies are enough."`
	Stall   time.Duration `placeholder:"TIME" help:"End after so long without a reply."`
}

// Help is for kong.
func (*gatherCmd) Help() string {
	return `Asks every instance at once and writes what each says, as it comes. Who is known and does not answer is named. The exit
code is that of the first instance that failed or is missing; 0 means that all answered, or as many as were asked for.

    postbus gather inventory.stock '{"item":"tea"}'
    postbus gather inventory.stock '{"item":"tea"}' --first
    postbus gather cache.flush --quorum 2 --json`
}

func (c *gatherCmd) run(ctx context.Context, p *process) error {
	in, err := c.input(p)
	if err != nil {
		return err
	}
	defer in.close()
	msg, err := in.whole(ctx)
	if err != nil {
		return err
	}
	b, err := p.connect()
	if err != nil {
		return err
	}
	defer disconnect(b)
	ctx, cancel := context.WithTimeout(c.metadata(ctx), c.Timeout)
	defer cancel()
	var failed error
	good := 0
	for r, err := range endpoint.Gather[*codec.Payload, *codec.Payload](b, c.Subject, c.options()...)(ctx, msg) {
		if err != nil {
			return err
		}
		if r.Err == nil {
			good++
		} else if failed == nil {
			failed = r.Err
		}
		if err := p.reply(&r); err != nil {
			return err
		}
	}
	if enough := c.enough(); failed == nil || enough > 0 && good >= enough {
		return nil
	}
	return told(failed)
}

// enough is how many good replies are as good as all; 0: nothing less than all.
func (c *gatherCmd) enough() int {
	if c.First {
		return 1
	}
	return c.Quorum
}

func (c *gatherCmd) check(_ *process, f *faults) {
	c.request.check(nil, f)
	if c.First && c.Quorum > 0 {
		f.addf("", "--first and --quorum both say how many are enough: give one")
	}
}

func (c *gatherCmd) options() []endpoint.Option {
	var options []endpoint.Option
	switch {
	case c.First:
		options = append(options, endpoint.First())
	case c.Quorum > 0:
		options = append(options, endpoint.Quorum(c.Quorum))
	}
	if c.Stall > 0 {
		options = append(options, endpoint.Stall(c.Stall))
	}
	return options
}

// gathered is one instance's reply as --json has it.
type gathered struct {
	Instance string          `json:"instance"`
	Value    json.RawMessage `json:"value,omitempty"`
	Error    *failure        `json:"error,omitempty"`
}

// reply writes what one instance said: to standard output, for people its failure to standard error.
func (p *process) reply(r *endpoint.Reply[*codec.Payload]) error {
	switch {
	case p.opts.JSON && r.Err != nil:
		f := failureOf(r.Err)
		return p.writeJSON(gathered{Instance: r.Instance, Error: &f})
	case p.opts.JSON:
		return p.writeJSON(gathered{Instance: r.Instance, Value: line(r.Value)})
	case r.Err == nil:
		return p.write(fmt.Appendf(nil, "%s  %s\n", printable(orUnknown(r.Instance)), line(r.Value)))
	}
	p.say(fmt.Sprintf("%s: %s", printable(orUnknown(r.Instance)), human(r.Err)))
	return nil
}

func orUnknown(instance string) string {
	if instance == "" {
		return "?"
	}
	return instance
}
