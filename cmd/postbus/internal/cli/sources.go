package cli

import (
	"strings"

	"github.com/alecthomas/kong"
)

// sources finds what the command line does not say: first in the environment, then in the file. It is a kong.Resolver.
//
// The environment may hold POSTBUS_ names that are not ours: whoever runs a service of this name on Kubernetes gets
// POSTBUS_SERVICE_HOST, POSTBUS_PORT and more. So unknown names are no fault there, and no flag is called port.
type sources struct {
	env    map[string]string
	faults *faults
	loaded bool
	file   *file
	from   map[*kong.Value]string // where a value came from, if not from the command line
}

var _ kong.Resolver = (*sources)(nil)

// Validate is for kong; faults are noted when the file is read.
func (s *sources) Validate(*kong.Application) error { return nil }

// Resolve gives the value of a flag that the command line does not have, nil if nobody has it.
func (s *sources) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	s.load(ctx)
	if flag.Name == "help" || flag.Name == "config" {
		return nil, nil
	}
	if s.from == nil {
		s.from = map[*kong.Value]string{}
	}
	if text, ok := s.env[envName(flag.Name)]; ok {
		s.from[flag.Value] = envName(flag.Name)
		return spread(flag, text), nil
	}
	if e := s.file.find(parent, flag.Name); e != nil {
		s.from[flag.Value] = e.where
		value, err := e.value(flag.Value)
		s.faults.add(e.where, err)
		return value, nil
	}
	return nil, nil
}

// load reads the file once, whose name is a flag itself.
func (s *sources) load(ctx *kong.Context) {
	if s.loaded {
		return
	}
	s.loaded = true
	name := s.env[envName("config")]
	for _, f := range ctx.Model.Flags {
		if given, ok := ctx.FlagValue(f).(string); f.Name == "config" && ok && given != "" {
			name = given
		}
	}
	if name != "" {
		s.file = readFile(name, ctx.Model, s.faults)
	}
}

// origin names the place that a value came from, as its author knows it.
func (s *sources) origin(v *kong.Value) string {
	if where := s.from[v]; where != "" {
		return where
	}
	if v.Flag != nil {
		return "--" + v.Name
	}
	return v.Name
}

// envName is the one rule that leads from a flag to the environment.
func envName(flag string) string {
	return "POSTBUS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// spread makes a list of what stands in the environment: lines where a value may have commas.
func spread(flag *kong.Flag, text string) any {
	if !flag.IsSlice() || flag.Tag.Sep != -1 {
		return text
	}
	list := []any{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}
