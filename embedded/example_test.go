package embedded_test

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/embedded"
)

// A server, a service and a client in one process.
func Example() {
	srv, err := embedded.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Shutdown()

	nc, err := srv.Connect() // or, from another process, nats.Connect(srv.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()

	_, _ = nc.Subscribe("svc.greet", func(m *nats.Msg) { _ = m.Respond(append([]byte("hello, "), m.Data...)) })
	reply, err := nc.Request("svc.greet", []byte("world"), time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(reply.Data))
	// Output: hello, world
}

// Every fault is reported, so that one correction is enough.
func ExampleStart_faults() {
	_, err := embedded.Start(
		embedded.WithAddr("localhost"),
		embedded.WithMaxPayload(-1),
		embedded.WithConfig("max_conections: 10"),
	)
	fmt.Println(err)
	// Output:
	// embedded: WithAddr: address localhost: missing port in address
	// embedded: WithMaxPayload: -1 bytes is not a size
	// embedded: WithConfig: line 1:0: unknown field "max_conections"
}

// Each user may do only what its part in the service needs.
func ExampleWithUsers() {
	srv, err := embedded.Start(embedded.WithUsers(
		embedded.User{
			Name: "service", Password: "s3rvice",
			Subscribe: embedded.Permission{Allow: []string{"svc.add q"}}, // as a member of the queue group q only
			Replies:   1,
		},
		embedded.User{
			Name: "client", Password: "cl1ent",
			Publish:   embedded.Permission{Allow: []string{"svc.add"}},
			Subscribe: embedded.Permission{Allow: []string{"_INBOX.>"}},
		},
	))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Shutdown()

	_, err = srv.Connect()
	fmt.Println(err != nil)
	nc, err := srv.Connect(nats.UserInfo("client", "cl1ent"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	_, err = nc.Request("svc.add", nil, time.Second)
	fmt.Println(err)
	// Output:
	// true
	// nats: no responders available for request
}

// A cluster to try what happens when a server goes away.
func ExampleStartCluster() {
	cluster, err := embedded.StartCluster(3)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Shutdown()

	nc, err := nats.Connect(cluster.URL(), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	for _, s := range cluster.Servers() {
		if err := s.Restart(); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(nc.ForceReconnect())
	// Output: <nil>
}
