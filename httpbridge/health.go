package httpbridge

import (
	"context"
	"net/http"
	"time"

	"postbus.example/endpoint"
)

// readyTimeout bounds what a transport may think about being ready.
const readyTimeout = 2 * time.Second

// alive answers /healthz: the process runs and the bridge is sound.
func (x *exchange) alive() error {
	if !safe(x.r.Method) {
		return x.method("GET, HEAD")
	}
	return x.fine()
}

// ready answers /readyz: calls are taken, and the transport can carry them.
func (x *exchange) ready() error {
	if !safe(x.r.Method) {
		return x.method("GET, HEAD")
	}
	if x.gate.draining() {
		return errDraining
	}
	if t, ok := x.transport.(interface{ Ready(context.Context) error }); ok {
		ctx, cancel := context.WithTimeout(x.r.Context(), readyTimeout)
		defer cancel()
		if err := t.Ready(ctx); err != nil {
			return endpoint.Unavailable.Wrap(err, "the transport is not ready")
		}
	}
	return x.fine()
}

func (x *exchange) fine() error {
	h := x.w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Cache-Control", "no-store")
	x.answering()
	_, _ = x.w.Write([]byte(`{"status":"ok"}` + "\n")) // nobody is left to be told
	return nil
}

func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }
