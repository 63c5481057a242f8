package httpbridge

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// shutdownTime bounds the drain of Run, lastWords what comes after it.
const (
	shutdownTime = 30 * time.Second
	lastWords    = time.Second
)

// ListenAndServe serves HTTP on addr (":8080") until ctx ends. It is [Bridge.Run] with [Bridge.Server].
func (b *Bridge) ListenAndServe(ctx context.Context, addr string) error {
	return b.Run(ctx, b.Server(addr))
}

// Run serves HTTP with a server until ctx ends, then drains the bridge within 30 seconds and shuts the server down. The server is
// that of [Bridge.Server], whose Handler may be a mux that has the bridge and others beside it; it listens on its Addr, with
// TLS if it has a TLSConfig. The bridge's calls end before the server is shut down; other handlers get one second more.
//
// Run returns nil after a clean end; else the faults of the bridge's options, why it can't listen, or which calls did not
// end in time. Connections that carry no call are no fault: they are closed. Call it once. The transport is left alone:
// drain it afterwards.
func (b *Bridge) Run(ctx context.Context, server *http.Server) error {
	if err := b.Err(); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", server.Addr)
	if err != nil {
		return err
	}
	b.log.Info("the HTTP bridge listens", "addr", l.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- serve(server, l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	err = b.stop(context.WithoutCancel(ctx), server)
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func serve(server *http.Server, l net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(l, "", "")
	}
	return server.Serve(l)
}

// stop drains first, so that the server still answers meanwhile: readiness, refusals, and what a drain canceled. Shutdown
// takes a connection that never sent a request, or half of one, for busy; what Drain says about calls is what counts.
func (b *Bridge) stop(ctx context.Context, server *http.Server) error {
	end, cancel := context.WithTimeout(ctx, shutdownTime)
	defer cancel()
	drained := b.Drain(end)
	last, cancelLast := context.WithTimeout(ctx, lastWords)
	defer cancelLast()
	shut := server.Shutdown(last)
	if errors.Is(shut, context.DeadlineExceeded) {
		shut = server.Close()
	}
	return errors.Join(drained, shut)
}
