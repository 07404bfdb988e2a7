package delivery

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Signer signs requests, so that whoever gets them knows who sent them.
type Signer struct {
	secrets [][]byte
	// header is of the signature of the body alone; without it the three
	// headers of Standard Webhooks are set.
	header string
}

// NewBodySigner returns a signer that puts the HMAC-SHA256 of the body into a
// header, as sha256= and hexadecimal digits.
func NewBodySigner(header, secret string) (*Signer, error) {
	if secret == "" {
		return nil, errors.New("the secret is empty")
	}
	return &Signer{secrets: [][]byte{[]byte(secret)}, header: header}, nil
}

// NewWebhookSigner returns a signer by the Standard Webhooks specification, of
// https://www.standardwebhooks.com. Secrets are whsec_ and base64. With more
// than one, all sign: the receiver accepts any, so that a secret can be replaced
// by another while both are known.
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
func (s *Signer) Sign(h http.Header, body []byte, key string, now time.Time) {
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
