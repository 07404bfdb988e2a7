package restrict

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// guardServer puts a guard in front of the engine's HTTP server. The engine offers no
// hook for that, so the server is reached through the unexported fields of its manager;
// TestGuardReachesTheServer fails if a version of the engine changes them.
func guardServer(conf *service.ParsedConfig, hosts []string) error {
	address, err := conf.FieldString("http", "address")
	if err != nil {
		return err
	}
	origins, err := conf.FieldStringList("http", "cors", "allowed_origins")
	if err != nil {
		return err
	}
	g := &serverGuard{names: slices.Clone(hosts), origins: origins}
	if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
		g.names = append(g.names, host)
	}
	server, ok := engineServer(conf)
	if !ok {
		return errors.New("the engine's HTTP server cannot be guarded in this version: set http.enabled to false")
	}
	g.next, server.Handler = server.Handler, g
	return nil
}

// engineServer returns the HTTP server of the manager that a config belongs to.
func engineServer(conf *service.ParsedConfig) (*http.Server, bool) {
	v := reflect.ValueOf(conf)
	for _, name := range []string{"mgr", "apiReg", "server"} {
		for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return nil, false
		}
		field := v.FieldByName(name)
		if !field.IsValid() || !field.CanAddr() {
			return nil, false
		}
		v = reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	}
	server, ok := v.Interface().(*http.Server)
	return server, ok && server != nil
}

// serverGuard rejects requests of web pages of other origins, and requests by unknown host names,
// which an attacker's DNS can point to this machine (DNS rebinding).
type serverGuard struct {
	names   []string // host names besides localhost
	origins []string // of http.cors
	next    http.Handler
}

func (g *serverGuard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !g.isKnownHost(r.Host):
		http.Error(w, "unknown host name: start the program with --"+flagHost+" to accept it", http.StatusForbidden)
	case !g.isOwnOrigin(r):
		http.Error(w, "requests of other origins are rejected: set http.cors to allow one", http.StatusForbidden)
	case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/streams/"):
		http.Error(w, "configs are not returned, because they can contain secrets", http.StatusForbidden)
	default:
		g.next.ServeHTTP(w, r)
	}
}

// isKnownHost reports whether a Host header is an IP address, which no attacker's DNS
// can point elsewhere, localhost, or a configured name.
func (g *serverGuard) isKnownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	return net.ParseIP(host) != nil || host == "localhost" || slices.ContainsFunc(g.names, func(name string) bool { return strings.EqualFold(name, host) })
}

// isOwnOrigin reports whether a request comes from no web page, from a page of this
// server, or from an origin that http.cors allows.
func (g *serverGuard) isOwnOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		site := r.Header.Get("Sec-Fetch-Site")
		return site == "" || site == "same-origin" || site == "none"
	}
	if slices.Contains(g.origins, origin) || slices.Contains(g.origins, "*") {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
