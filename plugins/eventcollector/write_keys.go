package eventcollector

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// source is the sender of events with one key.
type source struct {
	name       string
	serverSide bool
	rate       *keyRate // nil means no limit
}

// writeKeys maps keys to sources. It stores digests, so that the time of a
// comparison does not depend on the length of a key.
type writeKeys struct {
	keys            []keyDigest
	anonymous       bool
	anonymousSource source
}

type keyDigest struct {
	sum  [sha256.Size]byte
	from source
}

// add reports whether the key is new.
func (k *writeKeys) add(key string, from source) bool {
	if _, known := k.find([]byte(key)); known {
		return false
	}
	k.keys = append(k.keys, keyDigest{sha256.Sum256([]byte(key)), from})
	return true
}

// find compares with every key, so that its time does not depend on the match.
func (k *writeKeys) find(key []byte) (from source, known bool) {
	sum := sha256.Sum256(key)
	for i := range k.keys {
		if subtle.ConstantTimeCompare(sum[:], k.keys[i].sum[:]) == 1 {
			from, known = k.keys[i].from, true
		}
	}
	return from, known
}

// source returns the source of a request with this key, empty for a request
// without a key.
func (k *writeKeys) source(key []byte) (from source, known bool) {
	if k.anonymous && (len(key) == 0 || len(k.keys) == 0) {
		return k.anonymousSource, true
	}
	return k.find(key)
}

// basicUser returns the user name of Basic authentication, which is the key. SDKs
// leave the password empty; old SDKs omit the colon too.
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
