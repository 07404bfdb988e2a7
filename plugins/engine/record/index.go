package record

import (
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
)

// Entry is an element of a store's index that refers to a record: the index
// maps Value to the record's key.
type Entry struct {
	Index string
	Value string
}

// Names of indexes.
const (
	// SegmentIndex is the prefix of the indexes of segments. The index
	// SegmentIndex+NAME contains the members of a segment, without values.
	SegmentIndex = "segment/"
	// OutboxIndex contains the customers with messages to deliver; the value
	// is the time from which the outbox can be claimed, in the form of
	// FormatTime.
	OutboxIndex = "outbox"
)

// FormatTime encodes a time in Unix milliseconds as the value of an index
// entry. The encoding preserves order.
func FormatTime(ms int64) string {
	const digits = "0123456789abcdef"
	var text [2 * timeSize]byte
	for i := range text {
		text[i] = digits[ms>>(4*(len(text)-1-i))&0xf]
	}
	return string(text[:])
}

// ParseTime decodes the form of FormatTime; ok is false for anything else.
func ParseTime(value string) (ms int64, ok bool) {
	n, err := strconv.ParseInt(value, 16, 64)
	return n, err == nil && len(value) == 2*timeSize
}

// Entries appends the record's index entries. They depend on the stored record
// alone, not on the definition or the present moment. A writer can therefore
// compute the changes of indexes from the record before and after (see Edits),
// and an index can be rebuilt by scanning all records.
func (r *Record) Entries(dst []Entry) []Entry {
	for _, m := range r.members {
		dst = append(dst, Entry{Index: segmentIndexes.name(m.name)})
	}
	if len(r.outbox) > 0 {
		dst = append(dst, Entry{OutboxIndex, FormatTime(r.OutboxDue())})
	}
	if due, ok := r.TriggersDue(); ok {
		dst = append(dst, Entry{TriggerIndex, FormatTime(due)})
	}
	for _, i := range r.identifiers {
		dst = append(dst, Entry{identifierIndexes.name(i.name), string(i.value)})
	}
	return dst
}

// HasEntry reports whether the record has an index entry.
func (r *Record) HasEntry(e Entry) bool {
	r.entriesBuffer = r.Entries(r.entriesBuffer[:0])
	return slices.Contains(r.entriesBuffer, e)
}

// Edits calls edit for every index entry that the record had when it was
// decoded and lacks now, then for every entry that was added. Call Clear first
// for a record that is to be deleted.
func (r *Record) Edits(edit func(e Entry, remove bool)) {
	if _, due := r.TriggersDue(); len(r.stored) == 0 && len(r.members) == 0 && len(r.outbox) == 0 && len(r.identifiers) == 0 && !due {
		return // the usual case
	}
	r.entriesBuffer = r.Entries(r.entriesBuffer[:0])
	for _, e := range r.stored {
		if !slices.Contains(r.entriesBuffer, e) {
			edit(e, true)
		}
	}
	for _, e := range r.entriesBuffer {
		if !slices.Contains(r.stored, e) {
			edit(e, false)
		}
	}
}

// indexNames caches the names of indexes by the name of a segment or
// identifier, because records are read far more often than definitions change.
type indexNames struct {
	prefix string
	known  atomic.Pointer[map[string]string]
}

var (
	segmentIndexes    = indexNames{prefix: SegmentIndex}
	identifierIndexes = indexNames{prefix: IdentifierIndex}
)

func (n *indexNames) name(suffix []byte) string {
	known := n.known.Load()
	if known != nil {
		if name, ok := (*known)[string(suffix)]; ok {
			return name
		}
	}
	name := n.prefix + string(suffix)
	names := map[string]string{string(suffix): name}
	const maxCached = 10_000
	if known != nil && len(*known) < maxCached {
		maps.Copy(names, *known)
	}
	n.known.CompareAndSwap(known, &names)
	return name
}
