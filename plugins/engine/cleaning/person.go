package cleaning

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
)

// minSecret is the length of a key below which trying all keys is thinkable.
const minSecret = 16

var errSecret = &Fault{"key", "the key must have at least 16 characters; make one by: openssl rand -hex 32"}

// Pseudonym turns personal data into names that are the same for the same data
// and tell nobody without the key what it was. A plain hash does not: there are
// few enough addresses and phone numbers to try them all.
type Pseudonym struct{ macs sync.Pool }

// NewPseudonym returns the pseudonyms that belong to a key.
func NewPseudonym(key []byte) (*Pseudonym, error) {
	if len(key) < minSecret {
		return nil, errSecret
	}
	key = append([]byte(nil), key...)
	return &Pseudonym{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}, nil
}

// Of returns the HMAC-SHA256 of s in hex.
func (p *Pseudonym) Of(s string) string {
	mac := p.macs.Get().(hash.Hash)
	mac.Reset()
	_, _ = mac.Write([]byte(s))
	sum := hex.EncodeToString(mac.Sum(nil))
	p.macs.Put(mac)
	return sum
}
