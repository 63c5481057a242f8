package bus

import (
	"errors"
	"fmt"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// Role is what a user of the broker is for, see Permissions. The zero value is ServiceRole.
type Role uint8

// The roles.
const (
	ServiceRole   Role = iota // serves the endpoints of a service
	ClientRole                // calls them
	BridgeRole                // calls those that it exposes to others, over HTTP or another way
	DiscoveryRole             // finds instances: Discover, a console
)

// inboxRoot is above the inbox prefixes of all roles. A service may publish all below it, for it replies to every caller.
const inboxRoot = "_RI"

// Permissions returns what a role needs to do of and for a service, and nothing else, as text for NATS's configuration:
// a permissions block, which stands in the block of a user.
//
//	authorization { users: [ { user: "orders", password: $ORDERS, <the text> } ] }
//
// The role's bus is made with the inbox prefix that the text names in its first line: WithInboxPrefix("_RI.orders") for the
// service named orders, "_RI.cli" for a client, "_RI.http" for a bridge, "_RI.find" for discovery. Who has the same prefix
// may listen to the replies of the others: put another name in the place of cli to keep two clients apart.
//
// The subjects, exact or patterns, are those that are served, called or exposed. By default <service>.>, which fits a
// service whose name comes from its subjects of two tokens; name the subjects of one that is called acme-users and serves
// acme.users.>. A service joins queue group q there, or another one that is named behind the subject ("svc.add workers");
// for an endpoint without a group add the plain subject to the text. DiscoveryRole takes no subjects.
//
// A user in several roles, such as a service that calls others, gets the lists of all of them and one prefix. The text is
// for the roots _RPC and $SRV (see WithRoots). What a bus does without one of the grants is in docs/protocol.md.
//
// An argument that can't be makes a text that the broker refuses to load, in which all faults are named: a bad service
// name, a bad subject, one that begins with a wildcard or covers replies, a role that is none.
func Permissions(r Role, service string, subjects ...string) string {
	if err := r.check(service, subjects); err != nil {
		return "permissions: " + quoteConf("bus.Permissions: "+strings.ReplaceAll(err.Error(), "\n", "; ")) + "\n"
	}
	all := len(subjects) == 0
	if all {
		subjects = []string{service + ".>"}
	}
	switch r {
	case ServiceRole:
		return servicePermissions(service, subjects)
	case ClientRole:
		return callerPermissions("cli", service, subjects, all)
	case BridgeRole:
		return callerPermissions("http", service, subjects, all)
	default:
		return discoveryPermissions(service)
	}
}

// check returns all that is wrong with the arguments.
func (r Role) check(service string, subjects []string) error {
	var errs []error
	if r > DiscoveryRole {
		errs = append(errs, fmt.Errorf("role %d is none", r))
	}
	if err := endpoint.ValidateServiceName(service); err != nil {
		errs = append(errs, err)
	}
	if r == DiscoveryRole && len(subjects) > 0 {
		errs = append(errs, errors.New("DiscoveryRole takes no subjects"))
	}
	for _, s := range subjects {
		subject, queue, grouped := strings.Cut(s, " ")
		switch err := endpoint.ValidatePattern(subject); {
		case err != nil:
			errs = append(errs, err)
		case subject[0] == '*' || subject[0] == '>':
			errs = append(errs, fmt.Errorf("subject %.80q begins with a wildcard, which covers what belongs to the broker", subject))
		case endpoint.MatchSubject(inboxRoot+".>", subject) || subject == inboxRoot:
			errs = append(errs, fmt.Errorf("subject %.80q lies under %s, where replies go", subject, inboxRoot))
		case grouped && r != ServiceRole:
			errs = append(errs, fmt.Errorf("subject %.80q has a queue group, which is for ServiceRole", s))
		case grouped && endpoint.ValidateSubject("x."+queue) != nil:
			errs = append(errs, fmt.Errorf("subject %.80q has a queue group that can't be", s))
		}
	}
	return errors.Join(errs...)
}

func servicePermissions(service string, subjects []string) string {
	var subscribe []string
	for _, s := range subjects {
		subject, queue, grouped := strings.Cut(s, " ")
		if !grouped {
			queue = endpoint.DefaultQueue
		}
		subscribe = append(subscribe, subject+" "+queue)
		if !strings.HasSuffix(subject, ">") {
			subscribe = append(subscribe, wire.BatchSubject(subject)+" "+queue)
		}
	}
	srv := wire.SRVRoot
	subscribe = append(subscribe,
		wire.RPCRoot+"."+service+".>", inboxRoot+"."+service+".>",
		srv+".PING", srv+".INFO", srv+".STATS", srv+".*."+service, srv+".*."+service+".*")
	return block(service, subscribe, []string{inboxRoot + ".>"},
		`instead of publish, for replies to those alone who asked:`,
		`allow_responses: { max: -1, expires: "1h" }  # longer than the longest handler`,
		`in an account that exports the service, publish also "_R_.>"`)
}

// callerPermissions grants direct calls to the subjects alone: a bridge that may call one endpoint may not reach its
// neighbour by way of an instance.
func callerPermissions(inbox, service string, subjects []string, all bool) string {
	publish := append([]string(nil), subjects...)
	instance := wire.RPCRoot + "." + service
	if all {
		publish = append(publish, instance+".>")
	} else {
		publish = append(publish, instance+".*.c.>")
		for _, s := range subjects {
			publish = append(publish, instance+".*.e."+s)
		}
	}
	return block(inbox, []string{inboxRoot + "." + inbox + ".>"}, publish,
		`in an account that imports the service, publish also "_R_.>", for streams`)
}

func discoveryPermissions(service string) string {
	const srv = wire.SRVRoot
	return block("find", []string{inboxRoot + ".find.>"}, []string{
		srv + ".PING", srv + ".INFO", srv + ".PING." + service, srv + ".INFO." + service, srv + ".INFO." + service + ".*",
		srv + ".SCHEMA." + service + ".>",
	}, `a console publishes also "`+srv+`.STATS", "`+srv+`.STATS.`+service+`"`)
}

func block(inbox string, subscribe, publish []string, notes ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "permissions {\n  # bus.WithInboxPrefix(%q)\n", inboxRoot+"."+inbox)
	fmt.Fprintf(&b, "  subscribe: { allow: [%s] }\n", list(subscribe))
	fmt.Fprintf(&b, "  publish: { allow: [%s] }\n", list(publish))
	for _, n := range notes {
		fmt.Fprintf(&b, "  # %s\n", n)
	}
	b.WriteString("}\n")
	return b.String()
}

func list(subjects []string) string {
	quoted := make([]string, len(subjects))
	for i, s := range subjects {
		quoted[i] = quoteConf(s)
	}
	return strings.Join(quoted, ", ")
}

// quoteConf quotes for NATS's configuration language.
func quoteConf(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
