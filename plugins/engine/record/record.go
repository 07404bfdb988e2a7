// Package record defines the record of one customer: the stored events and
// traits, the operations that apply an event or merge another record, the
// stored form, and the profile as of any moment.
//
// # A record is a log
//
// For each event that a feature uses, a record keeps the time, the hash of the
// messageId and the few values that features read, ordered by time. Every
// feature is computed from this log by its definition: exactly, independent of
// the order of arrival, as of any moment, and even for a feature that is
// declared later over the same events. Two customers are merged by the union
// of their logs, and a repeated event is recognised by its hash:
//
//	apply 10:00 m1, 10:07 m3, 10:02 m2, 10:00 m1 (again)
//	log   10:00 m1, 10:02 m2, 10:07 m3
//
// # Stored form
//
// All integers are little endian; uvarint and varint are those of
// encoding/binary.
//
//	record   = version sections checksum
//	version  = 0x01
//	sections = { tag(1 byte) length(uvarint) content(length bytes) }
//	checksum = low 4 bytes of XXH64(key ++ everything before the checksum)
//
// Each section occurs at most once, in the order of tags, and only if it has
// content:
//
//	1 times   updated_at(6): the latest receivedAt, Unix milliseconds
//	2 series  { fingerprint(8) uvarint(layout | since<<3) }: the series of the
//	          log's extracts; since is the receivedAt up to which no events
//	          were kept for it, 0 if all are kept
//	3 log     { uvarint(n) time(6) id(8) extract(n-14) }: ordered by time, id;
//	          extract is the result of features.Definition.Extract
//	4 traits  { uvarint(n) name(n) time(6) uvarint(m) source(m) nanos value }:
//	          ordered by name; value as features.AppendValue, missing if unset;
//	          nanos is 0x20 uvarint(nanoseconds after time), absent for 0
//	5 link    the key of the record that this customer was merged into
//	6 merged  { uvarint(n) key(n) }: the keys merged into this record, ordered
//	7 folded  time(6) id(8) { id(8) }: the latest folded event, and the ids of
//	          the last folded events
//	8 tiles   { uvarint(series) uvarint(n) tiles(n) }: the folded events, by
//	          position of the series; tiles as features.Tiles
//	9 claims  { hash(8) }: hashes of the keys of other customers that an
//	          anonymous id was seen with, ordered
//	10 segments
//	          time(6) rules(4) { uvarint(n) name(n) since(6) }: the moment of the
//	          last evaluation, the fingerprint of its rules and parameters, and
//	          the segments the customer is in, since when; ordered by name.
//	          Then, if the customer left segments that a trigger uses, or
//	          toggles > 0: 0 and a list of the same form, with the times of
//	          leaving. Then, if toggles > 0: 0 and uvarint(toggles), the number
//	          of times that the customer, at the moment of the last evaluation,
//	          left a segment entered at that moment
//	11 outbox lease(6) { uvarint(n) time(6) id(16) content(n-22) }: the end of
//	          the lease, and the messages to deliver, oldest first
//	12 triggers
//	          when the first trigger is due, and the decided causes: as
//	          triggers.State
//	13 erasure
//	          time(6) time(6): the latest erasure, and the readmission, 0 for
//	          none
//	14 identifiers
//	          { uvarint(n) name(n) uvarint(m) value(m) }: the normalised values
//	          by which the customer can be looked up; ordered by name
//	15 folded times
//	          time(6) { uvarint(distance) }: the time from which folded events are
//	          remembered, and the times of the ids of section 7, each as the
//	          distance to the one before
//
// While no event is folded, the same events under the same definition give the
// same record to the byte, whatever their order, repetition or batches.
//
// # Heavy customers
//
// When a log exceeds its limit, its oldest events are folded into tiles. From
// then on features are within the bounds that features.Tiles documents. An
// event that is older than the latest folded one is folded at once. The record
// remembers the ids of the latest 1,024 folded events. An event that is older
// than all of these is not counted, because it cannot be distinguished from a
// repetition: a replay never counts an event again.
package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
)

const formatVersion = 1

const (
	sectionTimes = 1 + iota
	sectionSeries
	sectionLog
	sectionTraits
	sectionLink
	sectionMerged
	sectionFolded
	sectionTiles
	sectionClaims
	sectionSegments
	sectionOutbox
	sectionTriggers
	sectionErasure
	sectionIdentifiers
	sectionFoldedTimes
)

const (
	timeSize     = 6
	idSize       = 8
	entryHeader  = timeSize + idSize
	checksumSize = 4
)

// MaxTime is the end of the range of times, in Unix milliseconds, that a
// record can store; the range begins in 1970.
const MaxTime = 1 << (8 * timeSize)

var (
	// ErrCorrupt is returned for stored bytes that are not a complete record.
	ErrCorrupt = errors.New("profile record is corrupt")
	// ErrVersion is returned for a record in an unknown format version.
	ErrVersion = errors.New("profile record is of an unknown format version")
)

// Fact is the contribution of one event to a record.
type Fact struct {
	// Time and ReceivedAt are those of the event, in Unix milliseconds.
	Time, ReceivedAt int64
	// ID is HashID of the event's messageId.
	ID uint64
	// Extract is the result of features.Definition.Extract. It is empty for an
	// event of which only the id is kept.
	Extract []byte
}

// HashID returns the hash that identifies a messageId in a record. For a
// customer with fewer than 5,000 events, the probability of a collision is
// below 1 in 10^12.
func HashID(messageID []byte) uint64 { return xxhash.Sum64(messageID) }

// Definition is everything that determines the profiles of customers.
type Definition struct {
	Features *features.Definition
	// Segments are evaluated with every change; nil if there are none.
	Segments *segments.Set
	// Sources ranks the sources of traits.
	Sources Sources
	// Identity configures identity resolution.
	Identity Identity
	// MaxFuture is the maximum, in milliseconds, by which an event's timestamp
	// may exceed its receivedAt.
	MaxFuture int64
	// Events is the number of a customer's events that are kept individually;
	// 0 means DefaultEvents.
	Events int
	// Triggers are the rules for messages, nil if there are none. The series
	// of their events are among those of Features.
	Triggers *triggers.Set
	// Identifiers are the traits by which customers can be looked up, besides
	// their ids.
	Identifiers Identifiers
	// Traits limits the traits that events may set.
	Traits TraitLimits
}

// TraitLimits are limits on the traits of a customer; 0 means no limit. Sizes are in
// bytes.
type TraitLimits struct{ Count, NameSize, ValueSize int }

// DefaultEvents is the default of Definition.Events.
const DefaultEvents = 512

const (
	// maxLogBytes limits the log of customers with large events.
	maxLogBytes = 24 << 10
	// maxFoldedIDs is the number of folded events that are recognised when
	// they are sent again.
	maxFoldedIDs = 1024
)

func (d *Definition) events() int {
	if d.Events > 0 {
		return d.Events
	}
	return DefaultEvents
}

// Record is the state of one customer under a definition. It is not safe for
// concurrent use. Call Reset or Decode before any other method; a Record can
// be reused.
type Record struct {
	def         *Definition
	updatedAt   int64
	series      []seriesState
	layouts     []features.Layout
	log         []byte
	logOwned    bool
	buffers     [2][]byte // for logs under change; one of them may be the log
	entries     int
	last        logPosition // the latest event, folded or not
	folded      logPosition // the latest folded event; its time is -1 for none
	foldedIDs   []byte      // ids of the remembered folded events, ordered by time
	foldedTimes []byte      // times of the same, each as its distance to the one before
	tiles       [][]byte    // by position of the series
	rawTraits   []byte
	traits      []trait
	parsed      bool
	link        []byte
	merged      [][]byte
	claims      []byte
	members     []member // segments the customer is in, by name
	left        []member // segments the customer left and a trigger uses, by name
	evaluatedAt int64    // the moment of the last evaluation of segments, 0 for never
	evaluatedBy uint32   // the fingerprint of its rules and parameters
	toggles     uint64   // how often, at evaluatedAt, a segment entered at that moment was left
	outbox      []Message
	lease       int64
	mergeLeaves []transition // of merged customers, not yet enqueued
	triggers    triggers.State
	scratch     []byte

	erasedAt, readmittedAt int64
	rememberedFrom         int64 // folded events before this time are forgotten

	identifiers []identifier // by name

	stored        []Entry // the index entries of the decoded record
	entriesBuffer []Entry
}

// seriesState is a series of this record. The series of the definition come
// first and in its order, then those of other definitions for which the log
// contains values.
type seriesState struct {
	fingerprint uint64
	since       int64
}

// never precedes every event.
var never = logPosition{time: -1}

type logPosition struct {
	time int64
	id   uint64
}

func (p logPosition) compare(o logPosition) int {
	switch {
	case p.time != o.time:
		if p.time < o.time {
			return -1
		}
		return 1
	case p.id != o.id:
		if p.id < o.id {
			return -1
		}
		return 1
	}
	return 0
}

// Reset empties the record: the state of a new customer.
func (r *Record) Reset(def *Definition) {
	r.stored = r.stored[:0]
	r.clear(def)
}

// Clear deletes the content of the record. Unlike Reset it keeps the index
// entries of the decoded record, which Edits then removes.
func (r *Record) Clear() { r.clear(r.def) }

func (r *Record) clear(def *Definition) {
	clear(r.tiles)
	clear(r.outbox)
	r.triggers.Reset()
	*r = Record{
		def: def, series: r.series[:0], layouts: r.layouts[:0], traits: r.traits[:0],
		merged: r.merged[:0], tiles: r.tiles[:0], scratch: r.scratch[:0], last: never, folded: never,
		buffers: r.buffers, members: r.members[:0], outbox: r.outbox[:0], triggers: r.triggers,
		stored: r.stored, entriesBuffer: r.entriesBuffer, identifiers: r.identifiers[:0],
	}
	for i := range def.Features.Series {
		r.series = append(r.series, seriesState{fingerprint: def.Features.Series[i].Fingerprint})
		r.layouts = append(r.layouts, def.Features.Series[i].Layout)
	}
}

// Decode decodes data, stored under key. The record keeps parts of data, which
// must not change while the record is used.
func (r *Record) Decode(def *Definition, key string, data []byte) error {
	r.Reset(def)
	if len(data) < 1+checksumSize {
		return ErrCorrupt
	}
	if data[0] != formatVersion {
		return fmt.Errorf("%w: %d", ErrVersion, data[0])
	}
	body := data[:len(data)-checksumSize]
	if checksum(key, body) != binary.LittleEndian.Uint32(data[len(body):]) {
		return ErrCorrupt
	}
	var table, tiles []byte
	for rest, tag := body[1:], byte(0); len(rest) > 0; {
		n, width := binary.Uvarint(rest[1:])
		if rest[0] <= tag || width <= 0 || n == 0 || n > uint64(len(rest)-1-width) {
			return ErrCorrupt
		}
		tag = rest[0]
		content := rest[1+width:][:n]
		rest = rest[1+width+int(n):]
		switch tag {
		case sectionTimes:
			if len(content) != timeSize {
				return ErrCorrupt
			}
			r.updatedAt = readTime(content)
		case sectionSeries:
			table = content
		case sectionLog:
			r.log = content[:len(content):len(content)]
		case sectionTraits:
			r.rawTraits = content
		case sectionLink:
			r.link = content
		case sectionMerged:
			for len(content) > 0 {
				n, width := binary.Uvarint(content)
				if width <= 0 || n > uint64(len(content)-width) {
					return ErrCorrupt
				}
				r.merged = append(r.merged, content[width:width+int(n)])
				content = content[width+int(n):]
			}
		case sectionFolded:
			if len(content) < entryHeader || (len(content)-entryHeader)%idSize != 0 {
				return ErrCorrupt
			}
			r.folded = logPosition{readTime(content), binary.LittleEndian.Uint64(content[timeSize:])}
			r.foldedIDs = content[entryHeader:]
			// Without section 15 no late event can be recognised as new.
			r.rememberedFrom = r.folded.time + 1
		case sectionTiles:
			tiles = content
		case sectionClaims:
			if len(content)%idSize != 0 {
				return ErrCorrupt
			}
			r.claims = content
		case sectionSegments:
			if err := r.readMembers(content); err != nil {
				return err
			}
		case sectionOutbox:
			if err := r.readOutbox(content); err != nil {
				return err
			}
		case sectionTriggers:
			if r.triggers.Read(content) != nil {
				return ErrCorrupt
			}
		case sectionErasure:
			if err := r.readErasure(content); err != nil {
				return err
			}
		case sectionIdentifiers:
			if err := r.readIdentifiers(content); err != nil {
				return err
			}
		case sectionFoldedTimes:
			if err := r.readFoldedTimes(content); err != nil {
				return err
			}
		default:
			return ErrCorrupt
		}
	}
	r.stored = r.Entries(r.stored)
	if err := r.readSeries(table, tiles); err != nil {
		return err
	}
	return r.check()
}

// readSeries maps the series of the stored record to those of the definition.
func (r *Record) readSeries(table, tiles []byte) error {
	var oldBuffer [32]seriesState
	old := oldBuffer[:0]
	var layoutBuffer [32]features.Layout
	oldLayouts := layoutBuffer[:0]
	same := true
	for len(table) > 0 {
		if len(table) < 9 {
			return ErrCorrupt
		}
		s := seriesState{fingerprint: binary.LittleEndian.Uint64(table)}
		packed, width := binary.Uvarint(table[8:])
		layout := features.Layout(packed & 7)
		if width <= 0 || !layout.Valid() || packed>>3 >= MaxTime {
			return ErrCorrupt
		}
		s.since = int64(packed >> 3)
		table = table[8+width:]
		i := len(old)
		same = same && i < len(r.series) && r.series[i].fingerprint == s.fingerprint && r.layouts[i] == layout
		old = append(old, s)
		oldLayouts = append(oldLayouts, layout)
	}
	if same && len(old) == len(r.series) {
		copy(r.series, old)
		return r.readTiles(tiles, nil, len(old))
	}
	to := make([]int, len(old))
	for i := range r.series {
		r.series[i].since = r.updatedAt
	}
	for i, s := range old {
		at := slices.IndexFunc(r.series, func(o seriesState) bool { return o.fingerprint == s.fingerprint })
		if at >= 0 && r.layouts[at] == oldLayouts[i] {
			r.series[at].since = s.since
		} else {
			at = len(r.series)
			r.series = append(r.series, s)
			r.layouts = append(r.layouts, oldLayouts[i])
		}
		to[i] = at
	}
	if err := r.readTiles(tiles, to, len(old)); err != nil {
		return err
	}
	return r.renumber(oldLayouts, to)
}

// readTiles decodes the tiles of n series. If to is not nil, it maps the
// positions of series.
func (r *Record) readTiles(src []byte, to []int, n int) error {
	for len(src) > 0 {
		at, width := binary.Uvarint(src)
		if width <= 0 || at >= uint64(n) {
			return ErrCorrupt
		}
		size, more := binary.Uvarint(src[width:])
		if more <= 0 || size > uint64(len(src)-width-more) {
			return ErrCorrupt
		}
		content := src[width+more:][:size]
		src = src[width+more+int(size):]
		if to != nil {
			at = uint64(to[at])
		}
		r.setTiles(int(at), content)
	}
	return nil
}

func (r *Record) setTiles(at int, content []byte) {
	for len(r.tiles) <= at {
		r.tiles = append(r.tiles, nil)
	}
	r.tiles[at] = content
}

// tilesOf returns the stored tiles of a series, nil for none.
func (r *Record) tilesOf(series int) []byte {
	if series < len(r.tiles) {
		return r.tiles[series]
	}
	return nil
}

// renumber rewrites the log after series have moved.
func (r *Record) renumber(layouts []features.Layout, to []int) error {
	var moved []byte
	var failed error
	err := r.walk(func(_ int, at logPosition, extract []byte) bool {
		if len(extract) > 0 {
			r.scratch, failed = features.Renumber(r.scratch[:0], extract, layouts, to)
			extract = r.scratch
		}
		moved = appendEntry(moved, at, extract)
		return failed == nil
	})
	if err != nil || failed != nil {
		return ErrCorrupt
	}
	r.log, r.logOwned = moved, true
	return nil
}

// entryAt returns the entry at an offset of the log, and the width of its
// length field. The width is 0 if the entry is incomplete.
func entryAt(log []byte, offset int) (entry []byte, width int) {
	// The length of all but large entries is one byte.
	if n := log[offset]; n < 0x80 && n >= entryHeader && int(n) < len(log)-offset {
		return log[offset+1 : offset+1+int(n)], 1
	}
	n, width := binary.Uvarint(log[offset:])
	if width <= 0 || n < entryHeader || n > uint64(len(log)-offset-width) {
		return nil, 0
	}
	return log[offset+width:][:n], width
}

func positionOf(entry []byte) logPosition {
	return logPosition{readTime(entry), binary.LittleEndian.Uint64(entry[timeSize:])}
}

// walk calls fn for each entry of the log with its offset, until fn returns
// false.
func (r *Record) walk(fn func(offset int, at logPosition, extract []byte) bool) error {
	for offset := 0; offset < len(r.log); {
		entry, width := entryAt(r.log, offset)
		if width == 0 {
			return ErrCorrupt
		}
		if !fn(offset, positionOf(entry), entry[entryHeader:]) {
			return nil
		}
		offset += width + len(entry)
	}
	return nil
}

// check validates that the entries are complete and in order, counts them and
// finds the last.
func (r *Record) check() error {
	r.last = r.folded
	for offset := 0; offset < len(r.log); {
		entry, width := entryAt(r.log, offset)
		if width == 0 {
			return ErrCorrupt
		}
		at := positionOf(entry)
		if at.compare(r.last) <= 0 {
			return ErrCorrupt
		}
		r.last = at
		r.entries++
		offset += width + len(entry)
	}
	return nil
}

// find reports whether the log contains an event and, if not, the offset at
// which to insert it.
func (r *Record) find(at logPosition) (offset int, there bool) {
	var id [idSize]byte
	binary.LittleEndian.PutUint64(id[:], at.id)
	insert := -1
	later := at.compare(r.last) > 0
	for offset := 0; offset < len(r.log); {
		// The log was validated when it was decoded.
		entry, width := entryAt(r.log, offset)
		if [idSize]byte(entry[timeSize:entryHeader]) == id {
			return 0, true
		}
		if !later && insert < 0 && positionOf(entry).compare(at) > 0 {
			insert = offset
		}
		offset += width + len(entry)
	}
	if insert < 0 {
		insert = len(r.log)
	}
	return insert, false
}

// Apply adds an event to the record and reports whether the record changed: a
// repeated event changes nothing. After an error, which is ErrCorrupt, the
// record must not be stored.
func (r *Record) Apply(f Fact) (bool, error) { return r.apply(false, f) }

// apply applies an event. isNew is true for one that cannot be a repetition of an
// event that the record has forgotten.
func (r *Record) apply(isNew bool, f Fact) (bool, error) {
	at := logPosition{f.Time, f.ID}
	insert, seen := r.find(at)
	if seen || r.wasFolded(f.ID) || !isNew && r.isForgotten(at) {
		return false, nil
	}
	r.updatedAt = max(r.updatedAt, f.ReceivedAt)
	// Series of other definitions do not get the events applied under this
	// one.
	for i := len(r.def.Features.Series); i < len(r.series); i++ {
		r.series[i].since = r.updatedAt
	}
	if at.compare(r.folded) <= 0 {
		return true, r.foldLate(f)
	}
	r.makeLogWritable()
	r.entries++
	if insert == len(r.log) {
		r.log = appendEntry(r.log, at, f.Extract)
		r.last = at
	} else {
		r.scratch = appendEntry(r.scratch[:0], at, f.Extract)
		r.log = slices.Insert(r.log, insert, r.scratch...)
	}
	r.buffers[0] = r.log
	if r.entries > r.def.events() || len(r.log) > maxLogBytes {
		return true, r.fold()
	}
	return true, nil
}

// setLog copies a log, which is not in buffers[1], into a buffer of the
// record.
func (r *Record) setLog(log []byte) {
	r.buffers[0], r.buffers[1] = r.buffers[1], r.buffers[0]
	r.log = append(r.buffers[0][:0], log...)
	r.buffers[0] = r.log
	r.logOwned = true
}

// makeLogWritable copies the log if it is part of the decoded data.
func (r *Record) makeLogWritable() {
	if !r.logOwned {
		r.setLog(r.log)
	}
}

// Link returns the key of the record that this customer was merged into, empty
// for none.
func (r *Record) Link() string { return string(r.link) }

// UpdatedAt returns the latest receivedAt of the record's events in Unix
// milliseconds, 0 for none.
func (r *Record) UpdatedAt() int64 { return r.updatedAt }

// LastEventAt returns the time of the latest event, -1 for none.
func (r *Record) LastEventAt() int64 { return r.last.time }

// Definition returns the definition that the record was decoded with.
func (r *Record) Definition() *Definition { return r.def }

// FoldedTo returns the time of the latest folded event, -1 for none.
func (r *Record) FoldedTo() int64 { return r.folded.time }

// Encode appends the stored form of the record under key.
func (r *Record) Encode(dst []byte, key string) []byte {
	start := len(dst)
	dst = append(dst, formatVersion)
	if r.updatedAt > 0 {
		dst = append(dst, sectionTimes, timeSize)
		dst = appendTime(dst, r.updatedAt)
	}
	// A tombstone has no series.
	if len(r.series) > 0 && !r.Erased() {
		r.scratch = r.scratch[:0]
		for i, s := range r.series {
			r.scratch = binary.LittleEndian.AppendUint64(r.scratch, s.fingerprint)
			r.scratch = binary.AppendUvarint(r.scratch, uint64(s.since)<<3|uint64(r.layouts[i]))
		}
		dst = appendSection(dst, sectionSeries, r.scratch)
	}
	dst = appendSection(dst, sectionLog, r.log)
	if r.parsed {
		r.scratch = appendTraits(r.scratch[:0], r.traits)
		dst = appendSection(dst, sectionTraits, r.scratch)
	} else {
		dst = appendSection(dst, sectionTraits, r.rawTraits)
	}
	dst = appendSection(dst, sectionLink, r.link)
	r.scratch = r.scratch[:0]
	for _, key := range r.merged {
		r.scratch = binary.AppendUvarint(r.scratch, uint64(len(key)))
		r.scratch = append(r.scratch, key...)
	}
	dst = appendSection(dst, sectionMerged, r.scratch)
	if r.folded != never {
		r.scratch = appendTime(r.scratch[:0], r.folded.time)
		r.scratch = binary.LittleEndian.AppendUint64(r.scratch, r.folded.id)
		dst = appendSection(dst, sectionFolded, append(r.scratch, r.foldedIDs...))
		r.scratch = r.scratch[:0]
		for i, tiles := range r.tiles {
			if len(tiles) > 0 {
				r.scratch = binary.AppendUvarint(r.scratch, uint64(i))
				r.scratch = binary.AppendUvarint(r.scratch, uint64(len(tiles)))
				r.scratch = append(r.scratch, tiles...)
			}
		}
		dst = appendSection(dst, sectionTiles, r.scratch)
	}
	dst = appendSection(dst, sectionClaims, r.claims)
	r.scratch = r.appendMembers(r.scratch[:0])
	dst = appendSection(dst, sectionSegments, r.scratch)
	r.scratch = r.appendOutbox(r.scratch[:0])
	dst = appendSection(dst, sectionOutbox, r.scratch)
	r.scratch = r.triggers.Append(r.scratch[:0])
	dst = appendSection(dst, sectionTriggers, r.scratch)
	r.scratch = r.appendErasure(r.scratch[:0])
	dst = appendSection(dst, sectionErasure, r.scratch)
	r.scratch = r.appendIdentifiers(r.scratch[:0])
	dst = appendSection(dst, sectionIdentifiers, r.scratch)
	if r.folded != never {
		r.scratch = appendTime(r.scratch[:0], r.rememberedFrom)
		dst = appendSection(dst, sectionFoldedTimes, append(r.scratch, r.foldedTimes...))
	}
	return binary.LittleEndian.AppendUint32(dst, checksum(key, dst[start:]))
}

func appendSection(dst []byte, tag byte, content []byte) []byte {
	if len(content) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(append(dst, tag), uint64(len(content)))
	return append(dst, content...)
}

func appendEntry(dst []byte, at logPosition, extract []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(entryHeader+len(extract)))
	dst = appendTime(dst, at.time)
	dst = binary.LittleEndian.AppendUint64(dst, at.id)
	return append(dst, extract...)
}

func appendTime(dst []byte, ms int64) []byte {
	return append(dst, byte(ms), byte(ms>>8), byte(ms>>16), byte(ms>>24), byte(ms>>32), byte(ms>>40))
}

func readTime(src []byte) int64 {
	_ = src[5]
	return int64(src[0]) | int64(src[1])<<8 | int64(src[2])<<16 | int64(src[3])<<24 | int64(src[4])<<32 | int64(src[5])<<40
}

func checksum(key string, body []byte) uint32 {
	var buffer [512]byte
	// The checksum covers the key, to detect a record stored under another
	// customer's key. Short records, the usual ones, are summed in one call.
	if len(key)+len(body) <= len(buffer) {
		n := copy(buffer[:], key)
		n += copy(buffer[n:], body)
		return uint32(xxhash.Sum64(buffer[:n]))
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(key)
	_, _ = d.Write(body)
	return uint32(d.Sum64())
}

const (
	// traitNanos precedes the nanoseconds of a trait's time. It differs from
	// the first byte of every value.
	traitNanos    = 0x20
	nanosPerMilli = 1_000_000
)

// trait is an attribute with its provenance. The value is Missing for an
// attribute that was unset.
type trait struct {
	name   []byte
	time   int64
	nanos  int32 // after time
	source []byte
	value  event.Value
}

// parseTraits parses rawTraits into traits, once.
func (r *Record) parseTraits() error {
	if r.parsed {
		return nil
	}
	r.traits = r.traits[:0]
	for src := r.rawTraits; len(src) > 0; {
		var t trait
		n, width := binary.Uvarint(src)
		if width <= 0 || n > uint64(len(src)-width) {
			return ErrCorrupt
		}
		t.name, src = src[width:width+int(n)], src[width+int(n):]
		if len(src) < timeSize {
			return ErrCorrupt
		}
		t.time, src = readTime(src), src[timeSize:]
		n, width = binary.Uvarint(src)
		if width <= 0 || n > uint64(len(src)-width) {
			return ErrCorrupt
		}
		t.source, src = src[width:width+int(n)], src[width+int(n):]
		if len(src) > 0 && src[0] == traitNanos {
			n, width = binary.Uvarint(src[1:])
			if width <= 0 || src[width] == 0 || n >= nanosPerMilli {
				return ErrCorrupt
			}
			t.nanos, src = int32(n), src[1+width:]
		}
		var err error
		if t.value, src, err = features.ReadValue(src); err != nil {
			return ErrCorrupt
		}
		if n := len(r.traits); n > 0 && bytes.Compare(r.traits[n-1].name, t.name) >= 0 {
			return ErrCorrupt
		}
		r.traits = append(r.traits, t)
	}
	r.parsed = true
	return nil
}

func appendTraits(dst []byte, traits []trait) []byte {
	for _, t := range traits {
		dst = binary.AppendUvarint(dst, uint64(len(t.name)))
		dst = append(dst, t.name...)
		dst = appendTime(dst, t.time)
		dst = binary.AppendUvarint(dst, uint64(len(t.source)))
		dst = append(dst, t.source...)
		if t.nanos > 0 {
			dst = binary.AppendUvarint(append(dst, traitNanos), uint64(t.nanos))
		}
		dst = features.AppendValue(dst, t.value)
	}
	return dst
}
