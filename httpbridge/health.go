package httpbridge

import (
	"context"
	"net/http"
	"time"

	"postbus.example/endpoint"
)

const (
	readyTimeout = 2 * time.Second        // bounds what a transport may think about being ready
	readyFor     = 250 * time.Millisecond // is how long its answer counts
)

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
	ctx, cancel := context.WithTimeout(x.client, readyTimeout)
	defer cancel()
	if err := x.readiness.ask(ctx); err != nil {
		return endpoint.Unavailable.Wrap(err, "the transport is not ready")
	}
	return x.fine()
}

// readiness is what a transport says about itself. Anybody may ask, as often as they like: so one question is under way at
// a time, it outlives who asked it, and its answer serves everybody for a while.
type readiness struct {
	source   interface{ Ready(context.Context) error } // nil: always ready
	life     context.Context
	turn     chan struct{} // is full while somebody has what is below
	answer   error
	answered time.Time
}

func newReadiness(life context.Context, t endpoint.Transport) *readiness {
	r := &readiness{life: life, turn: make(chan struct{}, 1)}
	r.source, _ = t.(interface{ Ready(context.Context) error })
	return r
}

func (r *readiness) ask(ctx context.Context) error {
	if r.source == nil {
		return nil
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.answered.IsZero() || time.Since(r.answered) >= readyFor {
		ctx, cancel := context.WithTimeout(r.life, readyTimeout)
		defer cancel()
		r.answer = r.source.Ready(ctx)
		r.answered = time.Now()
	}
	return r.answer
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
