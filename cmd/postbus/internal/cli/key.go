package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"postbus.example/httpbridge/auth"
)

// keyCmd makes an API key.
type keyCmd struct {
	Who    string   `arg:"" help:"Who gets the key: the subject of calls that are made with it."`
	Scopes []string `arg:"" optional:"" help:"What it is good for."`
}

// Help is for kong.
func (*keyCmd) Help() string {
	return `Writes a new key, for its owner, and the line of the file that --api-keys names, which has the key's hash: who reads the file
can't use it.

    postbus key ann math:read math:write
    curl -H "X-API-Key: $KEY" -H 'Content-Type: application/json' -d '{"a":1,"b":2}' localhost:8080/math/add`
}

func (c *keyCmd) check(_ *process, f *faults) {
	for _, word := range append([]string{c.Who}, c.Scopes...) {
		if word == "" || strings.ContainsAny(word, " \t\r\n#") {
			f.add("", errors.New("a name and its scopes are words, without spaces and #"))
			return
		}
	}
	// What the file of keys would refuse is not written for it: a rule takes the same scopes.
	if _, err := auth.Rules(auth.Rule(">", c.Scopes...)); err != nil {
		f.add("<scopes>", errors.New("a scope has ASCII characters other than \" and \\ (RFC 6749, 3.3)"))
	}
}

func (c *keyCmd) run(_ context.Context, p *process) error {
	key, hash := auth.NewKey()
	line := strings.Join(append([]string{c.Who, hash}, c.Scopes...), " ")
	if p.opts.JSON {
		return p.writeJSON(map[string]string{"key": key, "line": line})
	}
	return p.write(fmt.Appendf(nil, "key   %s\nline  %s\n", key, line))
}
