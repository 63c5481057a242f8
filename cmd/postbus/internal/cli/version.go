package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCmd tells which build this is.
type versionCmd struct{}

// Help is for kong.
func (*versionCmd) Help() string {
	return "Tells the version of this program, the commit it was built of, and Go's."
}

func (*versionCmd) check(*process, *faults) {}

func (*versionCmd) run(_ context.Context, p *process) error {
	v := versionOf()
	if p.opts.JSON {
		return p.writeJSON(v)
	}
	text := "postbus " + v.Version
	if v.Commit != "" {
		text += " (" + v.Commit + ")"
	}
	return p.write(fmt.Appendf(nil, "%s %s %s\n", text, v.Go, v.Platform))
}

type version struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionOf() version {
	v := version{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}
