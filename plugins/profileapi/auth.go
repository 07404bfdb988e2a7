package profileapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// scope is something a token may do.
type scope uint8

const (
	scopeRead scope = 1 << iota
	scopeWrite
	scopeContent
	scopeErase

	scopeAll = scopeRead | scopeWrite | scopeContent | scopeErase
)

// scopeNames are the scopes as they are written in a config.
var scopeNames = map[string]scope{"read": scopeRead, "write": scopeWrite, "content": scopeContent, "erase": scopeErase}

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
	name   string
	hash   [sha256.Size]byte
	scopes scope
	rate   limit
}

// limit is how many requests a second a token, or a signing key, is good for.
type limit struct {
	perSecond float64
	burst     int
	// limiter counts; nil lets everything pass.
	limiter *rate.Limiter
}

// take lets a request pass, or says in how many seconds the next one may.
func (l *limit) take(now time.Time) *problem {
	if l.limiter == nil {
		return nil
	}
	r := l.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait <= 0 {
		return nil
	}
	r.CancelAt(now)
	return &problem{status: http.StatusTooManyRequests, code: "too_many_requests",
		retryAfter: int(math.Ceil(wait.Seconds())),
		message:    "the token is good for fewer requests a second: ask again later"}
}

// caller is who makes a request, as far as it is known.
type caller struct {
	// name is that of the token or signing key, empty where none is needed.
	name   string
	scopes scope
}

// credentials are what callers may present. They do not change; a file that
// does gives new ones.
type credentials struct {
	tokens []token
	keys   []signingKey
}

// guard decides what a request may do.
type guard struct {
	// accepted are the credentials of now. Without any, and without a file
	// that may come to hold some, everybody who can connect may do everything:
	// that is a loopback address, client certificates, or an explicit setting.
	accepted atomic.Pointer[credentials]
	required bool
}

var unauthenticated = problem{
	status:  http.StatusUnauthorized,
	code:    "unauthenticated",
	message: "the request needs a known token: Authorization: Bearer …",
}

// check returns who makes a request and may make it. A signed one comes back
// without what the signature added to its query string.
func (g *guard) check(r *http.Request, to *route, now time.Time) (caller, *http.Request, *problem) {
	if !g.required {
		return caller{scopes: scopeAll}, r, nil
	}
	accepted := g.accepted.Load()
	values := r.Header["Authorization"]
	if len(values) == 0 && isSigned(r.URL) {
		return accepted.checkSigned(r, to, now)
	}
	if len(values) != 1 {
		return caller{}, r, &unauthenticated
	}
	scheme, presented, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{}, r, &unauthenticated
	}
	t := accepted.tokenOf(strings.TrimSpace(presented))
	if t == nil {
		return caller{}, r, &unauthenticated
	}
	return caller{name: t.name, scopes: t.scopes}, r, t.rate.take(now)
}

// tokenOf returns the token that was presented, nil for an unknown one.
func (c *credentials) tokenOf(presented string) *token {
	hash := sha256.Sum256([]byte(presented))
	// Every token is compared, in constant time, so that the time taken says
	// nothing about which of them came close.
	found := -1
	for i := range c.tokens {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], c.tokens[i].hash[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	return &c.tokens[found]
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
