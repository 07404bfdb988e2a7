package record

import "slices"

// SetMember makes the record hold its customer to be in a segment, or not.
func (r *Record) SetMember(segment string, in bool, since int64) {
	r.evaluatedAt, r.evaluatedBy = since, 7
	at, found := r.findMember(segment)
	if found {
		r.members = slices.Delete(r.members, at, at+1)
	}
	if in {
		r.members = slices.Insert(r.members, at, member{[]byte(segment), since})
	}
}

// SetTurn makes the record one whose customer came to and fro so often within the
// moment of the last judgement.
func (r *Record) SetTurn(n uint64) { r.toggles = n }

// Turn returns it.
func (r *Record) Turn() uint64 { return r.toggles }
