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

// IdentifierIndex, with an identifier's name after it, has the customers by the
// value of the identifier, as Identifier.Normalise writes it.
const IdentifierIndex = "id/"

// An Identifier is a trait by whose value a customer is found, such as an
// e-mail address. Nothing makes it the value of one customer only.
type Identifier struct {
	// Name is what it is asked for by.
	Name string
	// Trait has its value.
	Trait string
	// IgnoreCase finds a value however it is written in upper and lower case,
	// and with blanks around it.
	IgnoreCase bool
}

// Identifiers are those of a definition, in order of name.
type Identifiers []Identifier

// MaxIdentifierBytes is how long a value can be that a customer is found by. A
// longer one is as good as none.
const MaxIdentifierBytes = 256

// Named returns the identifier of a name, nil if there is none.
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

// Hash tells sets of identifiers apart. It is 0 for none.
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

// Index is the name of the identifier's index.
func (i *Identifier) Index() string { return IdentifierIndex + i.Name }

// Normalise returns the form in which values are compared, empty for one that
// nobody can be found by.
func (i *Identifier) Normalise(value string) string {
	// What is trimmed and in lower case may be shorter by far.
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

// of returns the identifier's value by a trait. Only texts and numbers identify
// somebody.
func (i *Identifier) value(v event.Value) string {
	switch v.Kind {
	case event.String:
		return i.Normalise(string(v.Text))
	case event.Number:
		return i.Normalise(string(features.AppendJSON(nil, v)))
	}
	return ""
}

// identifier is a value that a record's customer is found by.
type identifier struct {
	name, value []byte
}

// SetIdentifiers makes the values that the record's customer is found by those
// of the traits, and tells whether that changed any. Whoever writes a record in
// which a trait may have changed does this before. Neither a record that was
// merged into another nor a tombstone has any.
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
	// Both are in order of name, so what is the same stays where it is.
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
// The traits are parsed.
func (r *Record) trait(name string) event.Value {
	at, found := slices.BinarySearchFunc(r.traits, name, func(t trait, name string) int { return bytes.Compare(t.name, []byte(name)) })
	if !found {
		return event.Value{}
	}
	return r.traits[at].value
}

// VisitIdentifiers calls fn for every value that the record's customer is found
// by.
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
