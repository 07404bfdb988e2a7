package customers

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// The outbox of a customer is part of the customer's record, so a message is
// written in the same commit as the change that caused it (transactional outbox).
// The record is in an index by the time from which its messages may be delivered:
//
//	10:00:00.000  an update enqueues a message    index: u1 at 10:00:00.000
//	10:00:00.020  an Outbox claims u1 for 30 s    index: u1 at 10:00:30.020
//	10:00:00.090  the output acknowledges         index: no entry
//
// A claim is a lease: a conditional commit that moves the record in the index to
// the end of the lease. If several processes claim a record, one commit wins. If
// the process dies, the lease ends and another process delivers the same bytes
// again (at-least-once delivery).

// Outbox claims and delivers messages about customers. Any number of outboxes, in
// any number of processes, share the work. An Outbox is used by one goroutine; its
// deliveries may be acknowledged by others.
type Outbox struct {
	p        *Service
	interval time.Duration
	lease    time.Duration
	limit    int
	nextPoll time.Time
	// unsure are the keys of claims with a commit that returned no answer, and the
	// end of the lease. If such a claim was written, this outbox owns it, and
	// the other outboxes do not find it before then.
	unsure map[string]int64
	stuck  stuck
}

// maxHints is the maximum number of keys that wait in Service.hinted. The next poll
// of the index finds the others.
const maxHints = 4096

// Outbox returns an outbox. It delivers messages of this process at once, and polls
// the index at an interval for those of other processes and of expired leases. It
// claims up to limit customers at a time, for the duration of a lease. Close it
// when it is no longer used.
func (p *Service) Outbox(interval, lease time.Duration, limit int) *Outbox {
	p.outboxes.Add(1)
	return &Outbox{p: p, interval: interval, lease: lease, limit: limit, unsure: map[string]int64{}}
}

// Close releases the outbox. It does not affect deliveries.
func (o *Outbox) Close() { o.p.outboxes.Add(-1) }

// hint notifies the outboxes of this process that a customer may have messages.
func (p *Service) hint(key string) {
	if p.outboxes.Load() == 0 {
		return
	}
	select {
	case p.hinted <- key:
	default:
	}
}

// OutboxMessage is a claimed message.
type OutboxMessage struct {
	record.Message
	// CustomerID is the id of the customer that the message is about.
	CustomerID string
}

// Delivery is a batch of claimed messages. Until its lease ends, no other outbox
// delivers them.
type Delivery struct {
	// Messages are ordered by customer, and for each customer in the order in
	// which they were enqueued.
	Messages []OutboxMessage

	p      *Service
	until  int64
	claims []claim
}

// claim is the part of a delivery that belongs to one customer.
type claim struct {
	key string
	ids []record.MessageID
}

// Next waits for due messages and claims them. The error is that of the store or of
// ctx.
func (o *Outbox) Next(ctx context.Context) (*Delivery, error) {
	for {
		if d, err := o.take(ctx); err != nil || d != nil {
			return d, err
		}
		wait := time.NewTimer(min(max(0, o.nextPoll.Sub(o.p.now())), o.interval))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil, ctx.Err()
		case key := <-o.p.hinted:
			o.p.hint(key) // take reads it again
		case <-wait.C:
		}
		wait.Stop()
	}
}

// take claims due messages. It returns nil if there are none.
func (o *Outbox) take(ctx context.Context) (*Delivery, error) {
	if o.p.generations.loss() != nil {
		return nil, nil
	}
	var keys []string
	for {
		if len(o.unsure) > 0 {
			keys = slices.AppendSeq(keys[:0], maps.Keys(o.unsure))
			if d, err := o.claim(ctx, keys, nil); err != nil || len(d.Messages) > 0 {
				return d, err
			}
		}
		keys = keys[:0]
		var found map[string]string // by key, the value in the index
		// wait exceeds the interval if the clock was set back.
		if wait := o.nextPoll.Sub(o.p.now()); wait <= 0 || wait > o.interval {
			var err error
			if keys, found, err = o.poll(ctx, keys); err != nil {
				return nil, err
			}
		}
		keys = o.takeHints(keys)
		if len(keys) == 0 {
			return nil, nil
		}
		d, err := o.claim(ctx, keys, found)
		if err != nil || len(d.Messages) > 0 {
			return d, err
		}
	}
}

// poll reads due keys from the index. If there are many, it takes a random part of
// them, so that processes that poll at the same time seldom conflict.
func (o *Outbox) poll(ctx context.Context, keys []string) ([]string, map[string]string, error) {
	if _, err := o.p.recentGeneration(ctx); err != nil {
		return nil, nil, err
	}
	now := o.p.now()
	page, err := o.p.due(ctx, record.OutboxIndex, now.UnixMilli(), 4*o.limit, &o.stuck)
	if err != nil {
		return nil, nil, err
	}
	if len(page) > o.limit {
		from := rand.IntN(len(page) - o.limit + 1)
		page = page[from : from+o.limit]
	} else {
		o.nextPoll = now.Add(o.interval)
	}
	found := make(map[string]string, len(page))
	for _, e := range page {
		if _, listed := found[e.Key]; !listed {
			found[e.Key] = e.Value
			keys = append(keys, e.Key)
		}
	}
	return keys, found, nil
}

// takeHints appends keys that this process has written messages for.
func (o *Outbox) takeHints(keys []string) []string {
	known := make(map[string]bool, len(keys))
	for _, key := range keys {
		known[key] = true
	}
	for len(keys) < o.limit {
		select {
		case key := <-o.p.hinted:
			if !known[key] {
				known[key] = true
				keys = append(keys, key)
			}
		default:
			return keys
		}
	}
	return keys
}

// claim claims the due messages of customers. It removes index entries without a
// message, such as those of expired records.
func (o *Outbox) claim(ctx context.Context, keys []string, found map[string]string) (*Delivery, error) {
	records, err := o.p.store.Load(ctx, keys)
	if err != nil {
		return nil, err
	}
	// The check comes after the load: if the store loses data later, the commit has
	// conflicts.
	g, err := o.p.checkGeneration(ctx)
	if err != nil {
		return nil, err
	}
	now := o.p.now().UnixMilli()
	d := &Delivery{p: o.p, until: now + o.lease.Milliseconds()}
	var rec record.Record
	var changes []store.Change
	var claims []claim // by change; one that only removes an index entry has no ids
	var messages [][]OutboxMessage
	for i, key := range keys {
		c := store.Change{Key: key, Version: records[i].Version, Data: records[i].Data}
		cl := claim{key: key}
		var due []OutboxMessage
		dropped := 0 // messages of an earlier generation
		switch {
		case records[i].Version == store.Absent:
		case rec.Decode(o.p.def, key, records[i].Data) != nil:
			delete(o.unsure, key)
			if value, listed := found[key]; listed {
				o.stuck.add(key, value)
			}
			continue // Update reports the error
		case len(rec.Outbox()) > 0 && (rec.OutboxDue() <= now || rec.ClaimedUntil() > 0 && rec.ClaimedUntil() == o.unsure[key]):
			dropped = dropOlder(&rec, g.historyUntil())
			o.p.dropped.Incr(int64(dropped))
			for _, m := range rec.Outbox() {
				if m.Time <= now {
					cl.ids = append(cl.ids, m.ID)
					due = append(due, OutboxMessage{m, record.KeyID(key)})
				}
			}
			if len(due) > 0 {
				rec.Claim(d.until)
			}
			c.Data = rec.Encode(encodeBuffer(records[i].Data), key)
			c.Index = indexEdits(&rec)
		}
		if len(due) == 0 && dropped == 0 {
			delete(o.unsure, key)
			value, listed := found[key]
			if !listed || records[i].Version != store.Absent && slices.Contains(rec.Entries(nil), record.Entry{Index: record.OutboxIndex, Value: value}) {
				continue
			}
			c.Index = []store.IndexEdit{{Index: record.OutboxIndex, Value: value, Remove: true}}
		}
		changes, claims, messages = append(changes, c), append(claims, cl), append(messages, due)
	}
	if len(changes) == 0 || o.p.generations.loss() != nil {
		return d, nil
	}
	lost, err := o.p.store.Commit(ctx, changes)
	if err != nil {
		for i := range changes {
			if len(claims[i].ids) > 0 {
				o.unsure[changes[i].Key] = d.until
			}
		}
		return nil, err
	}
	for i := range changes {
		if len(lost) > 0 && lost[0] == i {
			// Another process claimed the record, or changed it. In the second
			// case the next poll finds it.
			lost = lost[1:]
			o.p.lostClaims.Incr(1)
			continue
		}
		delete(o.unsure, changes[i].Key)
		if len(claims[i].ids) > 0 {
			d.claims = append(d.claims, claims[i])
			d.Messages = append(d.Messages, messages[i]...)
		}
	}
	return d, nil
}

// dropOlder removes the messages that were enqueued before a time, and returns their
// number.
func dropOlder(rec *record.Record, created int64) int {
	var ids []record.MessageID
	for _, m := range rec.Outbox() {
		if m.Time < created {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) > 0 {
		rec.Acknowledge(ids)
	}
	return len(ids)
}

// Acknowledge removes the delivered messages from their outboxes. After an error
// they may be delivered again.
func (d *Delivery) Acknowledge(ctx context.Context) error {
	return d.editClaimed(ctx, func(rec *record.Record, ids []record.MessageID) bool {
		changed := rec.Acknowledge(ids)
		if rec.ClaimedUntil() == d.until {
			rec.Release()
			changed = true
		}
		return changed
	})
}

// Release ends the claim and schedules the messages for another delivery after a
// delay.
func (d *Delivery) Release(ctx context.Context, delay time.Duration) error {
	retryAt := d.p.now().Add(delay).UnixMilli()
	return d.editClaimed(ctx, func(rec *record.Record, _ []record.MessageID) bool {
		if rec.ClaimedUntil() != d.until {
			return false
		}
		rec.Claim(retryAt)
		return true
	})
}

// editClaimed changes every record of the delivery, and the records that they were
// merged into since the claim.
func (d *Delivery) editClaimed(ctx context.Context, change func(rec *record.Record, ids []record.MessageID) bool) error {
	idsOf := make(map[string][]record.MessageID, len(d.claims))
	keys := make([]string, 0, len(d.claims))
	for _, c := range d.claims {
		keys = append(keys, c.key)
		idsOf[c.key] = c.ids
	}
	return d.p.edit(ctx, keys, func(key string, rec *record.Record) (changed bool, next string) {
		link := rec.Link()
		if link != "" {
			idsOf[link] = append(idsOf[link][:len(idsOf[link]):len(idsOf[link])], idsOf[key]...)
		}
		return change(rec, idsOf[key]), link
	})
}

// edit changes existing records and retries those that another writer changed
// meanwhile. change reports whether it changed the record, and may return the key
// of another record to change. Records that cannot be decoded are skipped.
func (p *Service) edit(ctx context.Context, keys []string, change func(key string, rec *record.Record) (changed bool, next string)) error {
	var rec record.Record
	seen := make(map[string]bool, len(keys))
	for attempt := 0; len(keys) > 0; attempt++ {
		for _, key := range keys {
			seen[key] = true
		}
		records, err := p.store.Load(ctx, keys)
		if err != nil {
			return err
		}
		var next []string
		var changes []store.Change
		var waiting []bool // by change: whether messages are left
		for i, key := range keys {
			if records[i].Version == store.Absent || rec.Decode(p.def, key, records[i].Data) != nil {
				continue
			}
			changed, other := change(key, &rec)
			if other != "" && !seen[other] {
				seen[other] = true
				next = append(next, other)
			}
			if changed {
				changes = append(changes, store.Change{Key: key, Version: records[i].Version, Data: rec.Encode(encodeBuffer(records[i].Data), key), Index: indexEdits(&rec)})
				waiting = append(waiting, len(rec.Outbox()) > 0)
			}
		}
		lost, err := p.store.Commit(ctx, changes)
		if err != nil {
			return err
		}
		for i := range changes {
			if len(lost) > 0 && lost[0] == i {
				lost = lost[1:]
				next = append(next, changes[i].Key)
			} else if waiting[i] {
				p.hint(changes[i].Key)
			}
		}
		keys = next
		if attempt > 2 && len(keys) > 0 {
			if err := pause(ctx, rand.N(time.Millisecond<<min(attempt, 8))); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodeBuffer returns an empty buffer for the next encoding of a record.
func encodeBuffer(data []byte) []byte { return make([]byte, 0, len(data)+512) }

// pause waits for a duration. It returns early with the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return nil
	}
}
