package eventcollector

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// source is who sends events with a key.
type source struct {
	name       string
	serverSide bool
}

// writeKeys knows which source a key belongs to. It holds digests, so that
// every comparison takes the same time whatever the length of the keys.
type writeKeys struct {
	keys            []keyDigest
	anonymous       bool
	anonymousSource source
}

type keyDigest struct {
	sum  [sha256.Size]byte
	from source
}

// add returns false if the key is there already.
func (k *writeKeys) add(key string, from source) bool {
	if _, known := k.find([]byte(key)); known {
		return false
	}
	k.keys = append(k.keys, keyDigest{sha256.Sum256([]byte(key)), from})
	return true
}

// find looks at every key, whichever it is.
func (k *writeKeys) find(key []byte) (from source, known bool) {
	sum := sha256.Sum256(key)
	for i := range k.keys {
		if subtle.ConstantTimeCompare(sum[:], k.keys[i].sum[:]) == 1 {
			from, known = k.keys[i].from, true
		}
	}
	return from, known
}

// source tells who sends, from the key in the request, which is empty if there
// is none.
func (k *writeKeys) source(key []byte) (from source, known bool) {
	if k.anonymous && (len(key) == 0 || len(k.keys) == 0) {
		return k.anonymousSource, true
	}
	return k.find(key)
}

// basicUser is the user of Basic authentication, which carries the key. SDKs
// leave the password empty; old ones leave out even the colon.
func basicUser(header string) (user string, ok bool) {
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", true
	}
	user, _, _ = strings.Cut(string(decoded), ":")
	return user, true
}
