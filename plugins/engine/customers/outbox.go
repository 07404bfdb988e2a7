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

// Messages about customers wait in the records of these, written with what
// caused them, and are in an index by the time from which they may be
// delivered. A deliverer claims a record by a lease: a conditional commit, of
// which one of several wins. It removes the messages when they have arrived. If
// it dies, the lease runs out and another delivers them again, the same to the
// byte.

// Outbox delivers what is to be told about customers. Any number of them, in
// any number of processes, share the work. Each is used by one goroutine; its
// deliveries may be settled by others.
type Outbox struct {
	p        *Service
	interval time.Duration
	lease    time.Duration
	limit    int
	nextPoll time.Time
	// unsure are the customers of a claim of which no answer came, by when it
	// ends: if it was written it is ours, and nobody else finds them until then.
	unsure map[string]int64
	stuck  stuck
}

// hints bounds how many customers this process remembers to have messages for.
// Those it forgets are found by the next look at the index.
const hints = 4096

// Outbox returns a deliverer that looks for messages of other processes, and
// for those a dead one left, at an interval, and is told of what this process
// writes at once. It claims up to limit customers at a time for the time of a
// lease. Close it when it is no longer used.
func (p *Service) Outbox(interval, lease time.Duration, limit int) *Outbox {
	p.outboxes.Add(1)
	return &Outbox{p: p, interval: interval, lease: lease, limit: limit, unsure: map[string]int64{}}
}

// Close tells that nobody takes messages any more.
func (o *Outbox) Close() { o.p.outboxes.Add(-1) }

// hint tells the outboxes of this process that a customer may have messages.
func (p *Service) hint(key string) {
	if p.outboxes.Load() == 0 {
		return
	}
	select {
	case p.hinted <- key:
	default:
	}
}

// OutboxMessage is a message on its way.
type OutboxMessage struct {
	record.Message
	// CustomerID is the id of the customer it is about.
	CustomerID string
}

// Delivery is messages that nobody else delivers as long as its lease lasts.
type Delivery struct {
	// Messages are those of a customer in the order in which they came up.
	Messages []OutboxMessage

	p      *Service
	until  int64
	claims []claim
}

// claim is what of a delivery is one customer's.
type claim struct {
	key string
	ids []record.MessageID
}

// Next waits for messages that are due and claims them. The error is that of
// the store, or of ctx.
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
			o.p.hint(key) // back to the others
		case <-wait.C:
		}
		wait.Stop()
	}
}

// take claims messages that are due, nil if there are none to be found now.
func (o *Outbox) take(ctx context.Context) (*Delivery, error) {
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
		// A clock may be put back.
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

// poll looks at the index. Of much that is due it takes a part at random, so
// that those who look at the same time seldom want the same.
func (o *Outbox) poll(ctx context.Context, keys []string) ([]string, map[string]string, error) {
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
		if _, twice := found[e.Key]; !twice {
			found[e.Key] = e.Value
			keys = append(keys, e.Key)
		}
	}
	return keys, found, nil
}

// takeHints adds the customers this process knows to have messages.
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

// claim takes what is due of customers. An entry of the index that belongs to
// no message, as an expired record leaves one, is removed.
func (o *Outbox) claim(ctx context.Context, keys []string, found map[string]string) (*Delivery, error) {
	records, err := o.p.store.Load(ctx, keys)
	if err != nil {
		return nil, err
	}
	now := o.p.now().UnixMilli()
	d := &Delivery{p: o.p, until: now + o.lease.Milliseconds()}
	var rec record.Record
	var changes []store.Change
	var claims []claim // of each change, without ids for one that only removes an entry
	var messages [][]OutboxMessage
	for i, key := range keys {
		c := store.Change{Key: key, Version: records[i].Version, Data: records[i].Data}
		cl := claim{key: key}
		var due []OutboxMessage
		switch {
		case records[i].Version == store.Absent:
		case rec.Decode(o.p.def, key, records[i].Data) != nil:
			delete(o.unsure, key)
			if value, listed := found[key]; listed {
				o.stuck.add(key, value)
			}
			continue // whoever updates the customer says so
		case len(rec.Outbox()) > 0 && (rec.OutboxDue() <= now || rec.ClaimedUntil() > 0 && rec.ClaimedUntil() == o.unsure[key]):
			for _, m := range rec.Outbox() {
				if m.Time <= now {
					cl.ids = append(cl.ids, m.ID)
					due = append(due, OutboxMessage{m, record.KeyID(key)})
				}
			}
			rec.Claim(d.until)
			c.Data = rec.Encode(room(records[i].Data), key)
			c.Index = indexEdits(&rec)
		}
		if len(due) == 0 {
			delete(o.unsure, key)
			value, listed := found[key]
			if !listed || records[i].Version != store.Absent && slices.Contains(rec.Entries(nil), record.Entry{Index: record.OutboxIndex, Value: value}) {
				continue
			}
			c.Index = []store.IndexEdit{{Index: record.OutboxIndex, Value: value, Remove: true}}
		}
		changes, claims, messages = append(changes, c), append(claims, cl), append(messages, due)
	}
	if len(changes) == 0 {
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
			// Somebody claimed it, or an event came. In the second case it
			// still is to be delivered, and the next look finds it.
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

// Acknowledge removes the messages, which have arrived. After an error they may be
// delivered again.
func (d *Delivery) Acknowledge(ctx context.Context) error {
	return d.release(ctx, func(rec *record.Record, ids []record.MessageID) bool {
		changed := rec.Acknowledge(ids)
		if rec.ClaimedUntil() == d.until {
			rec.Release()
			changed = true
		}
		return changed
	})
}

// Release gives the messages back, to be delivered again in a while.
func (d *Delivery) Release(ctx context.Context, in time.Duration) error {
	again := d.p.now().Add(in).UnixMilli()
	return d.release(ctx, func(rec *record.Record, _ []record.MessageID) bool {
		if rec.ClaimedUntil() != d.until {
			return false
		}
		rec.Claim(again)
		return true
	})
}

// release changes every record of the delivery, and those that took one over
// since, until all are written.
func (d *Delivery) release(ctx context.Context, change func(rec *record.Record, ids []record.MessageID) bool) error {
	idsOf := make(map[string][]record.MessageID, len(d.claims))
	keys := make([]string, 0, len(d.claims))
	for _, c := range d.claims {
		keys = append(keys, c.key)
		idsOf[c.key] = c.ids
	}
	return d.p.edit(ctx, keys, func(key string, rec *record.Record) (changed bool, also string) {
		link := rec.Link()
		if link != "" {
			idsOf[link] = append(idsOf[link][:len(idsOf[link]):len(idsOf[link])], idsOf[key]...)
		}
		return change(rec, idsOf[key]), link
	})
}

// edit changes records that exist, each as often as it takes to be the one who
// did. change tells whether there is something to write, and names another
// record that is to be changed too, if there is one.
func (p *Service) edit(ctx context.Context, keys []string, change func(key string, rec *record.Record) (changed bool, also string)) error {
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
		var waiting []bool // whether messages are left
		for i, key := range keys {
			if records[i].Version == store.Absent || rec.Decode(p.def, key, records[i].Data) != nil {
				continue
			}
			changed, also := change(key, &rec)
			if also != "" && !seen[also] {
				seen[also] = true
				next = append(next, also)
			}
			if changed {
				changes = append(changes, store.Change{Key: key, Version: records[i].Version, Data: rec.Encode(room(records[i].Data), key), Index: indexEdits(&rec)})
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
			if err := conflictBackoff.Wait(ctx, attempt); err != nil {
				return err
			}
		}
	}
	return nil
}

// room is an empty slice with room for a record that was so long, and a message.
func room(data []byte) []byte { return make([]byte, 0, len(data)+512) }
