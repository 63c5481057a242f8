package embedded

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

const loopback = "127.0.0.1"

// settings is what the options add up to. It does not change once the options are read.
type settings struct {
	name       string
	host       string
	port       int // 0: random
	addrSet    bool
	text       string
	users      []User
	tls        *tls.Config
	log        logOutput
	jetStream  bool
	storeDir   string
	noListener bool
	maxPayload int     // 0: the server's default
	others     int     // servers of the same cluster
	member     *member // place in the cluster; nil for a single server
	faults     []error

	spareName string // if neither an option nor the text has one
}

func newSettings(opts []Option) *settings {
	st := &settings{spareName: "embedded-" + rand.Text()}
	for i, opt := range opts {
		if opt == nil {
			st.faultf("option %d is nil", i+1)
			continue
		}
		opt(st)
	}
	if st.noListener && st.addrSet {
		st.faultf("WithAddr and WithoutListener exclude each other")
	}
	if st.noListener && st.tls != nil {
		st.faultf("WithTLS and WithoutListener exclude each other: there is nothing to encrypt")
	}
	return st
}

// options returns new options for a server, or all that is wrong with the settings.
func (st *settings) options() (*server.Options, error) {
	o := &server.Options{}
	faults := slices.Concat(st.faults, parseText(o, st.text))
	if len(faults) == len(st.faults) { // a text that is half understood would yield faults that it does not have
		faults = append(faults, st.applyUsers(o)...)
		faults = append(faults, st.applyLimits(o)...)
		faults = append(faults, st.applyAddr(o)...)
		faults = append(faults, st.applyJetStream(o)...)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	st.applyName(o)
	if st.tls != nil {
		o.TLSConfig, o.TLS = st.tls.Clone(), true
	}
	if st.member != nil {
		st.member.apply(o)
	}
	confine(o)
	return o, nil
}

// parseText reads NATS configuration into o and returns each of its errors. Warnings are none: the nats-server program
// accepts the text, too.
func parseText(o *server.Options, text string) []error {
	if text == "" {
		return nil
	}
	err := o.ProcessConfigString(text)
	if err == nil {
		return nil
	}
	errs := []error{err}
	if several, ok := err.(interface{ Errors() []error }); ok {
		errs = several.Errors()
	}
	faults := make([]error, len(errs))
	for i, err := range errs {
		msg := strings.TrimSpace(err.Error())
		if at, ok := strings.CutPrefix(msg, ":"); ok { // "file:line:column: …" without a file
			msg = "line " + at
		}
		faults[i] = errors.New("embedded: WithConfig: " + msg)
	}
	return faults
}

func (st *settings) applyName(o *server.Options) {
	if st.name != "" {
		o.ServerName = st.name
	} else if o.ServerName == "" {
		o.ServerName = st.spareName
	}
}

func (st *settings) applyAddr(o *server.Options) (faults []error) {
	if st.addrSet {
		o.Host, o.Port = st.host, st.port
	}
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT // else the server takes 0 for 4222
	}
	if o.Port+st.others > math.MaxUint16 {
		faults = append(faults, fmt.Errorf("embedded: no port for each server from %d on", o.Port))
	}
	o.DontListen = st.noListener
	if st.noListener && o.Cluster.Port != 0 {
		// The routes wait for the clients' listener: without it, they never start and Shutdown never ends.
		faults = append(faults, errors.New("embedded: WithoutListener does not go with the text's cluster"))
	}
	return faults
}

func (st *settings) applyJetStream(o *server.Options) []error {
	if st.jetStream {
		o.JetStream, o.StoreDir = true, st.storeDir
	}
	if info, err := os.Stat(o.StoreDir); err == nil && !info.IsDir() { // the server would not say which
		return []error{fmt.Errorf("embedded: WithJetStream: %s is not a directory", o.StoreDir)}
	}
	return nil
}

func (st *settings) applyLimits(o *server.Options) []error {
	if st.maxPayload == 0 {
		return nil
	}
	limit := o.MaxPending
	if limit == 0 {
		limit = server.MAX_PENDING_SIZE
	}
	if limit = min(limit, math.MaxInt32); int64(st.maxPayload) > limit {
		return []error{fmt.Errorf("embedded: WithMaxPayload: %d bytes is above the limit of %d", st.maxPayload, limit)}
	}
	o.MaxPayload = int32(st.maxPayload)
	return nil
}

func (st *settings) applyUsers(o *server.Options) (faults []error) {
	faultf := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("embedded: WithUsers: "+format, args...))
	}
	if len(st.users) > 0 && (o.Username != "" || o.Authorization != "") {
		faultf("the configuration text has a single user or token, which the server would ignore; list it as a user")
	}
	known := make(map[string]bool)
	for _, u := range o.Users {
		known[u.Username] = true
	}
	for _, u := range st.users {
		switch {
		case u.Name == "":
			faultf("a user without name")
		case known[u.Name]:
			faultf("user %q is there twice", u.Name)
		}
		if u.Password == "" {
			faultf("user %q has no password", u.Name)
		}
		known[u.Name] = true
		for _, bad := range u.badSubjects() {
			faultf("user %q: %s", u.Name, bad)
		}
		o.Users = append(o.Users, u.natsUser())
	}
	return faults
}

// confine makes o safe to run inside another program.
func confine(o *server.Options) {
	o.NoSigs = true // else SIGINT would be the server's, and end the process
	o.NoLog, o.LogFile, o.Syslog, o.RemoteSyslog = true, "", false, ""
	o.DisableJetStreamBanner = true
	o.DisableShortFirstPing = true // it is for finding distances, of which there are none
	o.CheckConfig = false
	for _, host := range []*string{&o.Host, &o.HTTPHost, &o.Cluster.Host, &o.Gateway.Host, &o.LeafNode.Host, &o.Websocket.Host, &o.MQTT.Host} {
		if *host == "" {
			*host = loopback // the server's own default is every interface
		}
	}
}

func (u *User) badSubjects() (bad []string) {
	check := func(what string, subjects []string, queues bool) {
		for _, s := range subjects {
			if !validPermission(s, queues) {
				bad = append(bad, fmt.Sprintf("%s: %q is not a subject", what, s))
			}
		}
	}
	check("publish allow", u.Publish.Allow, false)
	check("publish deny", u.Publish.Deny, false)
	check("subscribe allow", u.Subscribe.Allow, true)
	check("subscribe deny", u.Subscribe.Deny, true)
	return bad
}

// validPermission follows the server's own check, to report all faults where that reports the first.
func validPermission(s string, queues bool) bool {
	if server.IsValidSubject(s) {
		return true
	}
	f := strings.Fields(s)
	return queues && len(f) == 2 && server.IsValidSubject(f[0]) && server.IsValidSubject(f[1])
}

func (u *User) natsUser() *server.User {
	p := &server.Permissions{Publish: u.Publish.nats(), Subscribe: u.Subscribe.nats()}
	if u.Replies != 0 {
		p.Response = &server.ResponsePermission{MaxMsgs: u.Replies, Expires: server.DEFAULT_ALLOW_RESPONSE_EXPIRATION}
	}
	return &server.User{Username: u.Name, Password: u.Password, Permissions: p}
}

func (p Permission) nats() *server.SubjectPermission {
	if p.Allow == nil && p.Deny == nil {
		return nil
	}
	return &server.SubjectPermission{Allow: slices.Clone(p.Allow), Deny: slices.Clone(p.Deny)}
}

// ports are the ports a server was given where it asked for random ones.
type ports struct{ client, cluster, gateway, leafNode, websocket, mqtt, http int }

// portsOf reads the ports of a running server of o, to which the server wrote them.
func portsOf(ns *server.Server, o *server.Options) ports {
	p := ports{o.Port, o.Cluster.Port, o.Gateway.Port, o.LeafNode.Port, o.Websocket.Port, o.MQTT.Port, 0}
	if a := ns.MonitorAddr(); a != nil {
		p.http = a.Port
	}
	return p
}

// pin makes o ask for p where it asks for random ports.
func (p ports) pin(o *server.Options) {
	set := func(port *int, to int) {
		if *port == server.RANDOM_PORT && to > 0 {
			*port = to
		}
	}
	set(&o.Port, p.client)
	set(&o.Cluster.Port, p.cluster)
	set(&o.Gateway.Port, p.gateway)
	set(&o.LeafNode.Port, p.leafNode)
	set(&o.Websocket.Port, p.websocket)
	set(&o.MQTT.Port, p.mqtt)
	set(&o.HTTPPort, p.http)
	set(&o.HTTPSPort, p.http)
}

// clientURL is where to dial a running server of o, "" if nowhere.
func clientURL(o *server.Options) string {
	if o.DontListen {
		return ""
	}
	u := url.URL{Scheme: "nats"}
	if o.TLSConfig != nil && !o.AllowNonTLS {
		u.Scheme = "tls"
	}
	host := o.Host
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = loopback
		if ip.To4() == nil {
			host = "::1"
		}
	}
	u.Host = net.JoinHostPort(host, strconv.Itoa(o.Port))
	return u.String()
}
