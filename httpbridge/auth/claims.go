package auth

import (
	"bytes"
	"encoding/json"

	"github.com/golang-jwt/jwt/v5"
)

// exactClaims are claims whose numbers are as they stand in the token: a float64 would round a large id to another one.
// The parser's own way to that (jwt.WithJSONNumber) takes what follows the claims for nothing.
type exactClaims struct{ jwt.MapClaims }

// UnmarshalJSON is for encoding/json, which has seen by then that data is one value.
func (c *exactClaims) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(&c.MapClaims)
}
