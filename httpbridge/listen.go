package httpbridge

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// shutdownTime bounds the drain of ListenAndServe, lastWords what comes after it.
const (
	shutdownTime = 30 * time.Second
	lastWords    = time.Second
)

// ListenAndServe serves HTTP on addr (":8080") with [Bridge.Server] until ctx ends, then drains the bridge and shuts the
// server down, within 30 seconds. It returns nil after a clean end; else the faults of the bridge's options, why it can't
// listen, or what did not end in time. Call it once. The transport is left alone: drain it afterwards.
func (b *Bridge) ListenAndServe(ctx context.Context, addr string) error {
	if err := b.Err(); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	b.log.Info("the HTTP bridge listens", "addr", l.Addr().String())
	server := b.Server(addr)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	err = b.Drain(end)
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancelLast()
	if shut := server.Shutdown(last); shut != nil { // its own time: what a drain cancels is still answered
		err = errors.Join(err, shut, server.Close())
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
