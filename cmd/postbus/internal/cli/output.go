package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"postbus.example/codec"
)

// write sends bytes to standard output.
func (p *process) write(data []byte) error {
	if _, err := p.out.Write(data); err != nil {
		return &ioError{fmt.Errorf("standard output: %w", err)}
	}
	return nil
}

// writeJSON writes one line.
func (p *process) writeJSON(v any) error {
	data, err := encode(v)
	if err != nil {
		return err
	}
	return p.write(data)
}

// encode is json.Marshal that leaves <, > and & alone, and ends the line.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return buf.Bytes(), err
}

// table writes columns: the first row is their names.
func (p *process) table(rows [][]string) error {
	var buf bytes.Buffer
	w := tabwriter.NewWriter(&buf, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t")) // a bytes.Buffer takes everything
	}
	_ = w.Flush()
	for line := range bytes.Lines(buf.Bytes()) {
		if err := p.write(append(bytes.TrimRight(line, " \n"), '\n')); err != nil {
			return err
		}
	}
	return nil
}

// message writes a message as a line, or in raw mode as it came.
func (p *process) message(m *codec.Payload, raw bool) error {
	switch {
	case raw:
		return p.write(m.Data)
	case isTerminal(p.out) && json.Valid(m.Data):
		var buf bytes.Buffer
		_ = json.Indent(&buf, m.Data, "", "  ") // it is valid
		return p.write(append(buf.Bytes(), '\n'))
	}
	return p.write(append(line(m), '\n'))
}

// binary is a message that has no text.
type binary struct {
	MediaType string `json:"mediaType"`
	Base64    string `json:"base64"`
}

// line gives a message in one line that a terminal survives: JSON without white space, other text quoted as JSON, bytes in base64.
func line(m *codec.Payload) []byte {
	var v any = string(m.Data)
	switch {
	case json.Valid(m.Data):
		var buf bytes.Buffer
		_ = json.Compact(&buf, m.Data) // it is valid
		return buf.Bytes()
	case !plain(m.Data):
		v = binary{m.MediaType, base64.StdEncoding.EncodeToString(m.Data)}
	}
	data, err := encode(v)
	if err != nil { // strings can be encoded
		return nil
	}
	return bytes.TrimRight(data, "\n")
}

func plain(data []byte) bool {
	if !utf8.Valid(data) {
		return false
	}
	for _, r := range string(data) {
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

// printable takes from a peer's text what would move a terminal's cursor or worse.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
