package record

// A customer who is erased leaves a tombstone: a record that holds nothing but
// when that was, and that refuses whatever is heard of the customer until they
// are readmitted. Who was readmitted keeps both times, so that what was erased
// does not come back when the events of before are sent again.
//
// Erasing is writes in this order, each of which may be the last before a
// crash, and all of which may be repeated:
//
//  1. The record becomes a tombstone that still lists the keys merged into it.
//     From now on nobody sees anything of the customer.
//  2. The record of each of these keys becomes a tombstone.
//  3. The list goes.
//
// Whoever meets a tombstone with a list does steps 2 and 3 first. A record that
// links to a tombstone, because a merge was under way, is erased as well.

// Erase makes the record a tombstone, of a customer erased at a time in Unix
// milliseconds, and tells whether that changed it: an erasure that the record
// knows of, whether or not the customer was readmitted since, does not.
func (r *Record) Erase(at int64) bool {
	if at <= r.erasedAt {
		return false
	}
	merged, readmitted := r.merged, r.readmittedAt
	r.Clear()
	r.merged, r.erasedAt, r.readmittedAt = merged, at, readmitted
	return true
}

// EraseWith makes the record, which links to a tombstone, one too, whatever it
// knows of earlier erasures.
func (r *Record) EraseWith(tombstone *Record) {
	r.Erase(max(tombstone.erasedAt, r.erasedAt+1, r.readmittedAt+1))
}

// Erased tells whether the record is a tombstone.
func (r *Record) Erased() bool { return r.erasedAt > r.readmittedAt }

// ErasedAt returns when the customer was erased last, in Unix milliseconds, 0
// for never.
func (r *Record) ErasedAt() int64 { return r.erasedAt }

// Readmit makes a tombstone the record of a customer of whom nothing is known
// yet, as of a time in Unix milliseconds, and tells whether that changed it.
func (r *Record) Readmit(at int64) bool {
	if !r.Erased() || at <= r.erasedAt {
		return false
	}
	r.readmittedAt = at
	return true
}

// Refuses tells whether an event, by its time and when it was received, must
// not be taken in because the customer was erased: any until they are
// readmitted, and then those of before.
func (r *Record) RejectsEvent(time, received int64) bool {
	return r.erasedAt > 0 && (r.Erased() || time <= r.erasedAt || received <= r.readmittedAt)
}

// Unerased returns the keys whose records are still to be erased with that of
// a tombstone.
func (r *Record) PendingErasures() []string {
	if !r.Erased() {
		return nil
	}
	return r.MergedKeys()
}

// MergedKeys returns the keys merged into the record, in order.
func (r *Record) MergedKeys() []string {
	keys := make([]string, len(r.merged))
	for i, key := range r.merged {
		keys[i] = string(key)
	}
	return keys
}

// FinishErasure makes a tombstone forget the keys merged into it.
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
