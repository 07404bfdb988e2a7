package record

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// A merge of customer A into customer B is three writes. A crash may follow
// any of them, and each may be repeated:
//
//  1. A gets a link to B. From now on every reader of A continues with B.
//  2. B takes A's events and traits, and adds A to its list of merged keys.
//  3. A deletes its events and traits and keeps the link.
//
// A process that reads A with both a link and content completes steps 2 and 3
// first.
//
// For example, the visitor a1 signs in as u1:
//
//	before        a1: log [10:00 view, 10:05 cart]      u1: log [09:00 order]
//	after write 1 a1: the same log, link u1             u1: log [09:00 order]
//	after write 2 a1: the same log, link u1             u1: log [09:00 10:00 10:05], merged [a1]
//	after write 3 a1: link u1                           u1: log [09:00 10:00 10:05], merged [a1]
//
// Repeating write 2 is harmless: a log is a set ordered by time and id, a
// trait keeps its latest statement, and triggers keep the union of decisions.
// Tiles and the outbox are not sets. They are merged only while A is not yet
// in B's list.

// LinkTo marks the record as merged into the record of key.
func (r *Record) LinkTo(key string) { r.link = []byte(key) }

// HasUnmergedContent reports whether the record has a link and also content,
// which the linked record may lack.
func (r *Record) HasUnmergedContent() bool {
	return len(r.link) > 0 && (len(r.log) > 0 || len(r.rawTraits) > 0 || len(r.traits) > 0 || r.folded != never || len(r.members) > 0 || len(r.left) > 0 || len(r.outbox) > 0)
}

// Strip deletes everything except the link and what belongs to it from the
// record of key. The record of a known customer may become active again, if
// two customers were merged into each other; it keeps the data that
// distinguishes its later segment messages from earlier ones.
func (r *Record) Strip(key string) {
	link, claims, erased, readmitted := r.link, r.claims, r.erasedAt, r.readmittedAt
	evaluatedAt, evaluatedBy, toggles := r.evaluatedAt, r.evaluatedBy, r.toggles
	r.Clear()
	r.link, r.claims, r.erasedAt, r.readmittedAt = link, claims, erased, readmitted
	if key[0] == User && evaluatedAt > 0 {
		r.evaluatedAt, r.evaluatedBy, r.toggles = evaluatedAt, evaluatedBy, toggles+1
	}
}

// Merged reports whether the record of key was merged into this one.
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

// AnonymousMerged returns the number of anonymous ids merged into this record.
func (r *Record) AnonymousMerged() int {
	// Keys are ordered, and those of anonymous ids come before those of users.
	n, _ := slices.BinarySearchFunc(r.merged, User, func(key []byte, kind byte) int { return cmp.Compare(key[0], kind) })
	return n
}

// Merge adds the events and traits of the record of key o to this one, as if
// they had always belonged to this customer, and reports whether the record
// changed. Both records must have the same definition. The record keeps parts
// of o.
func (r *Record) Merge(key string, o *Record) (bool, error) {
	repeated := r.Merged(key)
	changed := r.addMerged([]byte(key))
	// An erasure must find every key that leads to this record.
	for _, m := range o.merged {
		changed = r.addMerged(m) || changed
	}
	// This record delivers the messages of the other from now on. If the merge
	// is repeated, they may already be delivered.
	if !repeated {
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
	sameOrder := true
	for i, s := range o.series {
		at := slices.IndexFunc(r.series, func(m seriesState) bool { return m.fingerprint == s.fingerprint })
		if at < 0 {
			at = len(r.series)
			r.series = append(r.series, s)
			r.layouts = append(r.layouts, o.layouts[i])
		}
		r.series[at].since = max(r.series[at].since, s.since)
		to[i] = at
		sameOrder = sameOrder && at == i
	}
	// Logs can be merged repeatedly, tiles only once.
	if o.folded != never && !repeated {
		if err := r.mergeTiles(o, to); err != nil {
			return false, err
		}
	}
	var failed error
	err := o.walk(func(_ int, at logPosition, extract []byte) bool {
		if !sameOrder && len(extract) > 0 {
			extract, failed = features.Renumber(nil, extract, o.layouts, to)
			if failed != nil {
				return false
			}
		}
		var applied bool
		// In a first merge, an event of o that is older than the remembered ones
		// is no repetition.
		applied, failed = r.apply(!repeated, Fact{Time: at.time, ReceivedAt: o.updatedAt, ID: at.id, Extract: extract})
		changed = changed || applied
		return failed == nil
	})
	if err != nil || failed != nil {
		return false, ErrCorrupt
	}
	return changed, nil
}

// mergeTiles adds the tiles of o; to maps the positions of its series to those
// of this record.
func (r *Record) mergeTiles(o *Record, to []int) error {
	if o.folded.compare(r.folded) > 0 {
		r.folded = o.folded
	}
	if r.folded.compare(r.last) > 0 {
		r.last = r.folded
	}
	r.rememberedFrom = max(r.rememberedFrom, o.rememberedFrom)
	r.rememberFolded(o.foldedEvents())
	zone, err := r.zone()
	if err != nil {
		return err
	}
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
		mine, theirs := features.Tiles{Zone: zone}, features.Tiles{}
		if mine.Read(r.tilesOf(at)) != nil || theirs.Read(o.tiles[i]) != nil {
			return ErrCorrupt
		}
		s := &r.def.Features.Series[at]
		mine.Merge(s, &theirs)
		mine.Compact(s, r.last.time)
		r.setTiles(at, mine.Append(nil))
	}
	// The log begins after the latest folded event.
	return r.fold()
}
