package record

import (
	"encoding/binary"
	"slices"

	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// wasFolded reports whether an event is among the remembered folded ones.
func (r *Record) wasFolded(id uint64) bool {
	for ids := r.foldedIDs; len(ids) >= idSize; ids = ids[idSize:] {
		if binary.LittleEndian.Uint64(ids) == id {
			return true
		}
	}
	return false
}

// isForgotten reports whether an event is so old that the record no longer
// remembers the ids of folded events of its time. It cannot be distinguished
// from a repetition.
func (r *Record) isForgotten(at logPosition) bool { return at.time < r.rememberedFrom }

// foldedEvents returns the positions of the remembered folded events, ordered.
func (r *Record) foldedEvents() []logPosition {
	events := make([]logPosition, 0, len(r.foldedIDs)/idSize)
	times, ms := r.foldedTimes, int64(0)
	for ids := r.foldedIDs; len(ids) > 0 && len(times) > 0; ids = ids[idSize:] {
		distance, width := binary.Uvarint(times)
		times, ms = times[width:], ms+int64(distance)
		events = append(events, logPosition{ms, binary.LittleEndian.Uint64(ids)})
	}
	return events
}

// rememberFolded adds folded events to the remembered ones. It forgets the
// oldest beyond maxFoldedIDs, and all others of the same millisecond.
func (r *Record) rememberFolded(folded []logPosition) {
	all := append(r.foldedEvents(), folded...)
	slices.SortFunc(all, logPosition.compare)
	if over := len(all) - maxFoldedIDs; over > 0 {
		r.rememberedFrom = max(r.rememberedFrom, all[over-1].time+1)
	}
	r.foldedIDs, r.foldedTimes = nil, nil
	ms := int64(0)
	for _, at := range all {
		if r.isForgotten(at) {
			continue
		}
		r.foldedTimes = binary.AppendUvarint(r.foldedTimes, uint64(at.time-ms))
		r.foldedIDs = binary.LittleEndian.AppendUint64(r.foldedIDs, at.id)
		ms = at.time
	}
}

// readFoldedTimes decodes the section of folded times.
func (r *Record) readFoldedTimes(content []byte) error {
	if len(content) < timeSize {
		return ErrCorrupt
	}
	r.rememberedFrom = readTime(content)
	r.foldedTimes = content[timeSize:]
	times, ms := r.foldedTimes, uint64(0)
	for range len(r.foldedIDs) / idSize {
		distance, width := binary.Uvarint(times)
		if width <= 0 || distance > MaxTime-ms {
			return ErrCorrupt
		}
		times, ms = times[width:], ms+distance
	}
	if len(times) > 0 {
		return ErrCorrupt
	}
	return nil
}

// fold moves the oldest quarter of the log into tiles; more if the log exceeds
// its limit of bytes, or reaches back before the latest folded event.
func (r *Record) fold() error {
	keep, keepBytes := r.def.events()*3/4, maxLogBytes*3/4
	cut := 0
	f := folder{record: r}
	before := r.folded
	_ = r.walk(func(offset int, at logPosition, extract []byte) bool {
		if r.entries <= keep && len(r.log)-offset <= keepBytes && at.compare(before) > 0 {
			return false
		}
		f.add(at, extract)
		r.entries--
		_, width := binary.Uvarint(r.log[offset:])
		cut = offset + width + entryHeader + len(extract)
		return true
	})
	if err := f.finish(); err != nil {
		return err
	}
	r.setLog(r.log[cut:])
	return nil
}

// foldLate folds an event that is older than the latest folded one.
func (r *Record) foldLate(fact Fact) error {
	f := folder{record: r}
	f.add(logPosition{fact.Time, fact.ID}, fact.Extract)
	return f.finish()
}

// folder adds events to the tiles of a record.
type folder struct {
	record *Record
	events []logPosition
	series map[int][]features.Occurrence
	err    error
}

func (f *folder) add(at logPosition, extract []byte) {
	r := f.record
	f.events = append(f.events, at)
	if at.compare(r.folded) > 0 {
		r.folded = at
	}
	if at.compare(r.last) > 0 {
		r.last = at
	}
	if len(extract) == 0 {
		return
	}
	if f.series == nil {
		f.series = map[int][]features.Occurrence{}
	}
	if err := features.Visit(extract, r.layouts, func(series int, o features.Occurrence) {
		// A series without a feature has no tiles, because a feature
		// determines their form.
		if series < len(r.def.Features.Series) {
			o.Time, o.ID = at.time, at.id
			f.series[series] = append(f.series[series], o)
		}
	}); err != nil {
		f.err = ErrCorrupt
	}
}

func (f *folder) finish() error {
	if f.err != nil {
		return f.err
	}
	r := f.record
	r.rememberFolded(f.events)
	zone, err := r.zone()
	if err != nil {
		return err
	}
	for i, occurrences := range f.series {
		s := &r.def.Features.Series[i]
		tiles := features.Tiles{Zone: zone}
		if err := tiles.Read(r.tilesOf(i)); err != nil {
			return ErrCorrupt
		}
		for len(occurrences) > 0 {
			// The occurrences of one event are contiguous.
			n := 1
			for n < len(occurrences) && occurrences[n].Time == occurrences[0].Time && occurrences[n].ID == occurrences[0].ID {
				n++
			}
			tiles.Fold(s, occurrences[:n])
			occurrences = occurrences[n:]
		}
		tiles.Compact(s, r.last.time)
		r.setTiles(i, tiles.Append(nil))
	}
	return nil
}
