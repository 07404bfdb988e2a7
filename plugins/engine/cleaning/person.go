package cleaning

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
)

// minSecret is the minimum key length that makes a brute-force search infeasible.
const minSecret = 16

var errSecret = &Fault{"key", "the key must have at least 16 characters; make one by: openssl rand -hex 32"}

// Pseudonym replaces personal data by a keyed hash: equal inputs have equal
// pseudonyms, and the input cannot be found without the key. A hash without a key
// is not enough, because all phone numbers and likely addresses can be tried.
type Pseudonym struct{ macs sync.Pool }

// NewPseudonym returns a Pseudonym for a key of at least 16 bytes.
func NewPseudonym(key []byte) (*Pseudonym, error) {
	if len(key) < minSecret {
		return nil, errSecret
	}
	key = append([]byte(nil), key...)
	return &Pseudonym{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}, nil
}

// Hash returns the HMAC-SHA256 of s in hex.
func (p *Pseudonym) Hash(s string) string {
	mac := p.macs.Get().(hash.Hash)
	mac.Reset()
	_, _ = mac.Write([]byte(s))
	sum := hex.EncodeToString(mac.Sum(nil))
	p.macs.Put(mac)
	return sum
}
