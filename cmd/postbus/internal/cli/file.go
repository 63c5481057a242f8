package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

// file is a configuration file: flags by their names, those of a command under the command's name.
//
//	nats: nats://localhost:4222
//	bridge:
//	  listen: ":8080"
//	  expose: [math.*, users.get]
type file struct {
	sections map[string]map[string]*entry // by command, "" for what all share
}

// entry is one setting.
type entry struct {
	where string // postbus.yaml:3: expose
	node  *yaml.Node
}

// readFile reads a file. Unknown and repeated names are faults, of commands that do not run as well.
func readFile(name string, model *kong.Application, f *faults) *file {
	out := &file{sections: map[string]map[string]*entry{}}
	text, err := readAll(name)
	if err != nil {
		f.add("--config", err)
		return out
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		f.add(name, err)
		return out
	}
	if len(doc.Content) == 0 {
		return out // an empty file says nothing
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		f.addf(fmt.Sprintf("%s:%d", name, top.Line), "the file is not a mapping of flags to values")
		return out
	}
	out.read(&section{file: name, node: model.Node}, top, f)
	return out
}

func readAll(name string) ([]byte, error) {
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	return text, errors.Join(err, f.Close())
}

// section is where a mapping of the file belongs.
type section struct {
	file, command string
	node          *kong.Node
}

func (c *file) read(in *section, m *yaml.Node, f *faults) {
	entries := map[string]*entry{}
	c.sections[in.command] = entries
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		e := &entry{where: fmt.Sprintf("%s:%d: %s", in.file, key.Line, key.Value), node: value}
		command := in.commandNamed(key.Value)
		switch {
		case entries[key.Value] != nil:
			f.addf(e.where, "given twice")
		case command != nil && value.Kind == yaml.MappingNode:
			c.read(&section{in.file, key.Value, command}, value, f)
		case command != nil:
			f.addf(e.where, "is a command, whose flags stand under it")
		case !in.flagNamed(key.Value):
			f.addf(e.where, "unknown: no flag %s--%s", prefix(in.command), key.Value)
			continue
		}
		entries[key.Value] = e
	}
}

func prefix(command string) string {
	if command == "" {
		return ""
	}
	return command + " "
}

func (s *section) commandNamed(name string) *kong.Node {
	if s.command != "" {
		return nil
	}
	for _, c := range s.node.Children {
		if c.Name == name && !c.Hidden {
			return c
		}
	}
	return nil
}

func (s *section) flagNamed(name string) bool {
	return name != "help" && name != "config" &&
		slices.ContainsFunc(s.node.Flags, func(f *kong.Flag) bool { return f.Name == name })
}

// find returns what the file says of a flag, nil for nothing.
func (c *file) find(parent *kong.Path, flag string) *entry {
	if c == nil {
		return nil
	}
	command := ""
	if parent.Command != nil {
		command = parent.Command.Name
	}
	return c.sections[command][flag]
}

// value gives what kong reads a flag from. A mapping is a list of key=value.
func (e *entry) value(of *kong.Value) (any, error) {
	n := e.node
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, errors.New("has no value")
	case n.Kind == yaml.ScalarNode && of.IsSlice():
		return []any{n.Value}, nil
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case !of.IsSlice():
		return nil, errors.New("takes one value")
	}
	list := []any{}
	step := 1
	if n.Kind == yaml.MappingNode {
		step = 2
	}
	for i := 0; i+step <= len(n.Content); i += step {
		item := n.Content[i].Value
		if n.Content[i+step-1].Kind != yaml.ScalarNode {
			return nil, errors.New("its values are plain: no lists in lists")
		}
		if step == 2 {
			item += "=" + n.Content[i+1].Value
		}
		list = append(list, item)
	}
	return list, nil
}
