package record

import "slices"

// SetMember makes the customer a member of a segment, or not.
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

// SetToggles sets how often a segment was left at the moment it was entered.
func (r *Record) SetToggles(n uint64) { r.toggles = n }

// Toggles returns the number set by SetToggles.
func (r *Record) Toggles() uint64 { return r.toggles }
