package record

import (
	"bytes"
	"slices"

	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// A merge of customer A into customer B is three writes, any of which may be
// the last before a crash, and all of which may be repeated:
//
//  1. A gets a link to B. From now on whoever meets A works on B.
//  2. B takes A's events and traits, and lists A among those merged.
//  3. A drops its events and traits and keeps the link.
//
// Whoever meets A with a link and content does steps 2 and 3 before anything
// else.

// LinkTo makes the record one that was merged into that of key.
func (r *Record) LinkTo(key string) { r.link = []byte(key) }

// Unmerged tells that the record has a link and still has content, which the
// record it links to may lack.
func (r *Record) HasUnmergedContent() bool {
	return len(r.link) > 0 && (len(r.log) > 0 || len(r.rawTraits) > 0 || len(r.traits) > 0 || r.folded != never || len(r.members) > 0 || len(r.left) > 0 || len(r.outbox) > 0)
}

// Strip drops everything but the link and what goes with it from the record of
// key. That of a known customer may have to stay after all, if two were merged
// into each other: it keeps what tells its next moves from those of before.
func (r *Record) Strip(key string) {
	link, claims, erased, readmitted := r.link, r.claims, r.erasedAt, r.readmittedAt
	judgedAt, judgedBy, turn := r.evaluatedAt, r.evaluatedBy, r.toggles
	r.Clear()
	r.link, r.claims, r.erasedAt, r.readmittedAt = link, claims, erased, readmitted
	if key[0] == User && judgedAt > 0 {
		r.evaluatedAt, r.evaluatedBy, r.toggles = judgedAt, judgedBy, turn+1
	}
}

// Merged tells whether the record of key was merged into this one.
func (r *Record) Merged(key string) bool {
	_, found := slices.BinarySearchFunc(r.merged, key, func(m []byte, key string) int { return bytes.Compare(m, []byte(key)) })
	return found
}

func (r *Record) addMerged(key []byte) bool {
	at, found := slices.BinarySearchFunc(r.merged, key, bytes.Compare)
	if !found {
		r.merged = slices.Insert(r.merged, at, key)
	}
	return !found
}

// MergedCount returns how many records were merged into this one.
func (r *Record) MergedCount() int { return len(r.merged) }

// Merge takes the events and traits of the record of key o into this one, as
// if they had always been this customer's, and tells whether that changed it.
// Both must be of the same definition. The record keeps parts of o.
func (r *Record) Merge(key string, o *Record) (bool, error) {
	again := r.Merged(key)
	changed := r.addMerged([]byte(key))
	// So that who erases this customer finds every key that leads here.
	for _, m := range o.merged {
		changed = r.addMerged(m) || changed
	}
	// What the other had to tell is told here from now on. A merge that is done
	// again finds it told, perhaps.
	if !again {
		changed = r.mergeOutbox(o) || changed
		changed = r.collectMergeLeaves(key, o) || changed
	}
	changed = r.mergeLeft(o) || changed
	changed = r.mergeTriggers(o) || changed
	if err := r.parseTraits(); err != nil {
		return false, err
	}
	if err := o.parseTraits(); err != nil {
		return false, err
	}
	for _, t := range o.traits {
		changed = r.putTrait(t) || changed
	}
	to := make([]int, len(o.series))
	straight := true
	for i, s := range o.series {
		at := slices.IndexFunc(r.series, func(m seriesState) bool { return m.fingerprint == s.fingerprint })
		if at < 0 {
			at = len(r.series)
			r.series = append(r.series, s)
			r.layouts = append(r.layouts, o.layouts[i])
		}
		r.series[at].since = max(r.series[at].since, s.since)
		to[i] = at
		straight = straight && at == i
	}
	// Logs can be united any number of times, tiles only once.
	if o.folded != never && !again {
		if err := r.mergeTiles(o, to); err != nil {
			return false, err
		}
	}
	var failed error
	err := o.walk(func(_ int, at logPosition, extract []byte) bool {
		if !straight && len(extract) > 0 {
			extract, failed = features.Renumber(nil, extract, o.layouts, to)
			if failed != nil {
				return false
			}
		}
		var applied bool
		applied, failed = r.Apply(Fact{Time: at.time, ReceivedAt: o.updatedAt, ID: at.id, Extract: extract})
		changed = changed || applied
		return failed == nil
	})
	if err != nil || failed != nil {
		return false, ErrCorrupt
	}
	return changed, nil
}

// mergeTiles takes what o has folded, the series of which are at other
// positions here.
func (r *Record) mergeTiles(o *Record, to []int) error {
	if o.folded.compare(r.folded) > 0 {
		r.folded = o.folded
	}
	if r.folded.compare(r.last) > 0 {
		r.last = r.folded
	}
	r.rememberFolded(o.foldedIDs)
	for i := range o.tiles {
		at := to[i]
		if len(o.tiles[i]) == 0 {
			continue
		}
		if at >= len(r.def.Features.Series) {
			if len(r.tilesOf(at)) == 0 {
				r.setTiles(at, o.tiles[i])
			}
			continue
		}
		var mine, theirs features.Tiles
		if mine.Read(r.tilesOf(at)) != nil || theirs.Read(o.tiles[i]) != nil {
			return ErrCorrupt
		}
		s := &r.def.Features.Series[at]
		mine.Merge(s, &theirs)
		mine.Compact(s, r.last.time)
		r.setTiles(at, mine.Append(nil))
	}
	// The log begins after what is folded.
	return r.fold()
}
