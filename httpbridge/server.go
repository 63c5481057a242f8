package httpbridge

import (
	"log/slog"
	"net/http"
)

// Server returns an http.Server for the bridge that bounds what a plain http.ListenAndServe leaves open: the time for headers,
// for bodies, for replies and between requests, and the size of headers, all from [WithTimeouts] and [WithLimits]. It speaks
// HTTP/1.1 and HTTP/2, the latter without TLS too. [Bridge.Run] starts and stops it; whoever does that alone stops it after
// [Bridge.Drain]. It may be changed before: a Handler that has the bridge among others, a TLSConfig.
func (b *Bridge) Server(addr string) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Addr:              addr,
		Handler:           b,
		ReadHeaderTimeout: b.timeouts.Header,
		ReadTimeout:       b.timeouts.Header + b.timeouts.Body,
		WriteTimeout:      b.timeouts.Body + b.timeouts.MaxCall + b.timeouts.Write,
		IdleTimeout:       b.timeouts.Idle,
		MaxHeaderBytes:    b.limits.Header,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: b.limits.PerConnection,
			SendPingTimeout:      b.timeouts.Heartbeat, // a stream may be silent; a client that is gone without a word is not kept
			PingTimeout:          b.timeouts.Heartbeat,
		},
		ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelWarn),
	}
}
