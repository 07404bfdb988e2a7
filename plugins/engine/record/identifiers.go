package record

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// IdentifierIndex is the prefix of the indexes of identifiers. The index
// IdentifierIndex+NAME maps a value, as returned by Identifier.Normalise, to
// customers.
const IdentifierIndex = "id/"

// An Identifier is a trait with a value by which a customer can be looked up, such as
// an e-mail address. A value need not be unique.
type Identifier struct {
	// Name is the name used in lookups.
	Name string
	// Trait is the name of the trait with the value.
	Trait string
	// IgnoreCase ignores case and surrounding blanks in lookups.
	IgnoreCase bool
}

// Identifiers are the identifiers of a definition, ordered by name.
type Identifiers []Identifier

// MaxIdentifierBytes is the maximum length of a value. A longer value cannot
// be looked up.
const MaxIdentifierBytes = 256

// Lookup returns the identifier with a name, nil if there is none.
func (ids Identifiers) Lookup(name string) *Identifier {
	at, found := slices.BinarySearchFunc(ids, name, func(i Identifier, name string) int { return strings.Compare(i.Name, name) })
	if !found {
		return nil
	}
	return &ids[at]
}

// Names returns the names, in order.
func (ids Identifiers) Names() []string {
	names := make([]string, len(ids))
	for i := range ids {
		names[i] = ids[i].Name
	}
	return names
}

// Hash identifies a set of identifiers. It is 0 for none.
func (ids Identifiers) Hash() uint32 {
	if len(ids) == 0 {
		return 0
	}
	h := fnv.New32a()
	for _, i := range ids {
		how := "exact"
		if i.IgnoreCase {
			how = "ignore_case"
		}
		for _, part := range []string{i.Name, i.Trait, how} {
			_, _ = h.Write([]byte(part))
			_, _ = h.Write([]byte{0})
		}
	}
	return max(h.Sum32(), 1)
}

// Index returns the name of the identifier's index.
func (i *Identifier) Index() string { return IdentifierIndex + i.Name }

// Normalise returns the form in which values are compared, empty for a value
// that cannot be looked up.
func (i *Identifier) Normalise(value string) string {
	// Trimming and lower case can shorten a value considerably.
	if len(value) > 4*MaxIdentifierBytes || !utf8.ValidString(value) {
		return ""
	}
	if i.IgnoreCase {
		value = strings.ToLower(strings.TrimSpace(value))
	}
	if len(value) > MaxIdentifierBytes {
		return ""
	}
	return value
}

// value returns the identifier's value for a trait. Only strings and numbers
// are values.
func (i *Identifier) value(v event.Value) string {
	switch v.Kind {
	case event.String:
		return i.Normalise(string(v.Text))
	case event.Number:
		return i.Normalise(string(features.AppendJSON(nil, v)))
	}
	return ""
}

// identifier is a value by which the record's customer can be looked up.
type identifier struct {
	name, value []byte
}

// SetIdentifiers sets the identifiers of the record from its traits and
// reports whether any changed. Call it before writing a record with traits
// that may have changed. A record that was merged into another, and a tombstone,
// have none.
func (r *Record) SetIdentifiers() (changed bool, err error) {
	if len(r.def.Identifiers) == 0 && len(r.identifiers) == 0 {
		return false, nil
	}
	if len(r.def.Identifiers) == 0 || len(r.link) > 0 || r.Erased() {
		changed = len(r.identifiers) > 0
		r.identifiers = r.identifiers[:0]
		return changed, nil
	}
	if err := r.parseTraits(); err != nil {
		return false, err
	}
	// Both lists are ordered by name, so unchanged identifiers stay in place.
	n := 0
	for at := range r.def.Identifiers {
		i := &r.def.Identifiers[at]
		value := i.value(r.trait(i.Trait))
		if value == "" {
			continue
		}
		if n < len(r.identifiers) && string(r.identifiers[n].name) == i.Name && string(r.identifiers[n].value) == value {
			n++
			continue
		}
		changed = true
		r.identifiers = append(r.identifiers[:n], identifier{[]byte(i.Name), []byte(value)})
		n++
	}
	changed = changed || n < len(r.identifiers)
	r.identifiers = r.identifiers[:n]
	return changed, nil
}

// trait returns the value of a trait, Missing if it is unset or was never set.
// The traits must be parsed.
func (r *Record) trait(name string) event.Value {
	at, found := slices.BinarySearchFunc(r.traits, name, func(t trait, name string) int { return bytes.Compare(t.name, []byte(name)) })
	if !found {
		return event.Value{}
	}
	return r.traits[at].value
}

// VisitIdentifiers calls fn for every identifier of the record.
func (r *Record) VisitIdentifiers(fn func(name, value string)) {
	for _, i := range r.identifiers {
		fn(string(i.name), string(i.value))
	}
}

func (r *Record) readIdentifiers(src []byte) error {
	for len(src) > 0 {
		var i identifier
		for _, part := range []*[]byte{&i.name, &i.value} {
			n, width := binary.Uvarint(src)
			if width <= 0 || n == 0 || n > uint64(len(src)-width) {
				return ErrCorrupt
			}
			*part, src = src[width:width+int(n)], src[width+int(n):]
		}
		if last := len(r.identifiers) - 1; last >= 0 && bytes.Compare(r.identifiers[last].name, i.name) >= 0 {
			return ErrCorrupt
		}
		r.identifiers = append(r.identifiers, i)
	}
	return nil
}

func (r *Record) appendIdentifiers(dst []byte) []byte {
	for _, i := range r.identifiers {
		dst = binary.AppendUvarint(dst, uint64(len(i.name)))
		dst = append(dst, i.name...)
		dst = binary.AppendUvarint(dst, uint64(len(i.value)))
		dst = append(dst, i.value...)
	}
	return dst
}
