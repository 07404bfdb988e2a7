package record

import (
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
)

// Entry is an element of a store's index that points at a record: the record's
// key is to be found in Index under Value.
type Entry struct {
	Index string
	Value string
}

// The indexes of records.
const (
	// SegmentIndex, with a segment's name after it, has the customers whose
	// records hold them to be in the segment, without values.
	SegmentIndex = "segment/"
	// OutboxIndex has the customers with messages to deliver, by the time from
	// which they may be, as TimeValue writes it.
	OutboxIndex = "outbox"
)

// TimeValue is a time, in Unix milliseconds, as the value of an index entry, so
// that values sort as times do.
func FormatTime(ms int64) string {
	const digits = "0123456789abcdef"
	var text [2 * timeSize]byte
	for i := range text {
		text[i] = digits[ms>>(4*(len(text)-1-i))&0xf]
	}
	return string(text[:])
}

// ValueTime undoes TimeValue; ok is false if the value is not a time.
func ParseTime(value string) (ms int64, ok bool) {
	n, err := strconv.ParseInt(value, 16, 64)
	return n, err == nil && len(value) == 2*timeSize
}

// Entries appends the index entries a record has. They follow from what is
// stored in the record alone, neither from its definition nor from the moment:
// whoever writes a record can so tell what to add to the indexes and what to
// remove (Edits), and an index is made anew by going over all records.
func (r *Record) Entries(dst []Entry) []Entry {
	for _, m := range r.members {
		dst = append(dst, Entry{Index: segmentIndexes.name(m.name)})
	}
	if len(r.outbox) > 0 {
		dst = append(dst, Entry{OutboxIndex, FormatTime(r.OutboxDue())})
	}
	if due, some := r.TriggersDue(); some {
		dst = append(dst, Entry{TriggerIndex, FormatTime(due)})
	}
	for _, i := range r.identifiers {
		dst = append(dst, Entry{identifierIndexes.name(i.name), string(i.value)})
	}
	return dst
}

// Has tells whether an entry is among those a record has.
func (r *Record) HasEntry(e Entry) bool {
	r.entriesBuffer = r.Entries(r.entriesBuffer[:0])
	return slices.Contains(r.entriesBuffer, e)
}

// Edits calls edit for every entry that the record had when it was decoded and
// no longer has, then for every one that it has gained. Clear a record that is
// to be deleted first.
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

// indexNames are the names of the indexes of something that has a name itself,
// by that name: records are read far more often than segments are named.
type indexNames struct {
	prefix string
	known  atomic.Pointer[map[string]string]
}

var (
	segmentIndexes    = indexNames{prefix: SegmentIndex}
	identifierIndexes = indexNames{prefix: IdentifierIndex}
)

func (n *indexNames) name(what []byte) string {
	known := n.known.Load()
	if known != nil {
		if name, ok := (*known)[string(what)]; ok {
			return name
		}
	}
	name := n.prefix + string(what)
	more := map[string]string{string(what): name}
	const most = 10_000
	if known != nil && len(*known) < most {
		maps.Copy(more, *known)
	}
	n.known.CompareAndSwap(known, &more)
	return name
}
