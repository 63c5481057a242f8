package cli

import (
	"strings"

	"github.com/alecthomas/kong"
)

const aboutAll = `Call, list and describe the services on a NATS bus, and offer them over HTTP.

Every flag can be given in the environment and in a file as well. --max-body is POSTBUS_MAX_BODY there, and max-body in the
file that --config names, where a command's own flags stand under the command's name. A flag wins over the environment, the
environment over the file.

Exit codes: 0 is well, 64 a wrong use, 74 a file, stream or address that can't be had, 101 to 116 an error's code (100 and its
number: not_found is 105), 130 an interrupt.`

// groups are the parts of a command's help.
var groups = []kong.Group{
	{Key: "http", Title: "HTTP:"},
	{Key: "expose", Title: "What is offered:"},
	{Key: "auth", Title: "Who may call:"},
	{Key: "cors", Title: "Pages of other origins:"},
	{Key: "limits", Title: "Limits:"},
	{Key: "ops", Title: "Operation:"},
	{Key: "nats", Title: "The NATS server:"},
	{Key: "log", Title: "Output:"},
}

// showHelp prints a command's own flags before those that all share. The model is this run's alone, which ends with it.
func showHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if c := ctx.Selected(); c != nil {
		c.Flags = append(c.Flags, ctx.Model.Flags...)
		ctx.Model.Flags = nil
	}
	return kong.DefaultHelpPrinter(options, ctx)
}

// withDefault adds to a flag's help what it is without the flag.
func withDefault(v *kong.Value) string {
	if v.Default == "" || v.Help == "" {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " (default " + v.Default + ")."
}
