package schema

// Unqualified and Sanitize are the two steps from a type's name to its name in $defs.
var (
	Unqualified = unqualified
	Sanitize    = sanitize
)
