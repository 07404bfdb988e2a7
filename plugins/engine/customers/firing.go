package customers

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Names of the events that a firing emits.
const (
	EventTriggerFired   = "Trigger Fired"
	EventTriggerHeldOut = "Trigger Held Out"
)

// TriggerScheduler fires due triggers. Any number of schedulers, in any number of
// processes, share the work.
//
// Records with pending triggers are in an index by the time when the first of them
// is due. Fire loads the due records, decides about each due trigger (consent,
// frequency caps, quiet hours, control group, ...), and commits the record with the
// decision and, if it fired, the message in the record's outbox. The commit is
// conditional on the version that was loaded, so of several processes one wins, and
// a crash leaves either no trace or the complete result. For example:
//
//	09:00  u1 adds a product to the cart         index: u1 at 10:00
//	09:20  u1 orders: the order cancels it       index: no entry
//	09:30  u1 adds another product               index: u1 at 10:30
//	10:30  Fire: outbox of u1 has the message    index: no entry
type TriggerScheduler struct {
	p       *Service
	limit   int
	rec     record.Record
	viewer  record.Viewer
	watcher record.TriggerEvaluator
	since   []int64 // by rule: creation time
	// historyUntil is the creation time of a store that replaces a lost one.
	historyUntil int64
	stuck        stuck
}

// TriggerScheduler returns a scheduler that handles up to limit customers at a time.
// It is for one goroutine. It is nil if the definition has no triggers.
func (p *Service) TriggerScheduler(limit int) *TriggerScheduler {
	if p.messages == nil {
		return nil
	}
	return &TriggerScheduler{p: p, limit: limit}
}

// Fire handles due triggers of up to limit customers. It returns the time until the
// next trigger is due, at most maxWait; 0 if more may be due now.
func (t *TriggerScheduler) Fire(ctx context.Context, maxWait time.Duration) (next time.Duration, err error) {
	if _, err := t.p.recentGeneration(ctx); err != nil {
		return 0, err
	}
	if t.p.generations.loss() != nil {
		return maxWait, nil
	}
	now := t.p.now()
	if t.since == nil {
		if t.since, err = t.p.introduced(ctx, now.UnixMilli(), true); err != nil {
			return 0, err
		}
	}
	page, err := t.p.due(ctx, record.TriggerIndex, now.Add(maxWait).UnixMilli(), 4*t.limit, &t.stuck)
	if err != nil {
		return 0, err
	}
	next = maxWait
	later := record.FormatTime(now.UnixMilli() + 1)
	if n := slices.IndexFunc(page, func(e store.IndexEntry) bool { return e.Value >= later }); n >= 0 {
		if due, ok := record.ParseTime(page[n].Value); ok {
			next = min(maxWait, time.UnixMilli(due).Sub(now))
		}
		page = page[:n]
	}
	if len(page) == 0 {
		return next, nil
	}
	// Processes that fire at the same time take random parts of a long list, so
	// that they seldom conflict.
	if len(page) > t.limit {
		next = 0
		from := rand.IntN(len(page) - t.limit + 1)
		page = page[from : from+t.limit]
	}
	found := make(map[string]string, len(page))
	keys := make([]string, 0, len(page))
	for _, e := range page {
		if _, listed := found[e.Key]; !listed {
			found[e.Key] = e.Value
			keys = append(keys, e.Key)
		}
	}
	return next, t.fire(ctx, keys, found)
}

func (t *TriggerScheduler) fire(ctx context.Context, keys []string, found map[string]string) error {
	records, err := t.p.store.Load(ctx, keys)
	if err != nil {
		return err
	}
	// The check comes after the load: if the store loses data later, the commit has
	// conflicts.
	g, err := t.p.checkGeneration(ctx)
	if err != nil || t.p.generations.loss() != nil {
		return err
	}
	t.historyUntil = g.historyUntil()
	// Decisions are as of the time after the load.
	now := t.p.now().UnixMilli()
	changes := make([]store.Change, 0, len(keys))
	decided := make([][]triggers.Decision, 0, len(keys))
	for i, key := range keys {
		c := store.Change{Key: key, Version: records[i].Version, Data: records[i].Data}
		var decisions []triggers.Decision
		if records[i].Version != store.Absent {
			err := t.rec.Decode(t.p.def, key, records[i].Data)
			if err == nil {
				decisions, err = t.decide(key, now)
			}
			if err != nil {
				t.stuck.add(key, found[key]) // Update reports the error
				continue
			}
			c.Data, c.Index = t.rec.Encode(encodeBuffer(records[i].Data), key), indexEdits(&t.rec)
		}
		// An expired record leaves an index entry without a record, which is
		// removed here.
		stale := store.IndexEdit{Index: record.TriggerIndex, Value: found[key], Remove: true}
		due, pending := t.rec.TriggersDue()
		gone := records[i].Version == store.Absent || !pending || record.FormatTime(due) != found[key]
		if gone && !slices.Contains(c.Index, stale) {
			c.Index = append(c.Index, stale)
		}
		if !gone && len(decisions) == 0 {
			continue // another process has fired it
		}
		changes, decided = append(changes, c), append(decided, decisions)
	}
	if len(changes) == 0 {
		return nil
	}
	lost, err := t.p.store.Commit(ctx, changes)
	if err != nil {
		return err
	}
	for i := range changes {
		if len(lost) > 0 && lost[0] == i {
			// Another process fired it, or an event changed the record. In the
			// second case the next call finds it.
			lost = lost[1:]
			t.p.lostFirings.Incr(1)
			continue
		}
		for _, d := range decided[i] {
			t.p.fired.Incr(1, t.p.messages.Rules[d.Rule].Name, d.Outcome.String())
			if d.Outcome == triggers.Fired {
				t.p.fireDelay.Timing((now - d.Due) * int64(time.Millisecond))
			}
		}
		if len(decided[i]) > 0 {
			t.p.hint(changes[i].Key)
		}
	}
	return nil
}

// decide decides about the due triggers of the customer in t.rec.
func (t *TriggerScheduler) decide(key string, now int64) ([]triggers.Decision, error) {
	// Causes and conditions use the current segments.
	if t.rec.Link() == "" {
		j, err := t.viewer.EvaluateSegments(&t.rec, key, now, record.Cause{})
		if err != nil {
			return nil, err
		}
		t.p.countSegmentChanges(j)
	}
	conditions := &conditions{t: t, now: now}
	decisions, err := t.watcher.Decide(nil, &t.rec, key, now, conditions)
	if err != nil {
		return nil, err
	}
	for i := range decisions {
		d := &decisions[i]
		if d.Outcome != triggers.Fired && d.Outcome != triggers.ControlGroup {
			continue
		}
		id := t.p.messages.ID(&d.Firing, record.KeyID(key))
		t.rec.Enqueue(record.Message{ID: id, Time: now, Content: t.content(key, d, id, now, conditions)})
	}
	return decisions, t.watcher.Schedule(&t.rec, key)
}

// conditions evaluates the queries of triggers for the customer in t.rec.
type conditions struct {
	t     *TriggerScheduler
	now   int64
	facts map[string]any // nil before the first query
}

func (c *conditions) loadFacts() (map[string]any, error) {
	var err error
	if c.facts == nil {
		c.facts, err = c.t.viewer.QueryDocument(&c.t.rec, c.now, c.t.p.messages.Features, c.t.p.messages.ReadsSegments)
	}
	return c.facts, err
}

func (c *conditions) holds(q *definition.Query) (bool, error) {
	if q == nil {
		return true, nil
	}
	facts, err := c.loadFacts()
	if err != nil {
		return false, err
	}
	return q.Holds(facts)
}

// Consent implements triggers.Conditions.
func (c *conditions) Consent(channel int) (bool, error) {
	return c.holds(c.t.p.messages.Consent[channel])
}

// When implements triggers.Conditions.
func (c *conditions) When(rule int) (bool, error) { return c.holds(c.t.p.messages.When[rule]) }

// Introduced implements triggers.Conditions.
func (c *conditions) Introduced(rule int) int64 { return c.t.since[rule] }

// CausesFrom implements triggers.Conditions.
func (c *conditions) CausesFrom() int64 { return c.t.historyUntil }

// maxData is the maximum size of the data of a message, in bytes.
const maxData = 16 << 10

// content returns the event of a firing as JSON.
func (t *TriggerScheduler) content(key string, d *triggers.Decision, id record.MessageID, now int64, c *conditions) []byte {
	rule := &t.p.messages.Rules[d.Rule]
	name, field := EventTriggerFired, "userId"
	if d.Outcome == triggers.ControlGroup {
		name = EventTriggerHeldOut
	}
	if key[0] == record.Anonymous {
		field = "anonymousId"
	}
	appendTime := func(dst []byte, before string, ms int64) []byte {
		return append(event.AppendTime(append(dst, before...), ms), '"')
	}
	b := append(make([]byte, 0, 512), `{"type":"track","event":"`...)
	b = append(b, name...)
	b = append(b, `","messageId":"`...)
	b = hex.AppendEncode(b, id[:])
	b = append(b, `","`+field+`":`...)
	b = jsontext.AppendString(b, record.KeyID(key))
	b = appendTime(b, `,"timestamp":"`, now)
	b = append(b, `,"properties":{"trigger":"`+rule.Name+`","channel":"`+t.p.messages.Channels[rule.Channel].Name+`"`...)
	b = appendTime(b, `,"cause_at":"`, d.CauseTime)
	b = appendTime(b, `,"due_at":"`, d.Due)
	if q := t.p.messages.Data[d.Rule]; q != nil {
		if data := t.data(q, c); data != nil {
			b = append(append(b, `,"data":`...), data...)
		}
	}
	return append(b, "}}"...)
}

func (t *TriggerScheduler) data(q *definition.Query, c *conditions) []byte {
	facts, err := c.loadFacts()
	if err != nil {
		return nil
	}
	result, err := q.Query(facts)
	if _, object := result.(map[string]any); err != nil || !object {
		t.p.dataFailures.Incr(1)
		return nil
	}
	text, err := json.Marshal(result)
	if err != nil || len(text) > maxData {
		t.p.dataFailures.Incr(1)
		return nil
	}
	return text
}
