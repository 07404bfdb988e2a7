package customers

import (
	"context"
	"errors"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// ErrErased is the result of an event that is not taken in because its customer
// was erased. It should go nowhere else either, dead letters included.
var ErrErased = errors.New("the customer was erased")

// erasing tells what an event asks for that is not the customer's doing.
type erasing byte

const (
	noErasure erasing = iota
	erase
	readmit
)

func erasingOf(e *event.Event) erasing {
	switch e.Type {
	case event.TypeErase:
		return erase
	case event.TypeReadmit:
		return readmit
	}
	return noErasure
}

// identifyErasure finds whom an erasure concerns: the customers of both ids,
// whatever the definition says of such ids now.
func (u *updater) identifyErasure(e *event.Event, up *update) {
	if len(e.AnonymousID) > 0 {
		up.who = u.customer(record.Anonymous, e.AnonymousID)
	}
	if len(e.UserID) > 0 {
		if len(e.AnonymousID) > 0 {
			up.anonymous = up.who
		}
		up.who = u.customer(record.User, e.UserID)
	}
}

// applyErasure erases or readmits the customers an event names.
func (u *updater) applyErasure(up *update) error {
	for _, i := range [...]int{up.who, up.anonymous} {
		if i < 0 {
			continue
		}
		u.pardon(u.customers[i])
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

// pardon makes a record that cannot be read one that can be erased: nobody can
// be told that what is stored of them stays because it is broken. One that a
// later release wrote is not broken.
func (u *updater) pardon(c *customer) {
	if errors.Is(c.err, record.ErrCorrupt) {
		c.err = nil
		c.rec.Reset(u.p.def)
	}
}

// refuses tells whether an event must not be taken in because the customer
// whose id it has, or the one that leads to, was erased.
func (u *updater) refuses(up *update, to *customer) bool {
	at := &u.customers[up.who].rec
	if !at.RejectsEvent(up.fact.Time, up.fact.ReceivedAt) && !to.rec.RejectsEvent(up.fact.Time, up.fact.ReceivedAt) {
		return false
	}
	u.p.erasedEvents.Incr(1)
	return true
}

// eraseWith erases a customer who is one with another that is erased, though
// the other does not know it: their merge was under way.
func (c *customer) eraseWith(into *customer) {
	c.rec.EraseWith(&into.rec)
	c.follow, c.changed = -1, true
}

// finishErasures does what is left to do of the erasure of each tombstone that
// this batch has written, or met: the records of all keys that lead to it.
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

// eraseKeys makes tombstones of the records of keys.
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
				continue // of a later release, which knows how to
			}
			if !rec.Erase(at) {
				continue
			}
			// What was merged into it is among the keys.
			rec.FinishErasure()
			changes = append(changes, store.Change{Key: key, Version: records[i].Version, Data: rec.Encode(nil, key), Index: indexEdits(&rec)})
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

// finishErasure makes the tombstone of a key, of an erasure at a time, forget
// the keys that were erased with it.
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
