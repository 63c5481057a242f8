package cli

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
)

// urls are the servers as the bus takes them.
func (c *Common) urls() string { return strings.Join(c.NATS, ",") }

// logger writes to standard error: for people where they look, for machines elsewhere.
func (p *process) logger() *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(p.opts.LogLevel)) // the flag takes nothing else
	text := p.opts.LogFormat == "text" || p.opts.LogFormat == "auto" && isTerminal(p.err)
	if !text {
		return slog.New(slog.NewJSONHandler(p.err, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(tint.NewTextHandler(p.err, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !p.colors(p.err)}))
}

// colors reports whether a stream may have them, see https://no-color.org.
func (p *process) colors(w io.Writer) bool {
	return isTerminal(w) && p.env["NO_COLOR"] == "" && p.env["TERM"] != "dumb"
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
