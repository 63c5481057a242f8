package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

const mib = 1 << 20

// noise is bytes that can't be compressed, and differ for each seed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	var s [32]byte
	s[0] = byte(seed)
	_, _ = rand.NewChaCha8(s).Read(b) // never fails
	return b
}

// shippers are pair with large messages, at a broker that takes 64 KiB.
func shippers(t testing.TB, opts ...bus.Option) (service, caller *bus.Bus) {
	t.Helper()
	s := least(t, func(users map[string]string) {
		users["client"] = both(t, users["client"], users["discovery"])
	}, embedded.WithMaxPayload(64<<10))
	opts = append([]bus.Option{content(t), bus.WithMaxMessage(8 * mib)}, opts...)
	service, caller = as(t, s, "service", "_RI.svc", opts...), as(t, s, "client", "_RI.cli", opts...)
	t.Cleanup(func() { unloaded(t, service, caller) })
	return service, caller
}

// unloaded wants nothing left behind by messages in chunks.
func unloaded(t testing.TB, service, caller *bus.Bus) {
	t.Helper()
	assert.Eventually(t, func() bool {
		return caller.Slots()+caller.Tombs()+caller.Watched()+service.Streams()+service.Acked() == 0 &&
			service.Free() == caller.Free() && service.Free() == 32*mib
	}, "nothing is left behind")
}

// turned answers with the request backwards, which shares nothing with it.
func turned(_ context.Context, r []byte) ([]byte, error) {
	out := make([]byte, len(r))
	for i, b := range r {
		out[len(r)-1-i] = b
	}
	return out, nil
}

// Messages of any size go both ways, compressed or not; those that the broker takes go as ever.
func TestLargeMessages(t *testing.T) {
	for name, opts := range map[string][]bus.Option{
		"plain": nil, "compressed": {bus.WithCompression()}, "headers": {bus.WithHeaderMetadata()},
		"compressed, headers": {bus.WithCompression(), bus.WithHeaderMetadata()},
	} {
		t.Run(name, func(t *testing.T) {
			service, caller := shippers(t, opts...)
			serve(t, service, "svc.turn", rawEndpoint(turned))
			call := echoer(caller, "svc.turn")
			for i, n := range []int{1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 32<<10*3 - 1, 32 << 10 * 3, mib, mib + 1, 5*mib + 4711, 8 * mib} {
				for _, body := range [][]byte{noise(n, uint64(i)), bytes.Repeat([]byte("all the same, "), n/14+1)[:n]} {
					want, _ := turned(t.Context(), body)
					got, err := call(t.Context(), body)
					assert.NoError(t, err, fmt.Sprint(n))
					assert.True(t, bytes.Equal(got, want), fmt.Sprint(n, " bytes"))
				}
			}
			unloaded(t, service, caller)
		})
	}
}

// At once, they don't mix.
func TestLargeMessagesAtOnce(t *testing.T) {
	service, caller := shippers(t)
	serve(t, service, "svc.turn", rawEndpoint(turned))
	call := echoer(caller, "svc.turn")
	for i, err := range each(40, func(i int) error {
		body := noise(i*20_000+1, uint64(i))
		want, _ := turned(t.Context(), body)
		got, err := call(t.Context(), body)
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("another reply")
		}
		return err
	}) {
		assert.NoError(t, err, fmt.Sprint(i))
	}
}

// A small request may have a large reply, and a large one a small reply, a failure, or headers of its own.
func TestLargeOneWay(t *testing.T) {
	service, caller := shippers(t)
	big := noise(3*mib, 1)
	serve(t, service, "svc.get", rawEndpoint(func(ctx context.Context, _ []byte) ([]byte, error) {
		endpoint.FromContext(ctx).Reply.Set("X-Rows", "7")
		endpoint.FromContext(ctx).Trailer.Set("X-End", "8")
		return big, nil
	}))
	serve(t, service, "svc.put", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		c := endpoint.FromContext(ctx)
		if c.Header.Get("X-Fail") != "" {
			return nil, endpoint.FailedPrecondition.Errorf("%d bytes are unlucky", len(r))
		}
		if !bytes.Equal(r, big) {
			return nil, endpoint.DataLoss.New("another request")
		}
		return []byte(c.Header.Get("X-Name")), nil
	}))
	ctx, report := endpoint.Observe(t.Context())
	got, err := echoer(caller, "svc.get")(ctx, nil)
	assert.NoError(t, err)
	assert.True(t, bytes.Equal(got, big), "the reply")
	assert.Equal(t, report.Reply.Get("X-Rows"), "7")
	assert.Equal(t, report.Trailer.Get("X-End"), "8")
	assert.Equal(t, report.Instance, service.ID())

	ctx, report = endpoint.Observe(endpoint.WithHeader(t.Context(), "X-Name", "a name"))
	got, err = echoer(caller, "svc.put")(ctx, big)
	assert.NoError(t, err)
	assert.Equal(t, string(got), "a name")
	assert.Equal(t, report.Instance, service.ID())

	_, err = echoer(caller, "svc.put")(endpoint.WithHeader(t.Context(), "X-Fail", "1"), big)
	failed(t, err, endpoint.FailedPrecondition, "", endpoint.Executed)
	assert.Contains(t, err.Error(), "3145728 bytes are unlucky")
}

// What one instance is asked for directly goes there, in chunks as well.
func TestLargeDirect(t *testing.T) {
	service, caller := shippers(t)
	serve(t, service, "svc.turn", rawEndpoint(turned))
	body := noise(mib, 3)
	want, _ := turned(t.Context(), body)
	got, err := echoer(caller, "svc.turn")(endpoint.WithInstance(t.Context(), service.ID()), body)
	assert.NoError(t, err)
	assert.True(t, bytes.Equal(got, want), "the reply")
}

// Nothing is sent that is over the own limit; what is over the other's is refused when it is announced, and not executed.
func TestLargeLimits(t *testing.T) {
	s := least(t, nil, embedded.WithMaxPayload(64<<10))
	size := func(_ context.Context, r []byte) ([]byte, error) {
		return make([]byte, len(r)*int(r[0])), nil
	}
	ran := 0
	service := as(t, s, "service", "_RI.svc", content(t), bus.WithMaxMessage(2*mib))
	serve(t, service, "svc.size", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		ran++
		return size(ctx, r)
	}))
	times := func(n int, factor byte) []byte {
		b := make([]byte, n)
		b[0] = factor
		return b
	}
	small := as(t, s, "client", "_RI.cli", content(t), bus.WithMaxMessage(mib))
	large := as(t, s, "client", "_RI.cli", content(t), bus.WithMaxMessage(4*mib))
	none := as(t, s, "client", "_RI.cli", content(t))

	_, err := echoer(small, "svc.size")(t.Context(), times(mib+1, 0))
	e := failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotSent)
	assert.Contains(t, e.Error(), "1048577")
	_, err = echoer(none, "svc.size")(t.Context(), times(mib, 0))
	failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotSent)
	_, err = echoer(large, "svc.size")(t.Context(), times(2*mib+1, 0))
	e = failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotExecuted)
	assert.True(t, e.Remote(), "the service's verdict")
	assert.Contains(t, e.Error(), "2097153 bytes, at most 2097152")
	assert.Equal(t, ran, 0)

	_, err = echoer(none, "svc.size")(t.Context(), times(40<<10, 2))
	failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed)
	_, err = echoer(small, "svc.size")(t.Context(), times(mib, 2))
	e = failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed)
	assert.Contains(t, e.Error(), "2097152 bytes, at most 1048576")
	_, err = echoer(large, "svc.size")(t.Context(), times(mib, 3))
	failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed)
	got, err := echoer(large, "svc.size")(t.Context(), times(mib, 2))
	assert.NoError(t, err)
	assert.Equal(t, len(got), 2*mib)
	assert.Eventually(t, func() bool { return service.Free() == 8*mib }, "the last reply's room is given back once it is sent")
}

// A service without the option takes no announcement for a request.
func TestLargeRequestToOneWithoutTheOption(t *testing.T) {
	s := least(t, nil, embedded.WithMaxPayload(64<<10))
	service := as(t, s, "service", "_RI.svc", content(t))
	ran := false
	serve(t, service, "svc.put", rawEndpoint(func(context.Context, []byte) ([]byte, error) {
		ran = true
		return nil, nil
	}))
	caller := as(t, s, "client", "_RI.cli", content(t), bus.WithMaxMessage(mib))
	_, err := echoer(caller, "svc.put")(t.Context(), make([]byte, mib))
	failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotExecuted)
	assert.True(t, !ran, "it ran")
}

// Nobody there is nobody there.
func TestLargeRequestToNobody(t *testing.T) {
	_, caller := shippers(t)
	timed(t, soon, func() {
		_, err := echoer(caller, "svc.none")(t.Context(), make([]byte, mib))
		failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	})
}

// Without the grants for instances' subjects there are no messages in chunks, and a call says so at once.
func TestLargeWithoutGrants(t *testing.T) {
	const root = `"_RPC.svc.>", `
	for _, who := range []string{"service", "client"} {
		s := least(t, func(users map[string]string) {
			users[who] = strings.ReplaceAll(strings.ReplaceAll(users[who], root, ""), `, "_RPC.svc.>"`, "")
			assert.True(t, !strings.Contains(users[who], "_RPC"), users[who])
		}, embedded.WithMaxPayload(64<<10))
		service := as(t, s, "service", "_RI.svc", bus.WithMaxMessage(8*mib))
		caller := as(t, s, "client", "_RI.cli", bus.WithMaxMessage(8*mib))
		serve(t, service, "svc.size", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) { return make([]byte, 10*len(r)), nil }))
		timed(t, soon, func() {
			_, err := echoer(caller, "svc.size")(t.Context(), make([]byte, 5*mib))
			if who == "service" {
				failed(t, err, endpoint.Unimplemented, endpoint.ReasonUnsupported, endpoint.NotExecuted)
			} else {
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
			}
			_, err = echoer(caller, "svc.size")(t.Context(), make([]byte, 20<<10))
			if who == "service" {
				failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed)
			} else {
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.Executed)
			}
		})
	}
}

// Calls that hold room for their requests don't wait for each other's replies: those have room of their own.
func TestLargeMessagesToItself(t *testing.T) {
	s := bustest.Server(t, embedded.WithMaxPayload(64<<10), unheard())
	b := connect(t, s, quiet(), bus.WithMaxMessage(mib))
	g := newGate(t)
	serve(t, b, "svc.turn", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		g.pass()
		return turned(ctx, r)
	}))
	call := echoer(b, "svc.turn")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			got, err := call(t.Context(), noise(mib, uint64(i)))
			assert.NoError(t, err)
			assert.Equal(t, len(got), mib)
		})
	}
	g.await(t, 4) // all room for requests is taken
	g.open()
	wg.Wait()
	assert.Eventually(t, func() bool { return b.Free() == 4*mib })
}
