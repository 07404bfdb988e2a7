package customers

import (
	"context"
	"errors"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// ErrErased is the error for an event that was rejected because its customer was
// erased. Such an event must be dropped and not be written to dead letters.
var ErrErased = errors.New("the customer was erased")

// erasing is the request of an event about an erasure.
type erasing byte

const (
	noErasure erasing = iota
	erase
	readmit
)

func erasingRequest(e *event.Event) erasing {
	switch e.Type {
	case event.TypeErase:
		return erase
	case event.TypeReadmit:
		return readmit
	}
	return noErasure
}

// identifyErasure sets the customers of an erasure: those of both ids, even if the
// definition ignores such ids by now.
func (u *updater) identifyErasure(e *event.Event, up *update) {
	if len(e.AnonymousID) > 0 {
		up.customer = u.customer(record.Anonymous, e.AnonymousID)
	}
	if len(e.UserID) > 0 {
		if len(e.AnonymousID) > 0 {
			up.anonymous = up.customer
		}
		up.customer = u.customer(record.User, e.UserID)
	}
}

// applyErasure erases or readmits the customers of an event.
func (u *updater) applyErasure(up *update) error {
	for _, i := range [...]int{up.customer, up.anonymous} {
		if i < 0 {
			continue
		}
		u.resetCorrupt(u.customers[i])
		c, err := u.resolve(i)
		if err != nil {
			return err
		}
		if up.erasing == erase {
			if c.rec.Erase(up.fact.Time) {
				u.p.erasures.Incr(1)
				c.changed = true
			}
		} else if c.rec.Readmit(up.fact.Time) {
			c.changed = true
		}
	}
	return nil
}

// resetCorrupt makes a corrupt record erasable: a damaged record must not prevent
// an erasure. A record that a newer release wrote is not corrupt.
func (u *updater) resetCorrupt(c *customer) {
	if errors.Is(c.err, record.ErrCorrupt) {
		c.err = nil
		c.rec.Reset(u.p.def)
	}
}

// rejectsErased reports whether an event must be rejected because its customer, or
// the customer to that it links, was erased.
func (u *updater) rejectsErased(up *update, to *customer) bool {
	own := &u.customers[up.customer].rec
	if !own.RejectsEvent(up.fact.Time, up.fact.ReceivedAt) && !to.rec.RejectsEvent(up.fact.Time, up.fact.ReceivedAt) {
		return false
	}
	u.p.erasedEvents.Incr(1)
	return true
}

// eraseWith erases a customer with an interrupted merge into an erased customer,
// so that the tombstone does not list it.
func (c *customer) eraseWith(into *customer) {
	c.rec.EraseWith(&into.rec)
	c.follow, c.changed = -1, true
}

// finishErasures completes the erasure of every tombstone that this batch has
// written or read: it erases the records of all keys that are linked to it.
func (u *updater) finishErasures(ctx context.Context) error {
	for _, c := range u.customers {
		if c.err != nil || c.lost || !c.loaded || !c.rec.Erased() {
			continue
		}
		if keys := c.rec.PendingErasures(); len(keys) > 0 {
			if err := u.p.eraseKeys(ctx, keys, c.rec.ErasedAt()); err != nil {
				return err
			}
			if err := u.p.finishErasure(ctx, c.key, c.rec.ErasedAt()); err != nil {
				return err
			}
			c.rec.FinishErasure()
		}
	}
	return nil
}

// eraseKeys replaces the records of keys by tombstones.
func (p *Service) eraseKeys(ctx context.Context, keys []string, at int64) error {
	for len(keys) > 0 {
		records, err := p.store.Load(ctx, keys)
		if err != nil {
			return err
		}
		var changes []store.Change
		for i, key := range keys {
			var rec record.Record
			if records[i].Version == store.Absent {
				rec.Reset(p.def)
			} else if err := rec.Decode(p.def, key, records[i].Data); errors.Is(err, record.ErrCorrupt) {
				rec.Reset(p.def)
			} else if err != nil {
				continue // written by a newer release, which can erase it
			}
			if !rec.Erase(at) {
				continue
			}
			// keys includes all records that were merged into this one.
			rec.FinishErasure()
			changes = append(changes, store.Change{Key: key, Version: records[i].Version, Data: rec.Encode(nil, key), Index: indexEdits(&rec), Purge: true})
		}
		conflicts, err := p.store.Commit(ctx, changes)
		if err != nil {
			return err
		}
		keys = keys[:0:0]
		for _, n := range conflicts {
			keys = append(keys, changes[n].Key)
		}
	}
	return nil
}

// finishErasure removes the list of linked keys from the tombstone of an erasure,
// which is identified by its key and time.
func (p *Service) finishErasure(ctx context.Context, key string, at int64) error {
	for {
		records, err := p.store.Load(ctx, []string{key})
		if err != nil || records[0].Version == store.Absent {
			return err
		}
		var rec record.Record
		if err := rec.Decode(p.def, key, records[0].Data); err != nil || !rec.Erased() || rec.ErasedAt() != at {
			return nil
		}
		rec.FinishErasure()
		conflicts, err := p.store.Commit(ctx, []store.Change{{Key: key, Version: records[0].Version, Data: rec.Encode(nil, key), Index: indexEdits(&rec)}})
		if err != nil || len(conflicts) == 0 {
			return err
		}
	}
}
