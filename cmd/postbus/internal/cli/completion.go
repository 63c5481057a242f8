package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"postbus.example/endpoint"
)

// completionCmd writes what a shell needs to complete our words: a function that asks this program.
type completionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish."`
}

// Help is for kong.
func (*completionCmd) Help() string {
	return `Commands, flags, their values and, where a server can be reached, subjects and services are completed.

    source <(postbus completion bash)                        # or in ~/.bashrc
    postbus completion zsh > "${fpath[1]}/_postbus"
    postbus completion fish > ~/.config/fish/completions/postbus.fish`
}

func (c *completionCmd) check(_ *process, f *faults) {
	if scripts[c.Shell] == "" {
		f.addf("<shell>", "%.40q is none of bash, zsh, fish", c.Shell)
	}
}

func (c *completionCmd) run(_ context.Context, p *process) error {
	return p.write([]byte(scripts[c.Shell]))
}

// scripts are thin: all that is known of our words is in this program. A candidate may be followed by a tab and what it
// means.
var scripts = map[string]string{
	"bash": `_postbus() {
	local word=${COMP_WORDS[COMP_CWORD]} line
	COMPREPLY=()
	while IFS= read -r line; do
		COMPREPLY+=("${line%%$'\t'*}")
	done < <(postbus __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
	if [ ${#COMPREPLY[@]} -eq 0 ]; then
		compopt -o default
	fi
}
complete -o nosort -F _postbus postbus
`,
	"zsh": `#compdef postbus
_postbus() {
	local -a found
	local line
	for line in "${(@f)$(postbus __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		[[ -n $line ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
	done
	if (( ${#found} )); then
		_describe postbus found
	else
		_files
	fi
}
if [[ $funcstack[1] = _postbus ]]; then
	_postbus "$@"
else
	compdef _postbus postbus
fi
`,
	"fish": `function __postbus_complete
	set -l words (commandline -opc) (commandline -ct)
	postbus __complete -- $words[2..-1] 2>/dev/null
end
complete -c postbus -f -a '(__postbus_complete)'
complete -c postbus -n '__fish_seen_argument -l config' -F
`,
}

// completeCmd answers the scripts: the words so far, of which the last is to be completed.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

func (*completeCmd) check(*process, *faults) {}

// completeTime bounds what a shell waits for discovery.
const completeTime = 700 * time.Millisecond

func (c *completeCmd) run(ctx context.Context, p *process) error {
	model, err := newParser(p, new(faults), func(int) {})
	if err != nil {
		return err
	}
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	w := read(model.Model.Node, words[:len(words)-1])
	var out strings.Builder
	for _, found := range w.candidates(words[len(words)-1], func() []endpoint.Instance { return p.peek(ctx) }) {
		out.WriteString(found + "\n")
	}
	return p.write([]byte(out.String()))
}

// peek discovers what is there, nothing if that takes long or goes wrong.
func (p *process) peek(ctx context.Context) []endpoint.Instance {
	b, err := p.connect()
	if err != nil {
		return nil
	}
	defer disconnect(b)
	found, err := discover(ctx, b, "", completeTime)
	if err != nil {
		return nil
	}
	return found
}

// place is where in the command line a word is to be completed.
type place struct {
	node  *kong.Node
	flag  *kong.Flag // whose value is to come, nil if none
	taken int        // positional words so far
}

// read follows the words to the place after them.
func read(root *kong.Node, words []string) *place {
	w := &place{node: root}
	for _, word := range words {
		switch {
		case w.flag != nil:
			w.flag = nil
		case strings.HasPrefix(word, "-"):
			if f := w.flagOf(word); f != nil && !f.IsBool() && !strings.Contains(word, "=") {
				w.flag = f
			}
		default:
			if next := child(w.node, word); next != nil {
				w.node = next
			} else {
				w.taken++
			}
		}
	}
	return w
}

func child(n *kong.Node, name string) *kong.Node {
	for _, c := range n.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (w *place) flags() []*kong.Flag { return slices.Concat(w.node.AllFlags(true)...) }

func (w *place) flagOf(word string) *kong.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, f := range w.flags() {
		if f.Name == name && strings.HasPrefix(word, "--") || string(f.Short) == name {
			return f
		}
	}
	return nil
}

// candidates are what the word may become.
func (w *place) candidates(word string, discover func() []endpoint.Instance) []string {
	var all []string
	switch name, value, hasValue := strings.Cut(word, "="); {
	case w.flag != nil:
		all = values(w.flag, discover)
	case strings.HasPrefix(word, "--") && hasValue:
		if f := w.flagOf(name); f != nil {
			all, word = values(f, discover), value
		}
	case strings.HasPrefix(word, "-"):
		for _, f := range w.flags() {
			all = append(all, "--"+f.Name+"\t"+firstSentence(f.Help))
			if f.Tag.Negatable != "" {
				all = append(all, "--no-"+f.Name+"\tnot: "+firstSentence(f.Help))
			}
		}
	case len(w.node.Children) > 0:
		for _, c := range w.node.Children {
			if !c.Hidden {
				all = append(all, c.Name+"\t"+c.Help)
			}
		}
	case w.taken < len(w.node.Positional):
		all = positional(w.node.Positional[w.taken].Name, discover)
	}
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, word) || !harmless(s) })
}

// harmless reports whether a candidate is a word that means nothing to a shell. Peers say what their subjects are, and shells put
// what is offered into the command line as it is.
func harmless(candidate string) bool {
	word, _, _ := strings.Cut(candidate, "\t")
	return !strings.ContainsFunc(word, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("._-", r)
	})
}

// values are what a flag takes, where that is known.
func values(f *kong.Flag, discover func() []endpoint.Instance) []string {
	switch f.Name {
	case "instance":
		var ids []string
		for _, i := range discover() {
			ids = append(ids, i.ID+"\t"+printable(i.Service))
		}
		return ids
	case "expose":
		return positional("subject", discover)
	}
	return choices(f.Value)
}

func positional(name string, discover func() []endpoint.Instance) []string {
	var found []string
	switch name {
	case "shell":
		return []string{"bash", "zsh", "fish"}
	case "subject":
		for _, e := range endpointsOf(discover()) {
			found = append(found, e.Subject+"\t"+printable(e.Doc))
		}
	case "service":
		for _, s := range servicesOf(discover()) {
			found = append(found, s.Service+"\t"+printable(s.Description))
		}
	}
	return found
}

func firstSentence(s string) string {
	s, _, _ = strings.Cut(s, ". ")
	return strings.TrimSuffix(s, ".")
}
