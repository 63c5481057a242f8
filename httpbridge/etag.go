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
	if h.Get("ETag") == "" {
		x.set("Etag", etagOf(data, x.zips(mediaType, data)))
	}
	if h["Cache-Control"] == nil {
		policy := "no-cache" // keep it, but ask each time
		if x.auth != nil {
			policy = "private, no-cache"
		}
		x.set("Cache-Control", policy)
	}
	if !matches(x.r.Header["If-None-Match"], h.Get("ETag")) {
		x.write(mediaType, data)
		return
	}
	if compressible(mediaType) {
		h.Add("Vary", "Accept-Encoding")
	}
	x.parting(x.unread && x.duplex)
	x.answering()
	x.w.WriteHeader(http.StatusNotModified)
}

// zips reports whether a reply is sent compressed.
func (x *exchange) zips(mediaType string, data []byte) bool {
	return len(data) >= minGzip && compressible(mediaType) && acceptsGzip(x.r.Header["Accept-Encoding"])
}

// etagOf is of what is sent, so it is strong: what is compressed has other bytes, and another tag (RFC 9110, 8.8.3).
func etagOf(data []byte, zipped bool) string {
	sum := sha256.Sum256(data)
	tag := base64.RawURLEncoding.EncodeToString(sum[:18])
	if zipped {
		tag += "-gzip"
	}
	return `"` + tag + `"`
}

// matches compares as If-None-Match does (RFC 9110, 13.1.2): weakly.
func matches(lines []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || tag != "" && strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
