package customers

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Update takes a batch of events into the profiles of their customers. It
// reads all the records concerned in one round trip and writes those that
// changed in another, each on the condition that nobody changed it meanwhile;
// records that somebody did change are read and written again.
//
// The result has an error for each event that could not be taken in, nil for
// the others; an *event.Error says what is wrong with the event, any other
// error what is wrong with the customer's record. When Update itself fails the
// store could not be read or written: any part of the batch may have been
// taken in, and calling it again with the same events completes it without
// counting anything twice.
func (p *Service) Update(ctx context.Context, events [][]byte) ([]error, error) {
	u, _ := p.updaters.Get().(*updater)
	if u == nil {
		u = &updater{}
	}
	defer p.updaters.Put(u)
	u.begin(p, len(events))
	for i, raw := range events {
		if err := u.read(i, raw); err != nil {
			u.errs[i] = err
		}
	}
	if err := u.run(ctx); err != nil {
		return nil, err
	}
	refused := 0
	for _, err := range u.errs {
		if err != nil {
			refused++
		}
	}
	p.refused.Add(int64(refused))
	p.taken.Add(int64(len(events) - refused))
	return u.errs, nil
}

// updater holds the state of one Update; they are pooled for their memory.
type updater struct {
	p         *Service
	parser    event.Parser
	arena     arena
	errs      []error
	updates   []update
	traits    []traitUpdate
	customers []*customer
	index     map[string]int
	spare     []*customer
	key       []byte
	extract   []byte
	keys      []string
	who       []int
	changes   []store.Change
	watcher   record.TriggerEvaluator
	viewer    record.Viewer
	now       int64 // of the attempt under way, in Unix milliseconds
}

// update is an event, read.
type update struct {
	event     int
	who       int // the customer it is about
	anonymous int // the anonymous customer to merge into that one, -1 for none
	known     int // the known customer to merge into that one, -1 for none
	fact      record.Fact
	logged    bool // the event matters to a feature or carries traits
	erasing   erasing
	source    []byte
	traits    int // how many of updater.traits are its
	firstOf   int
	settled   bool
	refused   bool   // the customer was erased
	messageID []byte // if segments are judged
}

type traitUpdate struct {
	name  []byte
	value event.Value
}

// customer is a record being worked on.
type customer struct {
	key     string
	rec     record.Record
	version store.Version
	loaded  bool
	judged  bool // as it was before anything is applied, if others judged it last
	changed bool
	linked  bool // got its link in this round
	strip   bool // its content is in the record it links to
	lost    bool // somebody else wrote it first: its updates go again
	follow  int  // the customer its link leads to, -1 for none
	sources []int
	cause   record.Cause // of the latest change
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

// read parses an event and notes what is to be done about it.
func (u *updater) read(i int, raw []byte) error {
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
	}}
	if up.erasing = erasingOf(e); up.erasing != noErasure {
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
		up.source = u.arena.keep(e.Source)
	}
	u.updates = append(u.updates, up)
	return nil
}

// identify finds the customers an event concerns. Ids that stand for nobody
// are as good as absent.
func (u *updater) identify(e *event.Event, up *update) error {
	ids := &u.p.def.Identity
	user := len(e.UserID) > 0 && ids.Valid(e.UserID)
	anonymous := len(e.AnonymousID) > 0 && ids.Valid(e.AnonymousID)
	switch {
	case user:
		up.who = u.customer(record.User, e.UserID)
	case anonymous:
		up.who = u.customer(record.Anonymous, e.AnonymousID)
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
		if ids.MergeKnown {
			up.known = u.customer(record.User, e.PreviousID)
		}
	}
	return nil
}

// customer returns the position of the customer with an id.
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
	c.forget()
	i := len(u.customers)
	u.customers = append(u.customers, c)
	u.index[key] = i
	return i
}

// forget makes the customer one that is to be loaded.
func (c *customer) forget() {
	c.loaded, c.judged, c.changed, c.linked, c.strip, c.lost = false, false, false, false, false, false
	c.follow, c.err, c.sources = -1, nil, c.sources[:0]
	c.cause = record.Cause{Reason: record.ByMerge}
}

// conflictBackoff is the delay after conditional writes that conflict again and
// again.
var conflictBackoff = backoff.Exponential{Initial: 2 * time.Millisecond, Max: 256 * time.Millisecond}

func (u *updater) run(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		if err := u.load(ctx); err != nil {
			return err
		}
		u.now = u.p.now().UnixMilli()
		u.judgeAnew()
		u.apply()
		again, err := u.commit(ctx)
		if err != nil || !again {
			return err
		}
		// Writers that keep meeting on one customer spread out.
		if attempt > 2 {
			if err := conflictBackoff.Wait(ctx, attempt); err != nil {
				return err
			}
		}
	}
}

// load reads every customer that is not loaded, and those their links lead to.
func (u *updater) load(ctx context.Context) error {
	for {
		u.keys, u.who = u.keys[:0], u.who[:0]
		for i, c := range u.customers {
			if !c.loaded {
				u.keys = append(u.keys, c.key)
				u.who = append(u.who, i)
			}
		}
		if len(u.keys) == 0 {
			return nil
		}
		records, err := u.p.store.Load(ctx, u.keys)
		if err != nil {
			return err
		}
		for n, i := range u.who {
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

// resolve returns the customer that a customer's events go to.
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
		// same time make a circle. The customer first in order of key is
		// taken to be the one that stays.
		if i == seen {
			first := u.customers[i]
			for at := u.customers[i].follow; at != seen; at = u.customers[at].follow {
				if u.customers[at].key < first.key {
					first = u.customers[at]
				}
			}
			first.rec.LinkTo("")
			first.follow, first.changed = -1, true
			return first, nil
		}
		// A tail that leads into a circle is followed into it.
		if steps > len(u.customers) {
			seen, steps = i, 0
		}
	}
}

func (u *updater) apply() {
	// A merge, or an erasure, that a crash cut short comes first.
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
		if up.settled {
			continue
		}
		err := u.applyOne(up)
		up.refused = err == ErrErased
		if err != nil {
			u.errs[up.event] = err
			up.settled = !up.refused
		}
	}
}

func (u *updater) applyOne(up *update) error {
	if up.erasing != noErasure {
		return u.applyErasure(up)
	}
	if at := u.customers[up.who]; at.err == nil && u.p.def.Identity.MaxShared > 0 && at.rec.SeenWithCount() >= u.p.def.Identity.MaxShared {
		u.p.unidentified.Incr(1)
		return &event.Error{Pointer: "/anonymousId", Rule: "identifier", Message: "anonymousId has been seen with too many customers to identify one"}
	}
	c, err := u.resolve(up.who)
	if err != nil {
		return err
	}
	if u.refuses(up, c) {
		return ErrErased
	}
	for _, other := range [...]int{up.anonymous, up.known} {
		if other >= 0 {
			if err := u.join(c, other); err != nil {
				return err
			}
		}
	}
	if c.version == store.Absent {
		c.changed = true
	}
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
		if _, err := c.rec.SetTrait(t.name, t.value, up.fact.Time, up.source); err != nil {
			c.err = err
			return err
		}
	}
	return nil
}

// join merges a customer into c, unless it belongs to another already: the first
// customer an id is identified as keeps it.
func (u *updater) join(c *customer, other int) error {
	a := u.customers[other]
	ids := &u.p.def.Identity
	switch into, err := u.resolve(other); {
	case a.err != nil:
		return a.err
	case err != nil:
		return err
	case into == c:
		// The link may be all that a crash has left of a merge of nothing.
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
	case ids.MaxMerged > 0 && c.rec.MergedCount() >= ids.MaxMerged:
		u.p.refusedMerges.Incr(1)
		return nil
	}
	a.rec.LinkTo(c.key)
	a.linked = true
	a.follow = u.index[c.key]
	u.merge(c, other)
	return a.err
}

// merge takes the content of the customer at from, which has a link, into
// another.
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

// commit writes what changed, in the order of merge.go: links, then content,
// then what is left behind. It tells whether updates must be applied again
// because somebody else changed their customers.
func (u *updater) commit(ctx context.Context) (again bool, err error) {
	if slices.ContainsFunc(u.customers, func(c *customer) bool { return c.linked }) {
		if err := u.write(ctx, func(c *customer) bool { return c.linked }); err != nil {
			return false, err
		}
	}
	for _, c := range u.customers {
		// Without its link in the store a customer's content stays its own.
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

	// What is written is not written again when the updates of others go again.
	for _, c := range u.customers {
		c.changed, c.linked, c.strip, c.sources = false, false, false, c.sources[:0]
	}
	for i := range u.updates {
		up := &u.updates[i]
		if up.settled {
			continue
		}
		lost := up.known >= 0 && u.customers[up.known].lost
		for _, at := range [...]int{up.who, up.anonymous} {
			for ; at >= 0 && !lost; at = u.customers[at].follow {
				lost = u.customers[at].lost
			}
		}
		up.settled = !lost
		again = again || lost
		if !lost && !up.refused {
			_, u.errs[up.event] = u.resolve(up.who)
		}
	}
	if !again {
		return false, nil
	}
	// Whoever is concerned by an update that goes again is read again, whether
	// lost or written: what was written has a version we do not know.
	for i := range u.updates {
		up := &u.updates[i]
		if up.settled {
			continue
		}
		u.forget(up.who)
		for _, other := range [...]int{up.anonymous, up.known} {
			if other >= 0 {
				u.forget(other)
			}
		}
	}
	return true, nil
}

func (u *updater) forget(i int) {
	for i >= 0 {
		c := u.customers[i]
		i = c.follow
		if c.err == nil {
			c.forget()
		}
	}
}

// write commits the customers chosen and marks those that lost a race. Having
// none to commit it commits nothing, which waits for what others wrote and this
// batch has read to be durable: a batch that only repeats events must not be
// acknowledged before they are.
func (u *updater) write(ctx context.Context, chosen func(*customer) bool) error {
	u.changes, u.who = u.changes[:0], u.who[:0]
	for i, c := range u.customers {
		if c.err != nil || c.follow >= 0 && !c.linked || !chosen(c) {
			continue
		}
		c.rec.EnqueueMergeLeaves(u.now)
		if !c.linked {
			if err := u.judge(c, c.cause); err != nil {
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
		u.changes = append(u.changes, store.Change{Key: c.key, Version: c.version, Data: u.arena.keep(u.extract), Index: indexEdits(&c.rec)})
		u.who = append(u.who, i)
	}
	conflicts, err := u.p.store.Commit(ctx, u.changes)
	for tooLarge(err) {
		// Nothing was applied. The others go without this one.
		n := err.(*store.ChangeError).Position
		u.customers[u.who[n]].err = &event.Error{Rule: "size", Message: "the customer's profile would be too large to store: " + err.(*store.ChangeError).Err.Error()}
		u.changes, u.who = slices.Delete(u.changes, n, n+1), slices.Delete(u.who, n, n+1)
		conflicts, err = u.p.store.Commit(ctx, u.changes)
	}
	if err != nil {
		return err
	}
	u.p.conflicts.Incr(int64(len(conflicts)))
	for _, n := range conflicts {
		u.customers[u.who[n]].lost = true
	}
	for _, i := range u.who {
		if c := u.customers[i]; !c.lost && len(c.rec.Outbox()) > 0 && c.rec.OutboxDue() <= u.p.now().UnixMilli() {
			u.p.hint(c.key)
		}
	}
	return nil
}

// judgeAnew judges those customers as they were before anything is applied who
// were last judged by other rules or parameters: what these make of them is not
// for an event. Parameters that change from here on are for the next attempt. They
// are taken after the records are read, lest a sweep had written these by newer.
func (u *updater) judgeAnew() {
	u.viewer.PinParameters(u.p.def)
	for _, c := range u.customers {
		if c.err == nil && c.version != store.Absent && c.follow < 0 && !c.judged && u.viewer.SegmentsOutdated(&c.rec) {
			c.err = u.judge(c, record.Cause{})
		}
		c.judged = true
	}
}

// judge finds the segments a customer is in now.
func (u *updater) judge(c *customer, cause record.Cause) error {
	j, err := u.viewer.EvaluateSegments(&c.rec, c.key, u.now, cause)
	u.p.judged(j)
	return err
}

// judged counts what came of a judgement.
func (p *Service) judged(j record.SegmentChanges) {
	if j != (record.SegmentChanges{}) {
		p.entered.Incr(int64(j.Entered))
		p.left.Incr(int64(j.Left))
		p.dropped.Incr(int64(j.Dropped))
	}
}

// indexEdits makes the indexes agree with a record that is about to be written.
// Every write of a record takes them along.
func indexEdits(r *record.Record) (edits []store.IndexEdit) {
	r.Edits(func(e record.Entry, remove bool) {
		edits = append(edits, store.IndexEdit{Index: e.Index, Value: e.Value, Remove: remove})
	})
	return edits
}

// tooLarge tells whether err is a *store.ChangeError for a record over the
// store's size limit.
func tooLarge(err error) bool {
	refused, ok := err.(*store.ChangeError)
	return ok && errors.Is(refused, store.ErrTooLarge)
}

// stripMerged drops the content of records whose content now is where their
// link leads. Whoever wrote such a record meanwhile, such as to tell what waits in
// it, need not have dropped it: it is tried until it is done.
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

// arena keeps bytes for the duration of a batch, in chunks that the next batch
// uses again.
type arena struct {
	chunks [][]byte
	at     int
}

const (
	arenaChunk = 64 << 10
	// maxArenaChunks bounds what is held between batches.
	maxArenaChunks = 256
)

func (a *arena) reset() {
	if len(a.chunks) > maxArenaChunks {
		a.chunks = a.chunks[:maxArenaChunks]
	}
	for i := range a.chunks {
		a.chunks[i] = a.chunks[i][:0]
	}
	a.at = 0
}

// keep returns a copy of b that lives until reset.
func (a *arena) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	for ; a.at < len(a.chunks); a.at++ {
		if chunk := a.chunks[a.at]; len(b) <= cap(chunk)-len(chunk) {
			break
		}
	}
	if a.at == len(a.chunks) {
		a.chunks = append(a.chunks, make([]byte, 0, max(arenaChunk, len(b))))
	}
	chunk := &a.chunks[a.at]
	n := len(*chunk)
	*chunk = append(*chunk, b...)
	return (*chunk)[n:len(*chunk):len(*chunk)]
}
