package profileapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/signedurl"
)

// signingKey signs URLs and limits what they grant.
type signingKey struct {
	name   string
	secret []byte
	// fields are the fields of a profile that a signed URL may read. Content is always
	// allowed.
	fields []string
	limits limits
}

var (
	badSignature = problem{status: http.StatusUnauthorized, code: "invalid_signature",
		message: "the signature is not valid: the URL must end in expires=, key= and signature= of a known key, and must not be changed"}
	expired = problem{status: http.StatusGone, code: "expired",
		message: "the signed URL has expired"}
)

// checkSigned returns the key that signed a request as its caller, and the request
// without the parameters of the signature.
func (c *credentials) checkSigned(r *http.Request, to *route, now time.Time) (caller, *http.Request, *problem) {
	signature, ok := signedurl.Parse(r.URL)
	if !ok {
		return caller{}, r, &badSignature
	}
	index := slices.IndexFunc(c.keys, func(k signingKey) bool { return k.name == signature.Key })
	if index < 0 || !signature.Verify(c.keys[index].secret) {
		return caller{}, r, &badSignature
	}
	if !now.Before(signature.Expires) {
		return caller{}, r, &expired
	}
	k := &c.keys[index]
	plain := *r
	plain.URL = signature.Plain
	signer := caller{name: k.name, profiles: &k.limits.profiles}
	if to != nil && k.allows(to, plain.URL) {
		signer.scopes = to.scope
	}
	return signer, &plain, k.limits.requests.take(now, 1)
}

// signable reports whether the URL of a route may be signed: it reads content, or the
// profile of one customer.
func (r *route) signable() bool {
	return r.method == http.MethodGet && (r.scope == scopeContent || r.scope == scopeRead && r.page == "customer")
}

// allows reports whether the key grants a request: content, or a profile with allowed
// fields only.
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
