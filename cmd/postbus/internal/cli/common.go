package cli

import (
	"context"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
)

// Common is what every command takes.
type Common struct {
	Config string `help:"Read settings from this YAML file." placeholder:"FILE" type:"path"`

	NATS         []string `name:"nats" group:"nats" default:"nats://127.0.0.1:4222" placeholder:"URL" help:"The server to connect to; several are one cluster."`
	NATSCreds    string   `name:"nats-creds" group:"nats" placeholder:"FILE" help:"A credentials file: a user's JWT and seed."`
	NATSNkey     string   `name:"nats-nkey" group:"nats" placeholder:"FILE" help:"A file with an nkey's seed."`
	NATSUser     string   `name:"nats-user" group:"nats" placeholder:"NAME" help:"The user's name."`
	NATSPassword string   `name:"nats-password" group:"nats" placeholder:"SECRET" help:"The user's password; better in the environment, where other users do not see it."`
	NATSToken    string   `name:"nats-token" group:"nats" placeholder:"SECRET" help:"A token in place of a user."`
	NATSCA       []string `name:"nats-ca" group:"nats" placeholder:"FILE" help:"Certificates of the authorities that the server's is checked against. By default the system's."`
	NATSCert     string   `name:"nats-cert" group:"nats" placeholder:"FILE" help:"The client's certificate, if the server asks for one."`
	NATSKey      string   `name:"nats-key" group:"nats" placeholder:"FILE" help:"Its key."`
	NATSTLSFirst bool     `name:"nats-tls-first" group:"nats" help:"Begin with TLS, before the server says anything."`
	InboxPrefix  string   `group:"nats" placeholder:"SUBJECT" help:"Where replies go, for users that may not subscribe to all of _INBOX."`
	InstanceName string   `group:"nats" default:"postbus" placeholder:"NAME" help:"The name of the connection, which the server shows."`

	JSON      bool   `name:"json" group:"log" help:"Write JSON: results to standard output, an error to standard error."`
	LogLevel  choice `group:"log" default:"info" choices:"debug,info,warn,error" placeholder:"LEVEL" help:"What is logged: debug, info, warn or error."`
	LogFormat choice `group:"log" default:"auto" choices:"auto,text,json" placeholder:"FORMAT" help:"text for people, json for machines; auto is text on a terminal, else json."`
}

const connectTime = 5 * time.Second

// connect opens the bus.
func (p *process) connect() (*bus.Bus, error) {
	c := &p.opts.Common
	all := []bus.Option{bus.WithLogger(p.logger()), bus.WithNATS(p.nats...)}
	if c.InboxPrefix != "" {
		all = append(all, bus.WithInboxPrefix(c.InboxPrefix))
	}
	return bus.Connect(c.urls(), all...)
}

// disconnect flushes what was said last, such as a cancel, and closes.
func disconnect(b *bus.Bus) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	_ = b.Drain(ctx) // nothing was served, so nothing can be lost
}

func (c *Common) natsOptions(f *faults) []nats.Option {
	options := []nats.Option{nats.Name(c.InstanceName), nats.Timeout(connectTime)}
	if c.NATSCreds != "" {
		f.add("--nats-creds", readable(c.NATSCreds))
		options = append(options, nats.UserCredentials(c.NATSCreds))
	}
	if c.NATSNkey != "" {
		o, err := nats.NkeyOptionFromSeed(c.NATSNkey)
		f.add("--nats-nkey", err)
		options = append(options, o)
	}
	options = append(options, c.login(f)...)
	return append(options, c.secure(f)...)
}

// login is how a user is known by name or token. More than one way is a fault: which one counts would be a guess.
func (c *Common) login(f *faults) []nats.Option {
	ways := 0
	for _, given := range []bool{c.NATSCreds != "", c.NATSNkey != "", c.NATSUser != "", c.NATSToken != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		f.addf("", "--nats-creds, --nats-nkey, --nats-user and --nats-token are ways to say who connects: give one")
	}
	if c.NATSPassword != "" && c.NATSUser == "" {
		f.addf("--nats-password", "needs --nats-user")
	}
	switch {
	case c.NATSUser != "":
		return []nats.Option{nats.UserInfo(c.NATSUser, c.NATSPassword)}
	case c.NATSToken != "":
		return []nats.Option{nats.Token(c.NATSToken)}
	}
	return nil
}

// secure is TLS.
func (c *Common) secure(f *faults) []nats.Option {
	var options []nats.Option
	if len(c.NATSCA) > 0 {
		for _, file := range c.NATSCA {
			f.add("--nats-ca", readable(file))
		}
		options = append(options, nats.RootCAs(c.NATSCA...))
	}
	switch {
	case (c.NATSCert == "") != (c.NATSKey == ""):
		f.addf("", "--nats-cert and --nats-key go together")
	case c.NATSCert != "":
		f.add("--nats-cert", readable(c.NATSCert))
		f.add("--nats-key", readable(c.NATSKey))
		options = append(options, nats.ClientCert(c.NATSCert, c.NATSKey))
	}
	if c.NATSTLSFirst {
		options = append(options, nats.TLSHandshakeFirst())
	}
	return options
}

func readable(file string) error {
	f, err := open(file)
	if err != nil {
		return err
	}
	return f.Close()
}

// open is for files that the user named, who may read what they may.
func open(file string) (*os.File, error) {
	return os.Open(file) //nolint:gosec // that is what the flag is for
}
