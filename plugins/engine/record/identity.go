package record

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Identity configures identity resolution: which ids are valid, and the limits
// of merges.
type Identity struct {
	// Ignored are ids, in lower case, that identify no customer
	// (placeholders).
	Ignored map[string]bool
	// IgnoreAddresses rejects e-mail addresses as ids.
	IgnoreAddresses bool
	// MaxMerged is the maximum number of anonymous ids merged into one customer.
	// MaxShared is the maximum number of customers seen with one anonymous id;
	// above it the id identifies no customer. 0 means no limit.
	MaxMerged, MaxShared int
	// MergeKnown allows an alias event to merge one known customer into
	// another.
	MergeKnown bool
}

// DefaultIgnored are the placeholders that programs write in place of a
// missing id.
var DefaultIgnored = []string{
	"null", "nil", "none", "undefined", "nan", "n/a", "na", "-", "unknown", "anonymous", "guest", "user", "test",
	"true", "false", "object object", "not set", "not_set", "id", "userid", "user_id", "anonymousid", "0", "-1",
	"not_authenticated", "not authenticated", "unauthenticated", "not_logged_in", "not logged in", "logged_out", "logged out",
}

// Valid reports whether an id identifies a customer. Case and wrapping are
// ignored, so (null) is the placeholder null. Ignored ids, blank ids,
// ids of zeros only (such as the nil UUID) and, with IgnoreAddresses, e-mail
// addresses do not.
func (i *Identity) Valid(id []byte) bool {
	id = bytes.TrimSpace(id)
	if len(id) == 0 || len(bytes.Trim(id, "0-")) == 0 {
		return false
	}
	if i.IgnoreAddresses && bytes.IndexByte(id, '@') > 0 {
		return false
	}
	const longest = 32
	if len(id) > longest || len(i.Ignored) == 0 {
		return true
	}
	lower := strings.ToLower(string(id))
	bare := strings.Trim(lower, wrapping)
	return bare != "" && !i.Ignored[lower] && !i.Ignored[bare]
}

// wrapping are the characters that programs put around a placeholder, as in
// (null), <nil>, "undefined" with quotes and {}.
const wrapping = "()<>[]{}\"'`\\ \t"

// NoteSeenWith notes that the anonymous id of this record was seen with the
// customer of key, other than the customer that the record links to. It
// reports whether that is new. At most limit customers are noted; 0 means no
// limit.
func (r *Record) NoteSeenWith(key string, limit int) bool {
	var hash [idSize]byte
	binary.LittleEndian.PutUint64(hash[:], xxhash.Sum64String(key))
	n := len(r.claims) / idSize
	if limit > 0 && n >= limit {
		return false
	}
	at := 0
	for at < n && bytes.Compare(r.claims[at*idSize:(at+1)*idSize], hash[:]) < 0 {
		at++
	}
	if at < n && bytes.Equal(r.claims[at*idSize:(at+1)*idSize], hash[:]) {
		return false
	}
	r.claims = slices.Insert(r.claims[:len(r.claims):len(r.claims)], at*idSize, hash[:]...)
	return true
}

// SeenWithCount returns the number of customers noted by NoteSeenWith.
func (r *Record) SeenWithCount() int { return len(r.claims) / idSize }
