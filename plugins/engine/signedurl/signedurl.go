// Package signedurl signs URLs that grant access to one resource until they expire,
// for clients that cannot send headers. Example:
//
//	/api/customer/42/content/hero?expires=1798761600&key=braze&signature=5f…
//
// The parameter signature comes last. It is the HMAC-SHA256, in hexadecimal, of the
// path and query before &signature=, as written. So no part of the URL can be changed,
// and there is no second spelling of it. Any tool with HMAC can sign:
//
//	printf %s '/api/customer/42/content/hero?expires=1798761600&key=braze' |
//		openssl dgst -sha256 -hmac "$SECRET"
package signedurl

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// MinSecret is the minimum length of a secret, in characters.
const MinSecret = 32

const (
	signatureParameter = "&signature="
	expiresParameter   = "expires="
	keyParameter       = "key="
)

// Sign returns a URL with the parameters of a signature by the key of this name, valid
// until expires.
func Sign(u *url.URL, key string, secret []byte, expires time.Time) *url.URL {
	signed := *u
	if signed.RawQuery != "" {
		signed.RawQuery += "&"
	}
	signed.RawQuery += expiresParameter + strconv.FormatInt(expires.Unix(), 10) + "&" + keyParameter + key
	signed.RawQuery += signatureParameter + hex.EncodeToString(mac(secret, signed.EscapedPath()+"?"+signed.RawQuery))
	return &signed
}

func mac(secret []byte, target string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(target))
	return h.Sum(nil)
}

// IsSigned reports whether a URL has a signature, valid or not.
func IsSigned(u *url.URL) bool { return strings.Contains(u.RawQuery, signatureParameter) }

// signature is the signature of a URL, not yet verified.
type signature struct {
	// Key is the name of the key.
	Key string
	// Expires is the end of the validity. Use it after Verify only.
	Expires time.Time
	// Plain is the URL without the parameters of the signature.
	Plain *url.URL

	target string
	mac    []byte
}

// Parse parses a signed URL. It reports false if the parameters of the signature are
// missing or malformed.
func Parse(u *url.URL) (signature, bool) {
	query, presented, _ := strings.Cut(u.RawQuery, signatureParameter)
	decoded, err := hex.DecodeString(presented)
	if err != nil || len(decoded) != sha256.Size {
		return signature{}, false
	}
	var rest []string
	var key, expires string
	for part := range strings.SplitSeq(query, "&") {
		switch {
		case strings.HasPrefix(part, keyParameter) && key == "":
			key = part[len(keyParameter):]
		case strings.HasPrefix(part, expiresParameter) && expires == "":
			expires = part[len(expiresParameter):]
		default:
			rest = append(rest, part)
		}
	}
	until, err := strconv.ParseInt(expires, 10, 64)
	if err != nil {
		return signature{}, false
	}
	plain := *u
	plain.RawQuery = strings.Join(rest, "&")
	return signature{Key: key, Expires: time.Unix(until, 0), Plain: &plain, target: u.EscapedPath() + "?" + query, mac: decoded}, true
}

// Verify reports whether the signature was made with the secret.
func (s *signature) Verify(secret []byte) bool { return hmac.Equal(s.mac, mac(secret, s.target)) }
