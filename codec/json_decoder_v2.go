//go:build goexperiment.jsonv2

package codec

import "encoding/json"

// unmarshal is json.Unmarshal, which reuses its decoders by itself in this build.
func unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }
