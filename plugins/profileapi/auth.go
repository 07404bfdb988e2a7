package profileapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// scope is something a token may do.
type scope uint8

const (
	scopeRead scope = 1 << iota
	scopeWrite

	scopeAll = scopeRead | scopeWrite
)

// scopeNames are the scopes as they are written in a config.
var scopeNames = map[string]scope{"read": scopeRead, "write": scopeWrite}

func (s scope) String() string {
	for name, scope := range scopeNames {
		if s == scope {
			return name
		}
	}
	return "any"
}

// token is one of the bearer tokens callers may present.
type token struct {
	hash   [sha256.Size]byte
	scopes scope
}

// guard decides what a request may do.
type guard struct {
	// tokens are the accepted ones. Without any, everybody who can connect may
	// do everything: that is a loopback address, client certificates, or an
	// explicit setting.
	tokens []token
}

var unauthenticated = problem{
	status:  http.StatusUnauthorized,
	code:    "unauthenticated",
	message: "the request needs a known token: Authorization: Bearer …",
}

// check returns the scopes of the token a request presents.
func (g *guard) check(h http.Header) (scope, *problem) {
	if len(g.tokens) == 0 {
		return scopeAll, nil
	}
	values := h["Authorization"]
	if len(values) != 1 {
		return 0, &unauthenticated
	}
	scheme, presented, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return 0, &unauthenticated
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(presented)))
	// Every token is compared, in constant time, so that the time taken says
	// nothing about which of them came close.
	var scopes, known int
	for i := range g.tokens {
		same := subtle.ConstantTimeCompare(hash[:], g.tokens[i].hash[:])
		known |= same
		scopes |= subtle.ConstantTimeSelect(same, int(g.tokens[i].scopes), 0)
	}
	if known == 0 {
		return 0, &unauthenticated
	}
	return scope(scopes), nil
}

// isLoopback tells whether only this machine can reach a host to listen on. A
// name other than localhost may resolve to anything, so it does not count.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// namesLoopback tells whether a Host header is of this machine. A web page can
// make its own host name resolve to 127.0.0.1 and then read, through its
// visitor's browser, what only this machine is meant to; the header gives it
// away. A request without one is not from a browser.
func namesLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = strings.Trim(hostPort, "[]")
	}
	return host == "" || isLoopback(host)
}
