package profileapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A signed address lets whoever has it fetch one thing until it expires, for
// platforms that cannot send headers:
//
//	/api/customer/42/content/hero?expires=1798761600&key=braze&signature=…
//
// The signature comes last and is the HMAC-SHA256, in hexadecimal, of all that
// is before &signature=: the path as it is written, and the query string. So
// nothing of the address can be changed, and there is no second way to write
// it.

// signingKey makes addresses, and says what they may be of.
type signingKey struct {
	name   string
	secret []byte
	// fields are what of a profile may be read by a signed address; content
	// always may.
	fields []string
	rate   limit
}

const (
	signatureParameter = "&signature="
	expiresParameter   = "expires="
	keyParameter       = "key="
)

// isSigned tells whether an address claims to be signed.
func isSigned(u *url.URL) bool { return strings.Contains(u.RawQuery, signatureParameter) }

var (
	badSignature = problem{status: http.StatusUnauthorized, code: "invalid_signature",
		message: "the address is not one that a known key signed: it ends in expires=, key= and signature=, and is used as it was made"}
	expired = problem{status: http.StatusGone, code: "expired",
		message: "the signed address has expired"}
)

// checkSigned returns whose key signed the address of a request, and the
// request as it is without the signature.
func (c *credentials) checkSigned(r *http.Request, to *route, now time.Time) (caller, *http.Request, *problem) {
	query, presented, _ := strings.Cut(r.URL.RawQuery, signatureParameter)
	signature, err := hex.DecodeString(presented)
	if err != nil || len(signature) != sha256.Size {
		return caller{}, r, &badSignature
	}
	var rest []string
	var name, expires string
	for part := range strings.SplitSeq(query, "&") {
		switch {
		case strings.HasPrefix(part, keyParameter) && name == "":
			name = part[len(keyParameter):]
		case strings.HasPrefix(part, expiresParameter) && expires == "":
			expires = part[len(expiresParameter):]
		default:
			rest = append(rest, part)
		}
	}
	at := slices.IndexFunc(c.keys, func(k signingKey) bool { return k.name == name })
	if at < 0 {
		return caller{}, r, &badSignature
	}
	k := &c.keys[at]
	if !hmac.Equal(signature, sign(k.secret, r.URL.EscapedPath()+"?"+query)) {
		return caller{}, r, &badSignature
	}
	until, err := strconv.ParseInt(expires, 10, 64)
	if err != nil {
		return caller{}, r, &badSignature
	}
	if now.Unix() >= until {
		return caller{}, r, &expired
	}
	plain := *r
	address := *r.URL
	address.RawQuery = strings.Join(rest, "&")
	plain.URL = &address
	who := caller{name: k.name}
	if to != nil && k.allows(to, &address) {
		who.scopes = to.scope
	}
	return who, &plain, k.rate.take(now)
}

// signable tells whether the address of a route may be signed: it fetches
// content, or the profile of one customer.
func (r *route) signable() bool {
	return r.method == http.MethodGet && (r.scope == scopeContent || r.scope == scopeRead && r.page == "customer")
}

// allows tells whether what an address names may be had by it: content, and of
// a profile the fields that are named.
func (k *signingKey) allows(to *route, address *url.URL) bool {
	switch {
	case !to.signable():
		return false
	case to.scope == scopeContent:
		return true
	}
	q, refusal := parseQuestion(address.RawQuery)
	if refusal != nil || len(q.Fields) == 0 {
		return false
	}
	for _, field := range q.Fields {
		part, _, _ := strings.Cut(field, ".")
		if !slices.Contains(k.fields, field) && !slices.Contains(k.fields, part) {
			return false
		}
	}
	return true
}

// sign returns the signature of the path and query of an address.
func sign(secret []byte, target string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(target))
	return mac.Sum(nil)
}

// SignURL returns an address that whoever has it may use until it expires: the
// one given, with what shows that the key of a name signed it.
func SignURL(address *url.URL, key string, secret []byte, expires time.Time) *url.URL {
	signed := *address
	if signed.RawQuery != "" {
		signed.RawQuery += "&"
	}
	signed.RawQuery += expiresParameter + strconv.FormatInt(expires.Unix(), 10) + "&" + keyParameter + key
	signed.RawQuery += signatureParameter + hex.EncodeToString(sign(secret, signed.EscapedPath()+"?"+signed.RawQuery))
	return &signed
}
