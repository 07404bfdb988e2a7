package record

// An erased customer leaves a tombstone: a record that contains only the time
// of the erasure and rejects all events of the customer until the customer is
// readmitted. A readmitted customer's record keeps both times, so that sending
// old events again does not restore the erased data.
//
// An erasure is a sequence of writes. A crash may end it after any of them,
// and each may be repeated:
//
//  1. The record becomes a tombstone that still lists the keys merged into it. From now on no reader sees any of the customer's data.
//  2. The record of each of these keys becomes a tombstone.
//  3. The list is deleted.
//
// A process that reads a tombstone with a list completes steps 2 and 3 first.
// A record that links to a tombstone, because a merge was in progress, is
// erased as well.

// Erase turns the record into a tombstone of a customer erased at a time in
// Unix milliseconds, and reports whether the record changed. An erasure that
// the record already contains changes nothing, even if the customer was
// readmitted since.
func (r *Record) Erase(at int64) bool {
	if at <= r.erasedAt {
		return false
	}
	merged, readmitted := r.merged, r.readmittedAt
	r.Clear()
	r.merged, r.erasedAt, r.readmittedAt = merged, at, readmitted
	return true
}

// EraseWith turns a record that links to a tombstone into a tombstone,
// whatever earlier erasures it contains.
func (r *Record) EraseWith(tombstone *Record) {
	r.Erase(max(tombstone.erasedAt, r.erasedAt+1, r.readmittedAt+1))
}

// Erased reports whether the record is a tombstone.
func (r *Record) Erased() bool { return r.erasedAt > r.readmittedAt }

// ErasedAt returns the time of the latest erasure in Unix milliseconds, 0 for
// none.
func (r *Record) ErasedAt() int64 { return r.erasedAt }

// Readmit turns a tombstone into the empty record of a customer readmitted at
// a time in Unix milliseconds, and reports whether the record changed.
func (r *Record) Readmit(at int64) bool {
	if !r.Erased() || at <= r.erasedAt {
		return false
	}
	r.readmittedAt = at
	return true
}

// RejectsEvent reports whether an event with these times (timestamp and
// receivedAt) must be rejected because of an erasure: every event until
// readmission, afterwards the events from before it.
func (r *Record) RejectsEvent(time, received int64) bool {
	return r.erasedAt > 0 && (r.Erased() || time <= r.erasedAt || received <= r.readmittedAt)
}

// PendingErasures returns the keys of the records that must still be erased together
// with a tombstone.
func (r *Record) PendingErasures() []string {
	if !r.Erased() {
		return nil
	}
	return r.MergedKeys()
}

// MergedKeys returns the keys merged into the record, sorted.
func (r *Record) MergedKeys() []string {
	keys := make([]string, len(r.merged))
	for i, key := range r.merged {
		keys[i] = string(key)
	}
	return keys
}

// FinishErasure deletes the list of merged keys from a tombstone.
func (r *Record) FinishErasure() { r.merged = r.merged[:0] }

func (r *Record) readErasure(src []byte) error {
	if len(src) != 2*timeSize {
		return ErrCorrupt
	}
	r.erasedAt, r.readmittedAt = readTime(src), readTime(src[timeSize:])
	if r.erasedAt == 0 {
		return ErrCorrupt
	}
	return nil
}

func (r *Record) appendErasure(dst []byte) []byte {
	if r.erasedAt == 0 {
		return dst
	}
	return appendTime(appendTime(dst, r.erasedAt), r.readmittedAt)
}
