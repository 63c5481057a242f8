//go:build conformance

// Command server is what the conformance suite of Connect, gRPC and gRPC-Web tests: the suite's service on a NATS server, and
// the HTTP bridge in front of it. It is started by the suite, which says over standard input what it wants:
// https://github.com/connectrpc/conformance/blob/main/docs/testing_servers.md
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"postbus.example/bus"
	"postbus.example/codec/protobuf"
	"postbus.example/embedded"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/grpcbridge"

	v1 "postbus.example/interop/conformance/gen/conformancev1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, in io.Reader, out io.Writer) error {
	var ask v1.ServerCompatRequest
	if err := read(in, &ask); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	broker, err := embedded.Start(embedded.WithLogger(quiet))
	if err != nil {
		return err
	}
	defer broker.Shutdown()
	service, err := connect(broker, quiet)
	if err != nil {
		return err
	}
	defer service.Drain(context.WithoutCancel(ctx))
	for subject, ep := range endpoints() {
		if err := service.Serve(subject, ep); err != nil {
			return err
		}
	}
	caller, err := connect(broker, quiet)
	if err != nil {
		return err
	}
	defer caller.Drain(context.WithoutCancel(ctx))
	return serve(ctx, bridge(caller, &ask), &ask, out)
}

// connect takes both encodings, so that whatever a client speaks goes to the service untouched.
func connect(broker *embedded.Server, l *slog.Logger) (*bus.Bus, error) {
	return bus.Connect(broker.URL(), bus.WithCodec(protobuf.Binary), bus.WithCodecs(protobuf.JSON), bus.WithLogger(l))
}

// unasked is how long a call may take whose client sets no limit: to the service it means that there is none.
const unasked = time.Hour

func bridge(t *bus.Bus, ask *v1.ServerCompatRequest) *httpbridge.Bridge {
	return httpbridge.New(t,
		httpbridge.Expose(service+".*"),
		httpbridge.WithHeaders([]string{"*"}, []string{"*"}),
		httpbridge.WithLimits(httpbridge.Limits{Body: int(ask.GetMessageReceiveLimit())}),
		httpbridge.WithTimeouts(httpbridge.Timeouts{Call: unasked}),
		httpbridge.WithLogger(logger()),
		grpcbridge.Enable(),
	)
}

// logger is silent unless somebody looks for a fault.
func logger() *slog.Logger {
	if os.Getenv("POSTBUS_CONFORMANCE_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serve answers the suite, and its client, until the suite has had enough.
func serve(ctx context.Context, b *httpbridge.Bridge, ask *v1.ServerCompatRequest, out io.Writer) error {
	if err := b.Err(); err != nil {
		return err
	}
	server := b.Server("127.0.0.1:0")
	var err error
	if server.TLSConfig, err = secure(ask); err != nil {
		return err
	}
	l, err := net.Listen("tcp", server.Addr)
	if err != nil {
		return err
	}
	err = write(out, &v1.ServerCompatResponse{
		Host: "127.0.0.1", Port: uint32(l.Addr().(*net.TCPAddr).Port), PemCert: ask.GetServerCreds().GetCert(),
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { server.Close() })
	if server.TLSConfig != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func secure(ask *v1.ServerCompatRequest) (*tls.Config, error) {
	if !ask.GetUseTls() {
		return nil, nil
	}
	pair, err := tls.X509KeyPair(ask.GetServerCreds().GetCert(), ask.GetServerCreds().GetKey())
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}}
	if pem := ask.GetClientTlsCert(); len(pem) > 0 {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AppendCertsFromPEM(pem)
	}
	return c, nil
}

// read takes one message with its length, four bytes, in front.
func read(r io.Reader, m proto.Message) error {
	var n uint32
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return err
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	return proto.Unmarshal(data, m)
}

func write(w io.Writer, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}
