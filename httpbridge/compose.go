package httpbridge

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"postbus.example/endpoint"
)

// field is what a path or a query says of one field of the request.
type field struct {
	name   string
	in     string // path or query
	values []string
}

// queryOf reads a query, sorted by name so that the same one always makes the same request.
func queryOf(raw string) ([]field, error) {
	if raw == "" {
		return nil, nil
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, wrongf("the query can't be read: %v", err)
	}
	fields := make([]field, 0, len(query))
	for name, values := range query {
		fields = append(fields, field{name: name, in: "query", values: values})
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return fields, nil
}

// compose makes a request of fields and a body, which is empty or a JSON object.
func compose(s *shape, fields []field, body []byte) ([]byte, error) {
	members := make([]member, 0, len(fields)+8)
	from := map[string]string{} // where a field is from, by its folded name
	for _, f := range fields {
		m, err := f.convert(s)
		if err != nil {
			return nil, err
		}
		key := fold(m.name)
		if in, twice := from[key]; twice {
			return nil, conflict(f.name, in, f.in)
		}
		from[key] = f.in
		members = append(members, m)
	}
	if len(body) == 0 {
		return writeObject(members), nil
	}
	if err := unicodeFault(body); err != nil {
		return nil, wrongf("the body joins the fields of the path and the query, but %v", err)
	}
	rest, err := membersOf(body)
	if err != nil {
		return nil, wrongf("the body joins the fields of the path and the query, but %v", err)
	}
	for _, m := range rest {
		if in, twice := from[fold(m.name)]; twice {
			return nil, conflict(m.name, in, "body")
		}
	}
	return writeObject(append(members, rest...)), nil
}

func conflict(name, a, b string) error {
	if a == b {
		return wrongf("field %.80q is given twice in the %s", name, a)
	}
	return wrongf("field %.80q is given twice, in the %s and in the %s", name, a, b)
}

// wrongf is an error in what the client sent; the endpoint saw nothing of it.
func wrongf(format string, args ...any) error {
	return endpoint.InvalidArgument.Errorf(format, args...).WithOutcome(endpoint.NotSent)
}

// convert makes text what the schema says.
func (f field) convert(s *shape) (member, error) {
	name, k := s.field(f.name)
	for _, text := range append([]string{f.name}, f.values...) {
		if !utf8.ValidString(text) {
			return member{}, wrongf("field %.80q of the %s is not UTF-8", f.name, f.in)
		}
	}
	if k == nil || len(k.concrete()) == 0 {
		k = &kind{types: []string{"string"}}
		if len(f.values) > 1 {
			k = &kind{types: []string{"array"}}
		}
	}
	if slices.Contains(k.types, "array") && (len(f.values) > 1 || !slices.ContainsFunc(k.types, scalar)) {
		list, err := f.array(k.items)
		return member{name, list}, err
	}
	if len(f.values) > 1 {
		return member{}, wrongf("field %.80q is given %d times in the %s, but is no array", f.name, len(f.values), f.in)
	}
	value, err := f.scalar(k, f.values[0])
	return member{name, value}, err
}

func (f field) array(items *kind) (json.RawMessage, error) {
	if items == nil || len(items.concrete()) == 0 {
		items = &kind{types: []string{"string"}}
	}
	list := json.RawMessage{'['}
	for i, text := range f.values {
		value, err := f.scalar(items, text)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, value...)
	}
	return append(list, ']'), nil
}

func scalar(t string) bool { return t == "integer" || t == "number" || t == "boolean" || t == "string" }

// scalar takes the first type that the text fits. Numbers stay as they are written, so that none loses a digit.
func (f field) scalar(k *kind, text string) (json.RawMessage, error) {
	for _, t := range k.types {
		switch {
		case t == "string":
			return quote(text), nil
		case t == "boolean" && (text == "true" || text == "false"),
			t == "number" && isNumber(text),
			t == "integer" && isNumber(text) && !strings.ContainsAny(text, ".eE"):
			return json.RawMessage(text), nil
		}
	}
	return nil, wrongf("field %.80q of the %s: %s", f.name, f.in, misfit(k.concrete(), text))
}

func misfit(types []string, text string) string {
	if !slices.ContainsFunc(types, scalar) {
		return fmt.Sprintf("it is of type %s, which can be given in a body only", strings.Join(types, " or "))
	}
	return fmt.Sprintf("%.80q is not of type %s", text, strings.Join(types, " or "))
}

// isNumber is JSON's grammar of numbers.
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || '0' <= s[0] && s[0] <= '9') && s[len(s)-1] > ' ' && json.Valid([]byte(s))
}
