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

	"github.com/connect-personalize/connect-personalize/plugins/engine/signedurl"
)

// scope is a permission of a token.
type scope uint8

const (
	scopeRead scope = 1 << iota
	scopeWrite
	scopeContent
	scopeErase
	scopeExport
	scopeSegments

	scopeAll = scopeRead | scopeWrite | scopeContent | scopeErase | scopeExport | scopeSegments
)

// scopeNames are the names of the scopes in a config.
var scopeNames = map[string]scope{
	"read": scopeRead, "write": scopeWrite, "content": scopeContent, "erase": scopeErase,
	"export": scopeExport, "segments": scopeSegments,
}

func (s scope) String() string {
	for name, scope := range scopeNames {
		if s == scope {
			return name
		}
	}
	return "any"
}

// token is a bearer token that callers may present.
type token struct {
	name   string
	hash   [sha256.Size]byte
	scopes scope
	limits limits
}

// limits are the rate limits of a token or signing key.
type limits struct {
	requests limit
	// profiles counts the customers that requests read.
	profiles limit
}

// limit is one rate limit.
type limit struct {
	perSecond float64
	burst     int
	// limiter is nil without a limit.
	limiter *rate.Limiter
}

// take consumes n units of the limit, or returns a refusal with the number of seconds
// until the next request is allowed. A request for more than the burst is accepted when
// a whole burst is available; the rest delays the requests after it, so that the rate
// holds on average.
func (l *limit) take(now time.Time, n int) *problem {
	if l.limiter == nil {
		return nil
	}
	r := l.limiter.ReserveN(now, min(n, l.burst))
	wait := r.DelayFrom(now)
	if wait <= 0 {
		for n -= l.burst; n > 0; n -= l.burst {
			l.limiter.ReserveN(now, min(n, l.burst))
		}
		return nil
	}
	r.CancelAt(now)
	return &problem{status: http.StatusTooManyRequests, code: "too_many_requests",
		retryAfter: int(math.Ceil(wait.Seconds())),
		message:    "the rate limit of the token is exceeded: retry later"}
}

// caller is the authenticated caller of a request.
type caller struct {
	// name is the name of the token or signing key, empty if none is required.
	name   string
	scopes scope
	// profiles is the limit of profiles, nil without one.
	profiles *limit
}

// takeProfiles consumes n profiles of the caller's limit.
func (c *caller) takeProfiles(now time.Time, n int) *problem {
	if c.profiles == nil {
		return nil
	}
	return c.profiles.take(now, n)
}

// credentials are the tokens and signing keys of a config and its file. They are
// immutable: a change of the file replaces them.
type credentials struct {
	tokens []token
	keys   []signingKey
}

// guard authenticates and authorizes requests.
type guard struct {
	// accepted are the current credentials. If required is false, every request is
	// authorized: the API listens on loopback, or requires client certificates, or has
	// allow_unauthenticated set.
	accepted atomic.Pointer[credentials]
	required bool
}

var unauthenticated = problem{
	status:  http.StatusUnauthorized,
	code:    "unauthenticated",
	message: "the request needs a known token: Authorization: Bearer …",
}

// check authenticates a request and returns its caller. The returned request is the
// original one or, for a signed URL, the one without the parameters of the signature.
func (g *guard) check(r *http.Request, to *route, now time.Time) (caller, *http.Request, *problem) {
	if !g.required {
		return caller{scopes: scopeAll}, r, nil
	}
	accepted := g.accepted.Load()
	values := r.Header["Authorization"]
	if len(values) == 0 && signedurl.IsSigned(r.URL) {
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
	return caller{name: t.name, scopes: t.scopes, profiles: &t.limits.profiles}, r, t.limits.requests.take(now, 1)
}

// tokenOf returns the token with this secret, nil for an unknown one.
func (c *credentials) tokenOf(presented string) *token {
	hash := sha256.Sum256([]byte(presented))
	// Every token is compared, in constant time, so that the duration reveals nothing.
	found := -1
	for i := range c.tokens {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], c.tokens[i].hash[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	return &c.tokens[found]
}

// isLoopback reports whether a host to listen on is reachable from this machine only.
// Names other than localhost may resolve to any address, so they do not count.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// namesLoopback reports whether a Host header names this machine. It prevents DNS
// rebinding: a web page can make its own host name resolve to 127.0.0.1 and read the
// API through the browser, but the Host header then contains the page's name. A
// request without Host does not come from a browser.
func namesLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = strings.Trim(hostPort, "[]")
	}
	return host == "" || isLoopback(host)
}
