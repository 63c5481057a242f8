package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// Authenticator finds out who sent a request, from its headers. It is what httpbridge.WithAuth takes: it returns a context
// that derives from the request's and knows the [Identity], or an error. It is safe for concurrent use.
type Authenticator func(*http.Request) (context.Context, error)

// Identity is who sent a request.
type Identity = httpbridge.Identity

// ErrNoCredentials is in the chain of an authenticator's error if the request has none of the credentials that it looks for.
// [Any] asks the next one then, and only then.
var ErrNoCredentials = errors.New("auth: the request has no credentials")

// Any takes what one of several authenticators takes: the first that finds credentials of its kind decides, and what it
// refuses, no other is asked about. A request without any is told of all kinds. Nil ones are left out; of none, nobody is
// let in.
func Any(authenticators ...Authenticator) Authenticator {
	list := slices.DeleteFunc(slices.Clone(authenticators), func(a Authenticator) bool { return a == nil })
	return func(r *http.Request) (context.Context, error) {
		var challenges []string
		for _, a := range list {
			ctx, err := a(r)
			if !errors.Is(err, ErrNoCredentials) {
				return ctx, err
			}
			if f, ok := errors.AsType[*refusal](err); ok {
				challenges = append(challenges, f.challenges...)
			}
		}
		return nil, none(challenges...)
	}
}

// refusal remembers the challenges of an error, so that Any can tell all of them.
type refusal struct {
	error

	challenges []string
}

func (f *refusal) Unwrap() error { return f.error }

func refuse(err error, challenges ...string) error {
	return &refusal{httpbridge.Challenge(err, challenges...), challenges}
}

// none refuses a request without credentials. RFC 6750, 3.1 wants no error code in its challenge.
func none(challenges ...string) error {
	return refuse(endpoint.Unauthenticated.Wrap(ErrNoCredentials, "credentials are needed").WithOutcome(endpoint.NotSent), challenges...)
}

// repeated refuses a request with several credentials of one kind: which of them counts would be the client's choice.
func repeated(header string) error {
	return endpoint.InvalidArgument.Errorf("header %s is there more than once", header).WithOutcome(endpoint.NotSent)
}

// defaultRealm names what is protected where nobody gave it a name.
const defaultRealm = "postbus"

// challenge writes one of RFC 9110, 11.6.1. Parameters are names and values in turn.
func challenge(scheme string, params ...string) string {
	var b strings.Builder
	b.WriteString(scheme)
	sep := " "
	for pair := range slices.Chunk(params, 2) {
		fmt.Fprintf(&b, `%s%s="%s"`, sep, pair[0], quotable(pair[len(pair)-1]))
		sep = ", "
	}
	return b.String()
}

// quotable keeps what a quoted-string may have without escapes.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, s)
}

// authorization returns the credentials of a scheme from the Authorization header, "" if there are none of it.
func authorization(r *http.Request, scheme string) (string, error) {
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return "", nil
	}
	got, credentials, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(got, scheme) {
		return "", nil
	}
	if len(values) > 1 {
		return "", repeated("Authorization")
	}
	return strings.Trim(credentials, " "), nil
}
