package record

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Identity says which ids make customers and how far they are merged.
type Identity struct {
	// Ignored are ids, in lower case, that stand for no customer.
	Ignored map[string]bool
	// IgnoreAddresses refuses e-mail addresses in place of ids.
	IgnoreAddresses bool
	// MaxMerged is how many ids may be merged into one customer, and
	// MaxShared how many customers may be identified with one anonymous id
	// before it is taken to identify nobody. 0 stands for no limit.
	MaxMerged, MaxShared int
	// MergeKnown lets an alias merge one known customer into another.
	MergeKnown bool
}

// DefaultIgnored are what programs write where they have no id.
var DefaultIgnored = []string{
	"null", "nil", "none", "undefined", "nan", "n/a", "na", "-", "unknown", "anonymous", "guest", "user", "test",
	"true", "false", "[object object]", "{}", "[]", "(none)", "not set", "(not set)", "id", "userid", "user_id", "anonymousid", "0", "-1",
}

// Known tells whether an id stands for a customer: it is none of the ignored,
// not blank, not made of zeros only (as the nil UUID is), and no address.
func (i *Identity) Valid(id []byte) bool {
	id = bytes.TrimSpace(id)
	if len(id) == 0 || len(bytes.Trim(id, "0-")) == 0 {
		return false
	}
	if i.IgnoreAddresses && bytes.IndexByte(id, '@') > 0 {
		return false
	}
	const longest = 32
	return len(id) > longest || len(i.Ignored) == 0 || !i.Ignored[strings.ToLower(string(id))]
}

// Claim notes that an anonymous id, which this record is of, was seen with the
// customer of a key other than the one it links to, and tells whether that is
// new. What is noted is bounded by limit.
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

// Claims returns how many customers other than the one it links to the
// anonymous id was seen with.
func (r *Record) SeenWithCount() int { return len(r.claims) / idSize }
