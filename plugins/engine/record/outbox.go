package record

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// The outbox of a record is what must be told to the world about its customer:
// a message is written with whatever caused it, in one commit, and removed when
// somebody confirms that it was delivered. Its id and its content never change,
// so that whoever hears it twice can tell.
//
// Deliverers claim a customer's whole outbox by a lease, which keeps the
// customer's messages in order and deliverers out of each other's way. When
// the lease has run out anybody may claim the outbox again.

// MessageID identifies a message for ever.
type MessageID [16]byte

// Message is something to tell.
type Message struct {
	ID MessageID
	// At is when it came up, in Unix milliseconds; it is not delivered before.
	Time int64
	// Content is what is told.
	Content []byte
}

const (
	// maxOutbox bounds the messages that wait for a deliverer, and
	// outboxRetention their age, in milliseconds: without a deliverer records
	// would grow for ever.
	maxOutbox       = 256
	outboxRetention = 7 * 24 * 60 * 60 * 1000

	messageHeader = timeSize + len(MessageID{})
)

// Tell adds a message, unless one with its id waits already. It returns how
// many messages were given up because nobody delivered them.
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

// Outbox returns the messages that wait, in the order in which they came up.
func (r *Record) Outbox() []Message { return r.outbox }

// DueAt returns when the outbox may be claimed: when the first message of it
// comes up and no lease holds any more.
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

// HeldUntil returns until when the outbox is claimed, 0 if it is free.
func (r *Record) ClaimedUntil() int64 { return r.lease }

// Told removes messages and tells whether any of them was there.
func (r *Record) Acknowledge(ids []MessageID) bool {
	before := len(r.outbox)
	r.outbox = slices.DeleteFunc(r.outbox, func(m Message) bool { return slices.Contains(ids, m.ID) })
	return len(r.outbox) < before
}

// takeOutbox takes over what another record still has to tell.
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

// appendOutbox appends nothing for an empty outbox: nobody needs to hold it.
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
