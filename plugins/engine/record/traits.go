package record

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Sources ranks the sources of traits, the most trusted first. An unlisted
// source ranks below all listed ones.
type Sources []string

func (s Sources) rank(source []byte) int {
	for i, name := range s {
		if name == string(source) {
			return i
		}
	}
	return len(s)
}

// Statement is the provenance of a trait: a source stated it at a time. Time is
// in Unix milliseconds; Nanos are the nanoseconds after it, 0 to 999,999.
type Statement struct {
	Time   int64
	Nanos  int32
	Source []byte
}

// SetTrait applies a statement of an attribute; a Missing value unsets it. The
// later statement wins (last-write-wins), to the nanosecond. Of two at the same
// time, the one of the higher ranked source wins, and among equals the one with
// source and value later in byte order, so that the result does not depend on
// the order of arrival. SetTrait reports whether the record changed. The record
// keeps name, source and the value's Text.
func (r *Record) SetTrait(name []byte, v event.Value, s Statement) (bool, error) {
	if err := r.parseTraits(); err != nil {
		return false, err
	}
	return r.putTrait(trait{name, s.Time, s.Nanos, s.Source, v}), nil
}

// TraitCountWith returns the number of traits that the record has after traits with
// these names are set.
func (r *Record) TraitCountWith(names [][]byte) (int, error) {
	if err := r.parseTraits(); err != nil {
		return 0, err
	}
	n := len(r.traits)
	for i, name := range names {
		known := slices.ContainsFunc(names[:i], func(o []byte) bool { return bytes.Equal(o, name) })
		if _, found := slices.BinarySearchFunc(r.traits, name, func(o trait, name []byte) int { return bytes.Compare(o.name, name) }); !found && !known {
			n++
		}
	}
	return n, nil
}

func (r *Record) putTrait(t trait) bool {
	at, found := slices.BinarySearchFunc(r.traits, t.name, func(o trait, name []byte) int { return bytes.Compare(o.name, name) })
	if !found {
		r.traits = slices.Insert(r.traits, at, t)
		return true
	}
	if t.compare(r.traits[at], r.def.Sources) <= 0 {
		return false
	}
	r.traits[at] = t
	return true
}

// compare orders the statements of one attribute; the greatest is in effect.
func (t trait) compare(o trait, ranks Sources) int {
	return cmp.Or(
		cmp.Compare(t.time, o.time),
		cmp.Compare(t.nanos, o.nanos),
		cmp.Compare(ranks.rank(o.source), ranks.rank(t.source)),
		bytes.Compare(t.source, o.source),
		bytes.Compare(features.AppendValue(nil, t.value), features.AppendValue(nil, o.value)),
	)
}
