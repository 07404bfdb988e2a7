package record

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// member is a segment that a record holds its customer to be in, or to have
// left.
type member struct {
	name  []byte
	since int64
}

// MemberSince returns since when, in Unix milliseconds, the record holds its
// customer to be in a segment, false if it does not.
func (r *Record) MemberSince(segment string) (int64, bool) {
	at, found := r.findMember(segment)
	if !found {
		return 0, false
	}
	return r.members[at].since, true
}

// VisitSegments calls fn for every segment the record holds its customer to be
// in.
func (r *Record) VisitSegments(fn func(name string)) {
	for _, m := range r.members {
		fn(string(m.name))
	}
}

func (r *Record) findMember(segment string) (at int, found bool) { return find(r.members, segment) }

func find(list []member, segment string) (at int, found bool) {
	return slices.BinarySearchFunc(list, segment, func(m member, name string) int { return bytes.Compare(m.name, []byte(name)) })
}

// LeftAt returns when, in Unix milliseconds, the customer left a segment they
// have not entered again, false if they did not or if it no longer matters to a
// trigger.
func (r *Record) LeftAt(segment string) (int64, bool) {
	at, found := find(r.left, segment)
	if !found {
		return 0, false
	}
	return r.left[at].since, true
}

// noteLeft notes that the customer left a segment, unless they left it later,
// and tells whether that changed the record.
func (r *Record) noteLeft(segment []byte, at int64) bool {
	i, found := find(r.left, string(segment))
	switch {
	case !found:
		r.left = slices.Insert(r.left, i, member{segment, at})
	case r.left[i].since >= at:
		return false
	default:
		r.left[i].since = at
	}
	return true
}

// mergeLeft takes what segments the customer of another record left, who is
// found to be this one, and tells whether that changed the record.
func (r *Record) mergeLeft(o *Record) (changed bool) {
	for _, m := range o.left {
		if _, member := r.findMember(string(m.name)); !member {
			changed = r.noteLeft(m.name, m.since) || changed
		}
	}
	return changed
}

// forgetLeft forgets, as of a time, what no trigger asks about any more.
func (r *Record) forgetLeft(now int64) {
	r.left = slices.DeleteFunc(r.left, func(m member) bool {
		if _, again := r.findMember(string(m.name)); again || r.def.Triggers == nil {
			return true
		}
		return m.since+r.def.Triggers.LeaveRetention(string(m.name)).Milliseconds() <= now
	})
}

func (r *Record) readMembers(src []byte) error {
	const header = timeSize + 4
	if len(src) < header {
		return ErrCorrupt
	}
	r.evaluatedAt, r.evaluatedBy = readTime(src), binary.LittleEndian.Uint32(src[timeSize:])
	src = src[header:]
	into := &r.members
	for len(src) > 0 {
		if src[0] == 0 && into == &r.members && len(src) > 1 {
			src, into = src[1:], &r.left
		}
		if src[0] == 0 && into == &r.left {
			turn, width := binary.Uvarint(src[1:])
			if turn == 0 || width != len(src)-1 || src[width] == 0 {
				return ErrCorrupt
			}
			r.toggles = turn
			return nil
		}
		n, width := binary.Uvarint(src)
		if width <= 0 || n == 0 || n > uint64(len(src)-width) || uint64(len(src)-width)-n < timeSize {
			return ErrCorrupt
		}
		m := member{name: src[width : width+int(n)]}
		src = src[width+int(n):]
		m.since, src = readTime(src), src[timeSize:]
		if last := len(*into) - 1; last >= 0 && bytes.Compare((*into)[last].name, m.name) >= 0 {
			return ErrCorrupt
		}
		*into = append(*into, m)
	}
	return nil
}

// appendMembers appends nothing for a record that was never judged.
func (r *Record) appendMembers(dst []byte) []byte {
	if r.evaluatedAt == 0 && len(r.members) == 0 && len(r.left) == 0 {
		return dst
	}
	dst = appendTime(dst, r.evaluatedAt)
	dst = binary.LittleEndian.AppendUint32(dst, r.evaluatedBy)
	dst = appendMemberList(dst, r.members)
	if len(r.left) > 0 || r.toggles > 0 {
		dst = appendMemberList(append(dst, 0), r.left)
	}
	if r.toggles > 0 {
		dst = binary.AppendUvarint(append(dst, 0), r.toggles)
	}
	return dst
}

func appendMemberList(dst []byte, list []member) []byte {
	for _, m := range list {
		dst = binary.AppendUvarint(dst, uint64(len(m.name)))
		dst = append(dst, m.name...)
		dst = appendTime(dst, m.since)
	}
	return dst
}
