package protobuf

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// text returns what an error of the protobuf library says, without its prefix, on one line and short. It names
// fields of the schema and repeats the sender's data: neither is a secret to the sender. The library changes the
// spaces in its texts from build to build, lest somebody depends on them; here they are plain.
func text(err error) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(err.Error(), "\ufffd"))
	s = strings.TrimPrefix(s, "proto: ")
	const most = 160
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

var position = regexp.MustCompile(`^(.*?)\(line (\d+):(\d+)\): `)

// place reads "(line 3:14): " out of a text of protojson, and returns the offset in data, -1 without one.
func place(data []byte, s string) (offset int64, rest string) {
	m := position.FindStringSubmatch(s)
	if m == nil {
		return -1, s
	}
	line, _ := strconv.Atoi(m[2])
	column, _ := strconv.Atoi(m[3])
	at := 0
	for ; line > 1; line-- {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			break
		}
		at += i + 1
	}
	for ; column > 1 && at < len(data); column-- { // columns count characters
		_, size := utf8.DecodeRune(data[at:])
		at += size
	}
	return int64(at), m[1] + s[len(m[0]):]
}
