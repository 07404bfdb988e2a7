package record

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// member is a segment that a customer is in, or has left.
type member struct {
	name  []byte
	since int64
}

// MemberSince returns the time, in Unix milliseconds, since which the customer
// is in a segment; false if the customer is not.
func (r *Record) MemberSince(segment string) (int64, bool) {
	at, found := r.findMember(segment)
	if !found {
		return 0, false
	}
	return r.members[at].since, true
}

// VisitSegments calls fn for every segment that the customer is in.
func (r *Record) VisitSegments(fn func(name string)) {
	for _, m := range r.members {
		fn(string(m.name))
	}
}

func (r *Record) findMember(segment string) (at int, found bool) { return find(r.members, segment) }

func find(list []member, segment string) (at int, found bool) {
	return slices.BinarySearchFunc(list, segment, func(m member, name string) int { return bytes.Compare(m.name, []byte(name)) })
}

// LeftAt returns the time, in Unix milliseconds, at which the customer left a
// segment without entering it again; false if there is none, or if no trigger
// needs it any more.
func (r *Record) LeftAt(segment string) (int64, bool) {
	at, found := find(r.left, segment)
	if !found {
		return 0, false
	}
	return r.left[at].since, true
}

// noteLeft stores that the customer left a segment, unless a later time is
// stored, and reports whether the record changed.
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

// mergeLeft adds the segments that the customer of a merged record left, and
// reports whether the record changed.
func (r *Record) mergeLeft(o *Record) (changed bool) {
	for _, m := range o.left {
		if _, member := r.findMember(string(m.name)); !member {
			changed = r.noteLeft(m.name, m.since) || changed
		}
	}
	return changed
}

// forgetLeft deletes, as of a time, the segments left that no trigger needs
// any more.
func (r *Record) forgetLeft(now int64) {
	r.left = slices.DeleteFunc(r.left, func(m member) bool {
		if _, isMember := r.findMember(string(m.name)); isMember || r.def.Triggers == nil {
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
			toggles, width := binary.Uvarint(src[1:])
			if toggles == 0 || width != len(src)-1 || src[width] == 0 {
				return ErrCorrupt
			}
			r.toggles = toggles
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

// appendMembers appends nothing for a record that was never evaluated.
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
