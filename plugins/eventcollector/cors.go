package eventcollector

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// origins is the set of web pages that may send events and read responses.
type origins struct {
	any      bool
	exact    map[string]struct{}
	suffixes []wildcard
}

// wildcard matches the subdomains of a host.
type wildcard struct{ prefix, suffix string }

func parseOrigins(patterns []string) (o origins, err error) {
	o.exact = map[string]struct{}{}
	for _, pattern := range patterns {
		if pattern == "*" {
			o.any = true
			continue
		}
		host, wild := strings.CutPrefix(strings.TrimPrefix(strings.TrimPrefix(pattern, "https://"), "http://"), "*.")
		u, err := url.Parse(strings.Replace(pattern, "://*.", "://", 1))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Host != host || strings.Contains(host, "*") {
			return o, fmt.Errorf("%s.%s: an origin is a scheme and a host without a path: write for example https://shop.example, https://*.shop.example or *", fieldCORS, fieldAllowedOrigins)
		}
		// Browsers write origins in lower case.
		if wild {
			o.suffixes = append(o.suffixes, wildcard{u.Scheme + "://", "." + strings.ToLower(host)})
		} else {
			o.exact[u.Scheme+"://"+strings.ToLower(host)] = struct{}{}
		}
	}
	return o, nil
}

func (o *origins) enabled() bool { return o.any || len(o.exact)+len(o.suffixes) > 0 }

// named reports whether the config lists the origin, other than by the star.
func (o *origins) named(origin string) bool {
	if _, ok := o.exact[origin]; ok {
		return true
	}
	for _, w := range o.suffixes {
		if rest, ok := strings.CutPrefix(origin, w.prefix); ok && strings.HasSuffix(rest, w.suffix) && len(rest) > len(w.suffix) {
			return true
		}
	}
	return false
}

// allow sets the CORS headers of a response and reports whether the origin is
// allowed.
func (o *origins) allow(header http.Header, origin string) bool {
	header.Add("Vary", "Origin")
	switch {
	case o.named(origin):
		header.Set("Access-Control-Allow-Origin", origin)
		// Beacons and some SDKs send cookies, which the collector ignores.
		header.Set("Access-Control-Allow-Credentials", "true")
	case o.any:
		header.Set("Access-Control-Allow-Origin", "*")
	default:
		return false
	}
	header.Set("Access-Control-Expose-Headers", "Retry-After")
	return true
}

// preflightHeaders are always allowed. Headers that a preflight requests are
// allowed too, because the collector ignores unknown headers.
const preflightHeaders = "Authorization, Content-Type, Content-Encoding, AnonymousId"

// preflight sets the headers of the response to a preflight request.
func (o *origins) preflight(header http.Header, requested string) {
	header.Add("Vary", "Access-Control-Request-Headers")
	header.Set("Access-Control-Allow-Methods", "GET, POST")
	header.Set("Access-Control-Max-Age", "7200")
	allowed := preflightHeaders
	if requested != "" && len(requested) <= 1024 && isHeaderList(requested) {
		allowed += ", " + requested
	}
	header.Set("Access-Control-Allow-Headers", allowed)
}

func isHeaderList(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == ',', c == ' ':
		default:
			return false
		}
	}
	return true
}
