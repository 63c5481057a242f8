package httpbridge

import "strings"

// answer is how the items of a stream are written to clients that don't speak Connect.
type answer int

const (
	unacceptable answer = iota // none that the client takes
	ndjson                     // application/x-ndjson
	jsonl                      // application/jsonl, the same under another name
	events                     // text/event-stream
)

const (
	ndjsonType = "application/x-ndjson"
	jsonlType  = "application/jsonl"
	eventsType = "text/event-stream"
)

// negotiate reads Accept (RFC 9110, 12.5.1). Lines of JSON are what a client gets that doesn't care, or that asks for JSON, as
// curl --json does. The best quality wins, and then what is named exactly.
func negotiate(lines []string) answer {
	if len(lines) == 0 {
		return ndjson
	}
	best, quality, named := unacceptable, 0.0, false
	for part := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		a, exact := answerOf(strings.ToLower(strings.TrimSpace(name)))
		q := qualityOf(params)
		if a != unacceptable && (q > quality || q == quality && q > 0 && exact && !named) {
			best, quality, named = a, q, exact
		}
	}
	return best
}

func answerOf(mediaRange string) (a answer, exact bool) {
	switch mediaRange {
	case eventsType:
		return events, true
	case ndjsonType, "application/ndjson":
		return ndjson, true
	case jsonlType, "application/x-jsonlines", "application/jsonlines":
		return jsonl, true
	case "text/*":
		return events, false
	case "*/*", "application/*", jsonType, "":
		return ndjson, false
	default:
		return unacceptable, false
	}
}

// wantsStream reports whether a client asks for what only a stream can give.
func wantsStream(lines []string) bool {
	if len(lines) == 0 {
		return false
	}
	for part := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		if _, exact := answerOf(strings.ToLower(strings.TrimSpace(name))); exact && qualityOf(params) > 0 {
			return true
		}
	}
	return false
}

// isLines reports whether a body is many messages, one on each line.
func isLines(mediaType string) bool {
	a, exact := answerOf(mediaType)
	return exact && a != events
}
