package record

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// The outbox of a record contains the messages about its customer that are not
// yet delivered (transactional outbox). A message is enqueued in the same
// conditional write as the change that caused it, and removed when its
// delivery is acknowledged. Id and content of a message never change, so
// consumers can use the id as an idempotency key.
//
// A deliverer claims the outbox of one customer by a lease. This keeps the
// messages of a customer in order, and two deliverers from sending the same
// message. After a crash the lease expires, and any deliverer can claim the
// outbox again:
//
//	10:00:00 update_profile  Enqueue(m1), write
//	10:00:01 deliverer A     Claim(until 10:00:31), write, send m1, crash
//	10:00:31 deliverer B     Claim(until 10:01:01), write, send m1 again (same id)
//	10:00:32 deliverer B     Acknowledge(m1), Release, write

// MessageID identifies a message permanently.
type MessageID [16]byte

// Message is a message to deliver.
type Message struct {
	ID MessageID
	// Time is when the message was caused, in Unix milliseconds; it is not
	// delivered earlier.
	Time int64
	// Content is the body of the message.
	Content []byte
}

const (
	// maxOutbox is the maximum number of waiting messages, and outboxRetention
	// their maximum age in milliseconds. Without a deliverer, records would
	// otherwise grow without limit.
	maxOutbox       = 256
	outboxRetention = 7 * 24 * 60 * 60 * 1000

	messageHeader = timeSize + len(MessageID{})
)

// Enqueue adds a message, unless a message with its id is waiting. It returns
// the number of older messages that were dropped to respect the limits.
func (r *Record) Enqueue(m Message) (dropped int) {
	if slices.ContainsFunc(r.outbox, func(o Message) bool { return o.ID == m.ID }) {
		return 0
	}
	before := len(r.outbox)
	r.outbox = slices.DeleteFunc(r.outbox, func(o Message) bool { return m.Time-o.Time > outboxRetention })
	if len(r.outbox) >= maxOutbox {
		r.outbox = slices.Delete(r.outbox, 0, len(r.outbox)-maxOutbox+1)
	}
	dropped = before - len(r.outbox)
	r.outbox = append(r.outbox, m)
	return dropped
}

// Outbox returns the waiting messages, oldest first.
func (r *Record) Outbox() []Message { return r.outbox }

// OutboxDue returns the time from which the outbox can be claimed: when its
// first message is deliverable and no lease is in effect.
func (r *Record) OutboxDue() int64 {
	due := int64(MaxTime - 1)
	for i := range r.outbox {
		due = min(due, r.outbox[i].Time)
	}
	return max(due, r.lease)
}

// Claim leases the outbox to a deliverer until a time in Unix milliseconds.
func (r *Record) Claim(until int64) { r.lease = until }

// Release ends the lease of the outbox.
func (r *Record) Release() { r.lease = 0 }

// ClaimedUntil returns the end of the lease, 0 if the outbox is not claimed.
func (r *Record) ClaimedUntil() int64 { return r.lease }

// Acknowledge removes delivered messages and reports whether any was present.
func (r *Record) Acknowledge(ids []MessageID) bool {
	before := len(r.outbox)
	r.outbox = slices.DeleteFunc(r.outbox, func(m Message) bool { return slices.Contains(ids, m.ID) })
	return len(r.outbox) < before
}

// mergeOutbox adds the waiting messages of a merged record.
func (r *Record) mergeOutbox(o *Record) (changed bool) {
	for _, m := range o.outbox {
		r.Enqueue(m)
	}
	slices.SortStableFunc(r.outbox, func(a, b Message) int { return cmp.Compare(a.Time, b.Time) })
	return len(o.outbox) > 0
}

func (r *Record) readOutbox(src []byte) error {
	if len(src) <= timeSize {
		return ErrCorrupt
	}
	r.lease, src = readTime(src), src[timeSize:]
	for len(src) > 0 {
		n, width := binary.Uvarint(src)
		if width <= 0 || n < uint64(messageHeader) || n > uint64(len(src)-width) {
			return ErrCorrupt
		}
		body := src[width : width+int(n)]
		src = src[width+int(n):]
		r.outbox = append(r.outbox, Message{
			Time: readTime(body), ID: MessageID(body[timeSize:messageHeader]), Content: body[messageHeader:],
		})
	}
	return nil
}

// appendOutbox appends nothing for an empty outbox, because it needs no lease.
func (r *Record) appendOutbox(dst []byte) []byte {
	if len(r.outbox) == 0 {
		return dst
	}
	dst = appendTime(dst, r.lease)
	for i := range r.outbox {
		m := &r.outbox[i]
		dst = binary.AppendUvarint(dst, uint64(messageHeader+len(m.Content)))
		dst = appendTime(dst, m.Time)
		dst = append(dst, m.ID[:]...)
		dst = append(dst, m.Content...)
	}
	return dst
}
