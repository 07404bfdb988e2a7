package delivery

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Signer signs requests, so that the receiver can verify their sender.
type Signer struct {
	secrets [][]byte
	// header is the name of the header for a signature of the body alone. If it
	// is empty, the three headers of Standard Webhooks are set.
	header string
}

// NewBodySigner returns a Signer that sets a header (its name in canonical form) to "sha256=" and the HMAC-SHA256 of the body in hexadecimal digits.
func NewBodySigner(header, secret string) (*Signer, error) {
	if secret == "" {
		return nil, errors.New("the secret is empty")
	}
	return &Signer{secrets: [][]byte{[]byte(secret)}, header: header}, nil
}

// NewWebhookSigner returns a Signer that implements the Standard Webhooks
// specification (https://www.standardwebhooks.com). A secret is "whsec_" and
// base64. Each secret makes a signature, of which the receiver accepts any, so that
// secrets can be rotated.
func NewWebhookSigner(secrets ...string) (*Signer, error) {
	s := &Signer{}
	for _, text := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
		if err != nil || len(key) < 24 || len(key) > 64 {
			return nil, errors.New(`a secret is whsec_ and 24 to 64 bytes in base64: make one with printf 'whsec_%s' "$(openssl rand -base64 32)"`)
		}
		s.secrets = append(s.secrets, key)
	}
	if len(s.secrets) == 0 {
		return nil, errors.New("there is no secret")
	}
	return s, nil
}

// Sign sets the headers of a request.
func (s *Signer) Sign(h Header, body []byte, key string, now time.Time) {
	if s.header != "" {
		h.Set(s.header, "sha256="+hex.EncodeToString(mac(s.secrets[0], body)))
		return
	}
	id, timestamp := "msg_"+key, strconv.FormatInt(now.Unix(), 10)
	signatures := make([]string, len(s.secrets))
	for i, secret := range s.secrets {
		signed := mac(secret, []byte(id), []byte("."), []byte(timestamp), []byte("."), body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(signed)
	}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", timestamp)
	h.Set("Webhook-Signature", strings.Join(signatures, " "))
}

func mac(secret []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, secret)
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil)
}
