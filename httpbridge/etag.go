package httpbridge

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// give answers a request: a GET with an ETag, and with 304 if the client has the same already.
func (x *exchange) give(mediaType string, data []byte) {
	if !safe(x.r.Method) {
		x.write(mediaType, data)
		return
	}
	h := x.w.Header()
	if h["Etag"] == nil {
		x.set("Etag", etagOf(data))
	}
	if h["Cache-Control"] == nil {
		x.set("Cache-Control", "no-cache") // keep it, but ask each time
	}
	if !matches(x.r.Header["If-None-Match"], h.Get("ETag")) {
		x.write(mediaType, data)
		return
	}
	if compressible(mediaType) {
		h.Add("Vary", "Accept-Encoding")
	}
	x.answering()
	x.w.WriteHeader(http.StatusNotModified)
}

// etagOf is weak: the same bytes may be sent compressed.
func etagOf(data []byte) string {
	sum := sha256.Sum256(data)
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// matches compares as If-None-Match does (RFC 9110, 13.1.2): weakly.
func matches(lines []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
