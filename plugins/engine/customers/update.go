package customers

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Update applies a batch of events to profiles in two round trips: it loads the
// records of all customers in the batch, applies the events in memory, and commits
// the changed records, each on the condition that its version is still the loaded
// one (optimistic concurrency). Records that another writer changed meanwhile are
// loaded and applied again. For example, with the events
//
//	e1  track     userId u1
//	e2  identify  userId u1, anonymousId a1
//	e3  track     userId u2
//
// it works in these steps:
//
//	load    u1, a1, u2 in one round trip
//	apply   e1 and e2 to u1; e2 also merges the content of a1 into u1; e3 to u2
//	commit  a1 as a link to u1 that still has its content
//	commit  u1 with the content of a1, and u2
//	strip   a1: the content of a1 is removed, the link stays
//
// Only a batch with a merge needs the first commit and the strip. Their order makes
// a crash harmless: after the first commit the link says that the content of a1
// belongs to u1, and the next batch with either customer completes the merge; the
// content is removed only after it is durable in u1.
//
// If u2 lost a race, only e3 is applied again. Every record remembers the ids of
// its recent messages, so an event that is delivered again changes nothing. If
// nothing changed, Update still calls Commit, as a durability barrier: it returns
// once everything that this process may have read is durable.
//
// The result has one error for each event, nil if it was applied: an *event.Error
// if the event is invalid, ErrErased if its customer was erased, and any other
// error if the record of the customer cannot be changed. If Update itself fails,
// the store could not be read or written. Any part of the batch may have been
// applied, and calling Update again with the same events completes it.
func (p *Service) Update(ctx context.Context, events [][]byte) ([]error, error) {
	u, _ := p.updaters.Get().(*updater)
	if u == nil {
		u = &updater{}
	}
	defer p.updaters.Put(u)
	u.begin(p, len(events))
	for i, raw := range events {
		if err := u.parse(i, raw); err != nil {
			u.errs[i] = err
		}
	}
	if err := u.run(ctx); err != nil {
		return nil, err
	}
	rejected := 0
	for _, err := range u.errs {
		if err != nil {
			rejected++
		}
	}
	p.rejected.Add(int64(rejected))
	p.applied.Add(int64(len(events) - rejected))
	return u.errs, nil
}

// updater is the state of one Update. Updaters are pooled for their buffers.
type updater struct {
	p            *Service
	parser       event.Parser
	arena        arena
	errs         []error
	updates      []update
	traits       []traitUpdate
	customers    []*customer
	index        map[string]int
	spare        []*customer
	key          []byte
	extract      []byte
	keys         []string
	positions    []int // of keys and of changes in customers
	changes      []store.Change
	watcher      record.TriggerEvaluator
	viewer       record.Viewer
	now          int64 // time of the current attempt, in Unix milliseconds
	historyUntil int64 // creation time of a store that replaces a lost one
}

// update is a parsed event.
type update struct {
	event     int
	customer  int // the customer that the event is about
	anonymous int // the anonymous customer to merge into it, -1 for none
	known     int // the known customer with the previousId of an alias, -1 for none
	fact      record.Fact
	logged    bool // the event has features or traits to apply
	erasing   erasing
	statement record.Statement // of its traits
	traits    int              // number of its traits in updater.traits
	firstOf   int              // position of the first of them
	done      bool
	erased    bool   // rejected because the customer was erased
	received  bool   // the event has a receivedAt
	messageID []byte // set if the definition has segments
}

// receivedAt returns when the event was received, or its timestamp if that is unknown.
func (up *update) receivedAt() int64 {
	if up.received {
		return up.fact.ReceivedAt
	}
	return up.fact.Time
}

type traitUpdate struct {
	name  []byte
	value event.Value
}

// customer is a record in memory.
type customer struct {
	key     string
	rec     record.Record
	version store.Version
	loaded  bool
	updated bool // segments were evaluated with the current rules
	changed bool
	linked  bool         // its link is new in this attempt
	strip   bool         // its content is merged into the customer that it links to
	lost    bool         // the commit had a conflict: its updates are applied again
	follow  int          // the customer that it links to, -1 for none
	sources []int        // customers merged into it in this attempt
	cause   record.Cause // of the latest change
	history bool         // an event of an earlier generation was applied
	err     error
}

func (u *updater) begin(p *Service, n int) {
	u.p = p
	u.arena.reset()
	u.errs = make([]error, n)
	u.updates, u.traits = u.updates[:0], u.traits[:0]
	u.spare = append(u.spare, u.customers...)
	u.customers = u.customers[:0]
	if u.index == nil {
		u.index = map[string]int{}
	}
	clear(u.index)
}

// parse parses an event and adds it to the updates.
func (u *updater) parse(i int, raw []byte) error {
	e, err := u.parser.Parse(raw)
	if err != nil {
		return err
	}
	if e.Time < 0 || e.Time >= record.MaxTime {
		return &event.Error{Pointer: "/timestamp", Rule: "range", Message: "timestamp must not be before 1970"}
	}
	received := e.ReceivedAt
	if !e.HasReceivedAt {
		received = u.p.now().UnixMilli()
	}
	if e.Time-received > u.p.def.MaxFuture {
		u.p.future.Incr(1)
		return &event.Error{Pointer: "/timestamp", Rule: "future", Message: "timestamp lies too far after the time the event was received"}
	}
	up := update{event: i, anonymous: -1, known: -1, fact: record.Fact{
		Time: e.Time, ReceivedAt: min(max(e.ReceivedAt, 0), record.MaxTime-1), ID: record.HashID(e.MessageID),
	}, received: e.HasReceivedAt}
	if up.erasing = erasingRequest(e); up.erasing != noErasure {
		u.identifyErasure(e, &up)
		u.updates = append(u.updates, up)
		return nil
	}
	if u.p.def.Segments != nil {
		up.messageID = u.arena.keep(e.MessageID)
	}
	if err := u.identify(e, &up); err != nil {
		return err
	}
	var failed int
	u.extract, failed = u.p.def.Features.Extract(u.extract[:0], e)
	if failed > 0 {
		u.p.whereFailures.Incr(int64(failed))
	}
	up.logged = len(u.extract) > 0
	up.fact.Extract = u.arena.keep(u.extract)
	if e.Type == event.TypeIdentify {
		up.logged = true
		up.firstOf = len(u.traits)
		err := e.VisitTraits(func(name []byte, v event.Value) {
			v.Text = u.arena.keep(v.Text)
			u.traits = append(u.traits, traitUpdate{u.arena.keep(name), v})
		})
		if err != nil {
			return err
		}
		up.traits = len(u.traits) - up.firstOf
		if err := u.checkTraits(u.traits[up.firstOf:]); err != nil {
			return err
		}
		up.statement = record.Statement{Time: e.Time, Nanos: e.Nanos, Source: u.arena.keep(e.Source)}
	}
	u.updates = append(u.updates, up)
	return nil
}

// identify sets the customers of an event. Placeholder ids count as missing.
func (u *updater) identify(e *event.Event, up *update) error {
	ids := &u.p.def.Identity
	user := len(e.UserID) > 0 && ids.Valid(e.UserID)
	anonymous := len(e.AnonymousID) > 0 && ids.Valid(e.AnonymousID)
	switch {
	case user:
		up.customer = u.customer(record.User, e.UserID)
	case anonymous:
		up.customer = u.customer(record.Anonymous, e.AnonymousID)
	default:
		u.p.unidentified.Incr(1)
		return &event.Error{Rule: "identifier", Message: "neither userId nor anonymousId identifies a customer: they are placeholders, addresses or blank"}
	}
	switch {
	case !user:
	case e.Type == event.TypeIdentify && anonymous:
		up.anonymous = u.customer(record.Anonymous, e.AnonymousID)
	case e.Type == event.TypeAlias && len(e.PreviousID) > 0 && ids.Valid(e.PreviousID):
		up.anonymous = u.customer(record.Anonymous, e.PreviousID)
		up.known = u.customer(record.User, e.PreviousID)
	}
	return nil
}

// customer returns the position of a customer, which it adds if it is new.
func (u *updater) customer(kind byte, id []byte) int {
	u.key = append(append(u.key[:0], kind), id...)
	if i, ok := u.index[string(u.key)]; ok {
		return i
	}
	return u.customerByKey(string(u.key))
}

func (u *updater) customerByKey(key string) int {
	if i, ok := u.index[key]; ok {
		return i
	}
	var c *customer
	if n := len(u.spare); n > 0 {
		c, u.spare = u.spare[n-1], u.spare[:n-1]
	} else {
		c = &customer{}
	}
	c.key = key
	c.reset()
	i := len(u.customers)
	u.customers = append(u.customers, c)
	u.index[key] = i
	return i
}

// reset marks the customer to be loaded.
func (c *customer) reset() {
	c.loaded, c.updated, c.changed, c.linked, c.strip, c.lost = false, false, false, false, false, false
	c.follow, c.err, c.sources = -1, nil, c.sources[:0]
	c.cause, c.history = record.Cause{Reason: record.ByMerge}, false
}

// exists reports whether the customer is stored or was changed in this attempt.
func (c *customer) exists() bool { return c.version != store.Absent || c.changed || c.linked }

func (u *updater) run(ctx context.Context) error {
	g, err := u.p.recentGeneration(ctx)
	if err != nil {
		return err
	}
	u.historyUntil = g.historyUntil()
	for attempt := 0; ; attempt++ {
		if err := u.load(ctx); err != nil {
			return err
		}
		u.now = u.p.now().UnixMilli()
		u.evaluateOutdated()
		u.apply()
		again, err := u.commit(ctx)
		if err != nil || !again {
			return err
		}
		// Back off if writers repeatedly conflict on one customer.
		if attempt > 2 {
			wait := time.NewTimer(rand.N(time.Millisecond << min(attempt, 8)))
			select {
			case <-ctx.Done():
				wait.Stop()
				return ctx.Err()
			case <-wait.C:
			}
		}
	}
}

// load loads the customers that are not loaded yet, and those that they link to.
func (u *updater) load(ctx context.Context) error {
	for {
		u.keys, u.positions = u.keys[:0], u.positions[:0]
		for i, c := range u.customers {
			if !c.loaded {
				u.keys = append(u.keys, c.key)
				u.positions = append(u.positions, i)
			}
		}
		if len(u.keys) == 0 {
			return nil
		}
		records, err := u.p.store.Load(ctx, u.keys)
		if err != nil {
			return err
		}
		for n, i := range u.positions {
			c := u.customers[i]
			c.loaded, c.version = true, records[n].Version
			if c.version == store.Absent {
				c.rec.Reset(u.p.def)
				continue
			}
			if err := c.rec.Decode(u.p.def, c.key, records[n].Data); err != nil {
				c.err = err
				continue
			}
			if link := c.rec.Link(); link != "" {
				c.follow = u.customerByKey(link)
			}
		}
	}
}

// resolve follows the links of a customer to the one that receives its events.
func (u *updater) resolve(i int) (*customer, error) {
	seen := i
	for steps := 1; ; steps++ {
		c := u.customers[i]
		if c.err != nil {
			return nil, c.err
		}
		if c.follow < 0 {
			return c, nil
		}
		i = c.follow
		// Two writers that merge two known customers into each other at the
		// same time create a cycle. It is broken at the smallest key.
		if i == seen {
			first := u.customers[i]
			for n := u.customers[i].follow; n != seen; n = u.customers[n].follow {
				if u.customers[n].key < first.key {
					first = u.customers[n]
				}
			}
			first.rec.LinkTo("")
			first.follow, first.changed = -1, true
			return first, nil
		}
		// After so many steps i is inside a cycle that started further along.
		if steps > len(u.customers) {
			seen, steps = i, 0
		}
	}
}

func (u *updater) apply() {
	// First complete merges and erasures that a crash interrupted.
	for i, c := range u.customers {
		if c.err != nil || c.follow < 0 || c.strip {
			continue
		}
		into, err := u.resolve(i)
		switch {
		case err != nil:
			if c.rec.HasUnmergedContent() {
				c.err = err
			}
		case into.rec.Erased():
			c.eraseWith(into)
		case c.rec.HasUnmergedContent():
			u.merge(into, i)
		}
	}
	for i := range u.updates {
		up := &u.updates[i]
		if up.done {
			continue
		}
		err := u.applyOne(up)
		up.erased = err == ErrErased
		if err != nil {
			u.errs[up.event] = err
			up.done = !up.erased
		}
	}
}

func (u *updater) applyOne(up *update) error {
	if up.erasing != noErasure {
		return u.applyErasure(up)
	}
	if own := u.customers[up.customer]; own.err == nil && u.p.def.Identity.MaxShared > 0 && own.rec.SeenWithCount() >= u.p.def.Identity.MaxShared {
		u.p.unidentified.Incr(1)
		return &event.Error{Pointer: "/anonymousId", Rule: "identifier", Message: "anonymousId has been seen with too many customers to identify one"}
	}
	c, err := u.resolve(up.customer)
	if err != nil {
		return err
	}
	if u.rejectsErased(up, c) {
		return ErrErased
	}
	if err := u.checkTraitCount(up, c); err != nil {
		return err
	}
	if up.known >= 0 {
		err = u.joinAlias(c, up)
	} else if up.anonymous >= 0 {
		err = u.join(c, up.anonymous)
	}
	if err != nil {
		return err
	}
	if c.version == store.Absent {
		c.changed = true
	}
	c.history = c.history || up.receivedAt() < u.historyUntil
	if c.changed {
		c.cause = record.Cause{Reason: record.ByEvent, EventID: up.messageID}
	}
	if !up.logged {
		return nil
	}
	behind := c.rec.LastEventAt() - up.fact.Time
	applied, err := c.rec.Apply(up.fact)
	if err != nil {
		c.err = err
		return err
	}
	if !applied {
		u.p.duplicates.Incr(1)
		return nil
	}
	if behind > 0 && len(up.fact.Extract) > 0 && u.p.def.Features.IsTooLate(up.fact.Extract, behind) {
		u.p.late.Incr(1)
	}
	c.changed = true
	c.cause = record.Cause{Reason: record.ByEvent, EventID: up.messageID}
	for _, t := range u.traits[up.firstOf : up.firstOf+up.traits] {
		if _, err := c.rec.SetTrait(t.name, t.value, up.statement); err != nil {
			c.err = err
			return err
		}
	}
	return nil
}

// joinAlias merges the customer with the previousId of an alias into c. The
// previousId is an anonymousId or, with merge_known, a userId. The id of a known
// customer is not an anonymous id as well, unless that has events.
func (u *updater) joinAlias(c *customer, up *update) error {
	isKnown := u.customers[up.known].exists()
	if !isKnown || u.customers[up.anonymous].exists() {
		if err := u.join(c, up.anonymous); err != nil {
			return err
		}
	}
	if !u.p.def.Identity.MergeKnown {
		return nil
	}
	if !isKnown {
		// A userId without events follows the anonymous id, so that its events
		// do too.
		if into, err := u.resolve(up.anonymous); err != nil || into != c {
			return err
		}
	}
	return u.join(c, up.known)
}

// join merges a customer into c unless it is already merged into another: an
// anonymous id belongs to the first customer that it is identified with.
func (u *updater) join(c *customer, other int) error {
	a := u.customers[other]
	ids := &u.p.def.Identity
	switch into, err := u.resolve(other); {
	case a.err != nil:
		return a.err
	case err != nil:
		return err
	case into == c:
		// A crash may have written the link of an empty record but not the
		// merge.
		if a != c && !c.rec.Merged(a.key) {
			u.merge(c, other)
		}
		return a.err
	case into.rec.Erased():
		u.p.refusedMerges.Incr(1)
		return nil
	case a.follow >= 0:
		u.p.refusedMerges.Incr(1)
		if ids.MaxShared > 0 && a.rec.NoteSeenWith(c.key, ids.MaxShared) {
			a.linked = true
		}
		return nil
	case a.key[0] == record.Anonymous && ids.MaxMerged > 0 && c.rec.AnonymousMerged() >= ids.MaxMerged:
		u.p.refusedMerges.Incr(1)
		return nil
	}
	a.rec.LinkTo(c.key)
	a.linked = true
	a.follow = u.index[c.key]
	u.merge(c, other)
	return a.err
}

// merge copies the content of a customer that has a link into the one that it links
// to.
func (u *updater) merge(into *customer, from int) {
	c := u.customers[from]
	changed, err := into.rec.Merge(c.key, &c.rec)
	if err != nil {
		c.err = err
		return
	}
	into.changed = into.changed || changed
	into.sources = append(into.sources, from)
	c.strip = c.rec.HasUnmergedContent()
}

// commit writes the changes in the order that Update describes: links, then
// content, then stripped records. It reports whether updates must be applied again
// because of conflicts.
func (u *updater) commit(ctx context.Context) (again bool, err error) {
	if slices.ContainsFunc(u.customers, func(c *customer) bool { return c.linked }) {
		if err := u.write(ctx, func(c *customer) bool { return c.linked }); err != nil {
			return false, err
		}
	}
	for _, c := range u.customers {
		// Content must not be merged before its link is written.
		for _, from := range c.sources {
			c.lost = c.lost || u.customers[from].lost || u.customers[from].err != nil
		}
	}
	err = u.write(ctx, func(c *customer) bool { return c.changed && !c.linked && !c.lost })
	if err != nil {
		return false, err
	}
	if err := u.stripMerged(ctx); err != nil {
		return false, err
	}
	if err := u.finishErasures(ctx); err != nil {
		return false, err
	}

	// Committed records are not written again in the next attempt.
	for _, c := range u.customers {
		c.changed, c.linked, c.strip, c.sources = false, false, false, c.sources[:0]
	}
	for i := range u.updates {
		up := &u.updates[i]
		if up.done {
			continue
		}
		lost := up.known >= 0 && u.customers[up.known].lost
		for _, n := range [...]int{up.customer, up.anonymous} {
			for ; n >= 0 && !lost; n = u.customers[n].follow {
				lost = u.customers[n].lost
			}
		}
		up.done = !lost
		again = again || lost
		if !lost && !up.erased {
			_, u.errs[up.event] = u.resolve(up.customer)
		}
	}
	if !again {
		return false, nil
	}
	// Customers of an update that is applied again are loaded again, whether the
	// commit of their record had a conflict or not.
	for i := range u.updates {
		up := &u.updates[i]
		if up.done {
			continue
		}
		u.reload(up.customer)
		for _, other := range [...]int{up.anonymous, up.known} {
			if other >= 0 {
				u.reload(other)
			}
		}
	}
	return true, nil
}

// reload marks a customer, and those that it links to, to be loaded again.
func (u *updater) reload(i int) {
	for i >= 0 {
		c := u.customers[i]
		i = c.follow
		if c.err == nil {
			c.reset()
		}
	}
}

// write commits the selected customers and marks those with a conflict. It calls
// Commit even if none is selected, as a durability barrier: a batch of duplicates
// must not be acknowledged before the first delivery of its events is durable.
func (u *updater) write(ctx context.Context, selected func(*customer) bool) error {
	u.changes, u.positions = u.changes[:0], u.positions[:0]
	for i, c := range u.customers {
		if c.err != nil || c.follow >= 0 && !c.linked || !selected(c) {
			continue
		}
		c.rec.EnqueueMergeLeaves(u.now)
		if !c.linked {
			if err := u.evaluateSegments(c, c.changeCause()); err != nil {
				c.err = err
				continue
			}
		}
		if _, c.err = c.rec.SetIdentifiers(); c.err != nil {
			continue
		}
		if c.err = u.watcher.Schedule(&c.rec, c.key); c.err != nil {
			continue
		}
		u.extract = c.rec.Encode(u.extract[:0], c.key)
		u.changes = append(u.changes, store.Change{Key: c.key, Version: c.version, Data: u.arena.keep(u.extract), Index: indexEdits(&c.rec), Purge: c.rec.Erased()})
		u.positions = append(u.positions, i)
	}
	conflicts, err := u.p.store.Commit(ctx, u.changes)
	for tooLarge(err) {
		// Nothing was applied. Commit the other records without this one.
		n := err.(*store.ChangeError).Position
		u.customers[u.positions[n]].err = &event.Error{Rule: "size", Message: "the customer's profile would be too large to store: " + err.(*store.ChangeError).Err.Error()}
		u.changes, u.positions = slices.Delete(u.changes, n, n+1), slices.Delete(u.positions, n, n+1)
		conflicts, err = u.p.store.Commit(ctx, u.changes)
	}
	if err != nil {
		return err
	}
	u.p.conflicts.Incr(int64(len(conflicts)))
	for _, n := range conflicts {
		u.customers[u.positions[n]].lost = true
	}
	for _, i := range u.positions {
		if c := u.customers[i]; !c.lost && len(c.rec.Outbox()) > 0 && c.rec.OutboxDue() <= u.p.now().UnixMilli() {
			u.p.hint(c.key)
		}
	}
	return nil
}

// evaluateOutdated evaluates the segments of customers that were last evaluated with
// other rules or parameters, before any event is applied: segment changes that
// follow from the rules must not be attributed to an event. It pins the parameters
// for this attempt. That happens after the load, because a sweep may have written
// the records with newer parameters.
func (u *updater) evaluateOutdated() {
	u.viewer.PinParameters(u.p.def)
	for _, c := range u.customers {
		if c.err == nil && c.version != store.Absent && c.follow < 0 && !c.updated && u.viewer.SegmentsOutdated(&c.rec) {
			c.err = u.evaluateSegments(c, record.Cause{})
		}
		c.updated = true
	}
}

// changeCause returns the cause of the customer's segment changes.
func (c *customer) changeCause() record.Cause {
	cause := c.cause
	cause.History = c.history
	return cause
}

// evaluateSegments updates the segment membership of a customer.
func (u *updater) evaluateSegments(c *customer, cause record.Cause) error {
	j, err := u.viewer.EvaluateSegments(&c.rec, c.key, u.now, cause)
	u.p.countSegmentChanges(j)
	return err
}

// countSegmentChanges adds segment changes to the metrics.
func (p *Service) countSegmentChanges(j record.SegmentChanges) {
	if j != (record.SegmentChanges{}) {
		p.entered.Incr(int64(j.Entered))
		p.left.Incr(int64(j.Left))
		p.dropped.Incr(int64(j.Dropped))
	}
}

// indexEdits returns the changes of indexes for a record. Every write of a record
// includes them.
func indexEdits(r *record.Record) (edits []store.IndexEdit) {
	r.Edits(func(e record.Entry, remove bool) {
		edits = append(edits, store.IndexEdit{Index: e.Index, Value: e.Value, Remove: remove})
	})
	return edits
}

// tooLarge reports whether err is a *store.ChangeError about a record above the
// size limit of the store.
func tooLarge(err error) bool {
	refused, ok := err.(*store.ChangeError)
	return ok && errors.Is(refused, store.ErrTooLarge)
}

// stripMerged removes the content of records that were merged into the customer
// that they link to. It retries after conflicts: another writer, such as an outbox
// that acknowledges messages, leaves the content in place.
func (u *updater) stripMerged(ctx context.Context) error {
	u.keys = u.keys[:0]
	for i, c := range u.customers {
		if into, err := u.resolve(i); c.strip && !c.lost && err == nil && !into.lost {
			u.keys = append(u.keys, c.key)
		}
	}
	for len(u.keys) > 0 {
		records, err := u.p.store.Load(ctx, u.keys)
		if err != nil {
			return err
		}
		u.changes = u.changes[:0]
		for i, key := range u.keys {
			rec := &u.customers[u.index[key]].rec
			if records[i].Version == store.Absent || rec.Decode(u.p.def, key, records[i].Data) != nil || !rec.HasUnmergedContent() {
				continue
			}
			rec.Strip(key)
			u.changes = append(u.changes, store.Change{Key: key, Version: records[i].Version, Data: u.arena.keep(rec.Encode(nil, key)), Index: indexEdits(rec)})
		}
		if len(u.changes) == 0 {
			return nil
		}
		lost, err := u.p.store.Commit(ctx, u.changes)
		if err != nil {
			return err
		}
		u.keys = u.keys[:0]
		for _, n := range lost {
			u.keys = append(u.keys, u.changes[n].Key)
		}
	}
	return nil
}

// arena stores bytes for the duration of a batch, in chunks that the next batch
// reuses.
type arena struct {
	chunks [][]byte
	chunk  int // the first chunk that may have free space
}

const (
	arenaChunk = 64 << 10
	// maxArenaChunks limits the memory that is kept between batches.
	maxArenaChunks = 256
)

func (a *arena) reset() {
	if len(a.chunks) > maxArenaChunks {
		a.chunks = a.chunks[:maxArenaChunks]
	}
	for i := range a.chunks {
		a.chunks[i] = a.chunks[i][:0]
	}
	a.chunk = 0
}

// keep returns a copy of b that is valid until reset.
func (a *arena) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	for ; a.chunk < len(a.chunks); a.chunk++ {
		if chunk := a.chunks[a.chunk]; len(b) <= cap(chunk)-len(chunk) {
			break
		}
	}
	if a.chunk == len(a.chunks) {
		a.chunks = append(a.chunks, make([]byte, 0, max(arenaChunk, len(b))))
	}
	chunk := &a.chunks[a.chunk]
	n := len(*chunk)
	*chunk = append(*chunk, b...)
	return (*chunk)[n:len(*chunk):len(*chunk)]
}
