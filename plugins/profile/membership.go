package profile

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// member is a segment that a record holds its customer to be in.
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

func (r *Record) findMember(segment string) (at int, found bool) {
	return slices.BinarySearchFunc(r.members, segment, func(m member, name string) int { return bytes.Compare(m.name, []byte(name)) })
}

func (r *Record) readMembers(src []byte) error {
	const header = timeSize + 4
	if len(src) < header {
		return ErrCorrupt
	}
	r.judgedAt, r.judgedBy = readTime(src), binary.LittleEndian.Uint32(src[timeSize:])
	src = src[header:]
	for len(src) > 0 {
		n, width := binary.Uvarint(src)
		if width <= 0 || n == 0 || n > uint64(len(src)-width) || uint64(len(src)-width)-n < timeSize {
			return ErrCorrupt
		}
		m := member{name: src[width : width+int(n)]}
		src = src[width+int(n):]
		m.since, src = readTime(src), src[timeSize:]
		if last := len(r.members) - 1; last >= 0 && bytes.Compare(r.members[last].name, m.name) >= 0 {
			return ErrCorrupt
		}
		r.members = append(r.members, m)
	}
	return nil
}

// appendMembers appends nothing for a record that was never judged.
func (r *Record) appendMembers(dst []byte) []byte {
	if r.judgedAt == 0 && len(r.members) == 0 {
		return dst
	}
	dst = appendTime(dst, r.judgedAt)
	dst = binary.LittleEndian.AppendUint32(dst, r.judgedBy)
	for _, m := range r.members {
		dst = binary.AppendUvarint(dst, uint64(len(m.name)))
		dst = append(dst, m.name...)
		dst = appendTime(dst, m.since)
	}
	return dst
}
