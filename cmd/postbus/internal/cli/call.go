package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

// callCmd calls one endpoint.
type callCmd struct {
	request

	Stream   bool          `help:"The endpoint is a stream; discovery says of which kind, and a server stream is what it says nothing of."`
	Timeout  time.Duration `placeholder:"TIME" help:"When to give up. By default the endpoint's own, or 10s; a stream has none."`
	Instance string        `placeholder:"ID" help:"Call this instance, and no other."`
	Verbose  bool          `short:"v" help:"Tell who answered, how long it took and what headers came, on standard error."`
	Raw      bool          `help:"Write replies as they came, without line ends."`
}

// request is what calls and gathers send.
type request struct {
	Subject   string   `arg:"" help:"The endpoint's subject, such as math.add."`
	Body      string   `arg:"" optional:"" help:"The request: JSON, @FILE, or - for standard input. By default {}, and standard input for an endpoint that takes a stream."`
	Header    []string `short:"H" sep:"none" placeholder:"NAME:VALUE" help:"A header of the request."`
	MediaType string   `default:"application/json" placeholder:"TYPE" help:"What the request is."`
}

// Help is for kong.
func (*callCmd) Help() string {
	return `Calls an endpoint and writes its reply. Items of a stream are written as they come, one on a line (NDJSON); Ctrl-C ends
the call, at the service too. An endpoint that takes a stream is sent a message for each line of standard input.

    postbus call math.add '{"a":1,"b":2}'
    postbus call users.put @user.json -H X-Tenant:acme
    postbus call log.tail '{"lines":100}' --stream | jq .text
    cat numbers.ndjson | postbus call math.total - --stream

Whether the endpoint is a stream is found out where it says so itself; --stream says so beforehand, which saves a question, and
is needed where input goes on while items come.

JSON is written without white space; other text as a string of JSON, bytes as {"mediaType":…,"base64":…}; --raw has them as
they came.`
}

func (c *callCmd) run(ctx context.Context, p *process) error {
	in, err := c.input(p)
	if err != nil {
		return err
	}
	defer in.close()
	b, err := p.connect()
	if err != nil {
		return err
	}
	defer disconnect(b)
	ctx = c.metadata(ctx)
	if c.Instance != "" {
		ctx = endpoint.WithInstance(ctx, c.Instance)
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	kind := endpoint.UnaryKind
	if c.Stream {
		kind, err = kindOf(ctx, b, c.Subject)
		switch {
		case err != nil:
			return err
		case kind == endpoint.UnaryKind:
			kind = endpoint.ServerStreamKind
		}
	}
	err = c.call(ctx, p, b, kind, in)
	if kind == endpoint.UnaryKind && isStream(err) {
		if kind, found := kindOf(ctx, b, c.Subject); found == nil && kind != endpoint.UnaryKind {
			return c.call(ctx, p, b, kind, in)
		}
	}
	return err
}

// isStream reports whether a unary call failed, unexecuted, as one to a stream does: refused, or because its lines are
// several messages.
func isStream(err error) bool {
	return errors.Is(err, endpoint.Unimplemented) && endpoint.OutcomeOf(err) == endpoint.NotExecuted || errors.Is(err, errNotJSON)
}

// kindOf asks discovery for the kind of an endpoint, unary if nobody knows it.
func kindOf(ctx context.Context, b *bus.Bus, subject string) (endpoint.Kind, error) {
	found, err := discover(ctx, b, "", discoverTime)
	for _, i := range found {
		for _, e := range i.Endpoints {
			if e.Subject == subject || endpoint.MatchSubject(e.Subject, subject) {
				return e.Kind, nil
			}
		}
	}
	return endpoint.UnaryKind, err
}

const discoverTime = 2 * time.Second

// call makes one call of a kind that is known.
func (c *callCmd) call(ctx context.Context, p *process, b *bus.Bus, kind endpoint.Kind, in *input) error {
	ctx, report := endpoint.Observe(ctx)
	if c.Verbose {
		defer func() { p.tell(report) }()
	}
	if kind.StreamsIn() {
		return c.stream(ctx, p, b, kind, in)
	}
	msg, err := in.whole(ctx)
	if err != nil {
		return err
	}
	if kind == endpoint.UnaryKind {
		reply, err := endpoint.Caller[*codec.Payload, *codec.Payload](b, c.Subject)(ctx, msg)
		if err != nil {
			return err
		}
		return p.message(reply, c.Raw)
	}
	return p.items(endpoint.ServerStreamCaller[*codec.Payload, *codec.Payload](b, c.Subject)(ctx, msg), c.Raw)
}

// stream sends a stream.
func (c *callCmd) stream(ctx context.Context, p *process, b *bus.Bus, kind endpoint.Kind, in *input) error {
	if kind == endpoint.BidiStreamKind {
		return p.items(endpoint.BidiStreamCaller[*codec.Payload, *codec.Payload](b, c.Subject)(ctx, in.lines()), c.Raw)
	}
	reply, err := endpoint.ClientStreamCaller[*codec.Payload, *codec.Payload](b, c.Subject)(ctx, in.lines())
	if err != nil {
		return err
	}
	return p.message(reply, c.Raw)
}

func (p *process) items(all iter.Seq2[*codec.Payload, error], raw bool) error {
	for m, err := range all {
		if err != nil {
			return err
		}
		data := m.Data
		if !raw {
			data = append(line(m), '\n')
		}
		if err := p.write(data); err != nil { // leaving the loop cancels the call
			return err
		}
	}
	return nil
}

// check is for all who send a request.
func (r *request) check(_ *process, f *faults) {
	f.add("<subject>", endpoint.ValidateSubject(r.Subject))
	for _, h := range r.Header {
		name, _, ok := header(h)
		switch {
		case !ok:
			f.addf("--header", "%.80q is not NAME:VALUE", h)
		case endpoint.ReservedHeader(name):
			f.addf("--header", "%s belongs to the bus", name)
		}
	}
}

func header(text string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(text, ":")
	name = strings.TrimSpace(name)
	return name, strings.TrimSpace(value), ok && name != ""
}

// metadata adds the headers that were given.
func (r *request) metadata(ctx context.Context) context.Context {
	var kv []string
	for _, h := range r.Header {
		name, value, _ := header(h)
		kv = append(kv, name, value)
	}
	return endpoint.WithHeader(ctx, kv...)
}

// tell writes what is known of a call besides its reply.
func (p *process) tell(r *endpoint.Report) {
	text := fmt.Sprintf("%s, %d bytes there, %d back", r.Total.Round(time.Microsecond), r.RequestSize, r.ReplySize)
	if r.Instance != "" {
		text = "instance " + printable(r.Instance) + ", " + text
	}
	p.say(text)
	for name, value := range r.Reply.All() {
		p.say(printable(name + ": " + value))
	}
	for name, value := range r.Trailer.All() {
		p.say(printable("trailer " + name + ": " + value))
	}
}
