package cli

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// text is the description for people.
func (d *description) text() []byte {
	var b bytes.Buffer
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(&b, format+"\n", a...) } // a bytes.Buffer takes everything
	say("%s", d.Service)
	for _, i := range d.Instances {
		line := []string{"  instance " + i.ID, printable(i.Version)}
		if i.Started != nil && !i.Started.IsZero() {
			line = append(line, "since "+i.Started.Format(time.RFC3339))
		}
		for _, k := range slices.Sorted(maps.Keys(i.Metadata)) {
			line = append(line, printable(k+"="+i.Metadata[k]))
		}
		say("%s", strings.Join(line, "  "))
	}
	for i := range d.endpoints {
		say("")
		d.endpoints[i].text(say, len(d.Instances))
	}
	return b.Bytes()
}

func (e *describedService) text(say func(string, ...any), instances int) {
	i := &e.info
	head := []string{i.Subject, i.Kind.String()}
	switch {
	case i.ReadOnly:
		head = append(head, "read-only")
	case i.Idempotent:
		head = append(head, "idempotent")
	}
	if i.Queue == "" {
		head = append(head, "every instance")
	} else {
		head = append(head, "queue "+printable(i.Queue))
	}
	if i.Timeout > 0 {
		head = append(head, "timeout "+i.Timeout.String())
	}
	if e.of < instances {
		head = append(head, fmt.Sprintf("%d of %d instances", e.of, instances))
	}
	say("  %s", strings.Join(head, "  "))
	if i.Doc != "" {
		say("    %s", printable(i.Doc))
	}
	row := func(name, value string) {
		if value != "" {
			say("    %-9s %s", name, printable(value))
		}
	}
	var errs []string
	for _, d := range i.Errors {
		errs = append(errs, d.Name+" ("+d.Code.String()+")")
	}
	row("request", string(i.Request))
	row("response", string(i.Response))
	row("errors", strings.Join(errs, ", "))
	row("codecs", strings.Join(i.Codecs, ", "))
	switch {
	case e.told == e.of:
		row("calls", e.total.text())
	case e.told > 0:
		row("calls", fmt.Sprintf("%s (%d of %d instances say so)", e.total.text(), e.told, e.of))
	}
}

func (c *counters) text() string {
	text := fmt.Sprintf("%d, errors %d", c.Requests, c.Errors)
	if c.Requests > 0 {
		text += ", mean " + seconds(c.Mean)
	}
	if c.P99 > 0 {
		text += ", p50 " + seconds(c.P50) + ", p99 " + seconds(c.P99)
	}
	if c.InFlight > 0 || c.Waiting > 0 || c.Refused > 0 || c.Expired > 0 {
		text += fmt.Sprintf(", running %d, waiting %d, refused %d, expired %d", c.InFlight, c.Waiting, c.Refused, c.Expired)
	}
	if c.LastError != "" {
		text += ", last error " + c.LastError
	}
	return text
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Microsecond).String()
}
