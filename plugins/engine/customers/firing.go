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

// The events that firings are told as.
const (
	EventTriggerFired   = "Trigger Fired"
	EventTriggerHeldOut = "Trigger Held Out"
)

// TriggerScheduler fires what is due. Any number of them, in any number of processes,
// share the work: a firing is a commit on the condition that the record is as
// it was when the firing was decided, so that one of several wins. What is told
// goes into the record's outbox in the same commit; who dies before it has done
// nothing, and who dies after it has done everything.
type TriggerScheduler struct {
	p       *Service
	limit   int
	rec     record.Record
	viewer  record.Viewer
	watcher record.TriggerEvaluator
	since   []int64 // when each trigger came to be
	stuck   stuck
}

// TriggerScheduler returns one that looks at up to limit customers at a time, nil if
// the definition has no triggers. It is for one goroutine.
func (p *Service) TriggerScheduler(limit int) *TriggerScheduler {
	if p.messages == nil {
		return nil
	}
	return &TriggerScheduler{p: p, limit: limit}
}

// Fire decides what is due for some customers. It looks ahead for a time, the
// longest that the caller is going to wait, and tells in how much of that the
// next is due: 0 if one may be due now.
func (t *TriggerScheduler) Fire(ctx context.Context, ahead time.Duration) (next time.Duration, err error) {
	now := t.p.now()
	if t.since == nil {
		if t.since, err = t.p.introduced(ctx, now.UnixMilli(), true); err != nil {
			return 0, err
		}
	}
	page, err := t.p.due(ctx, record.TriggerIndex, now.Add(ahead).UnixMilli(), 4*t.limit, &t.stuck)
	if err != nil {
		return 0, err
	}
	next = ahead
	later := record.FormatTime(now.UnixMilli() + 1)
	if n := slices.IndexFunc(page, func(e store.IndexEntry) bool { return e.Value >= later }); n >= 0 {
		if due, ok := record.ParseTime(page[n].Value); ok {
			next = min(ahead, time.UnixMilli(due).Sub(now))
		}
		page = page[:n]
	}
	if len(page) == 0 {
		return next, nil
	}
	// Of much that is due a part at random is taken, so that those who look at
	// the same time seldom want the same.
	if len(page) > t.limit {
		next = 0
		from := rand.IntN(len(page) - t.limit + 1)
		page = page[from : from+t.limit]
	}
	found := make(map[string]string, len(page))
	keys := make([]string, 0, len(page))
	for _, e := range page {
		if _, twice := found[e.Key]; !twice {
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
	// What is decided is as of now, when it is known what was loaded.
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
				t.stuck.add(key, found[key]) // whoever updates the customer says so
				continue
			}
			c.Data, c.Index = t.rec.Encode(room(records[i].Data), key), indexEdits(&t.rec)
		}
		// An entry that no record stands behind, as one that expired leaves,
		// goes.
		stale := store.IndexEdit{Index: record.TriggerIndex, Value: found[key], Remove: true}
		due, some := t.rec.TriggersDue()
		gone := records[i].Version == store.Absent || !some || record.FormatTime(due) != found[key]
		if gone && !slices.Contains(c.Index, stale) {
			c.Index = append(c.Index, stale)
		}
		if !gone && len(decisions) == 0 {
			continue // not due yet: somebody was faster
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
			// Somebody fired it, or an event came. In the second case it is
			// found again.
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

// decide decides what is due for the customer whose record was read.
func (t *TriggerScheduler) decide(key string, now int64) ([]triggers.Decision, error) {
	// Segments are those of the moment, for causes and conditions alike.
	if t.rec.Link() == "" {
		j, err := t.viewer.EvaluateSegments(&t.rec, key, now, record.Cause{})
		if err != nil {
			return nil, err
		}
		t.p.judged(j)
	}
	must := &conditions{t: t, now: now}
	decisions, err := t.watcher.Decide(nil, &t.rec, key, now, must)
	if err != nil {
		return nil, err
	}
	for i := range decisions {
		d := &decisions[i]
		if d.Outcome != triggers.Fired && d.Outcome != triggers.ControlGroup {
			continue
		}
		id := t.p.messages.ID(&d.Firing, record.KeyID(key))
		t.rec.Enqueue(record.Message{ID: id, Time: now, Content: t.content(key, d, id, now, must)})
	}
	return decisions, t.watcher.Schedule(&t.rec, key)
}

// conditions answers what must hold for the customer whose record was read.
type conditions struct {
	t     *TriggerScheduler
	now   int64
	known map[string]any
}

func (c *conditions) facts() (map[string]any, error) {
	var err error
	if c.known == nil {
		c.known, err = c.t.viewer.QueryDocument(&c.t.rec, c.now, c.t.p.messages.Features, c.t.p.messages.ReadsSegments)
	}
	return c.known, err
}

func (c *conditions) ask(q *definition.Query) (bool, error) {
	if q == nil {
		return true, nil
	}
	facts, err := c.facts()
	if err != nil {
		return false, err
	}
	return q.Holds(facts)
}

// Consent implements trigger.Conditions.
func (c *conditions) Consent(channel int) (bool, error) {
	return c.ask(c.t.p.messages.Consent[channel])
}

// When implements trigger.Conditions.
func (c *conditions) When(rule int) (bool, error) { return c.ask(c.t.p.messages.When[rule]) }

// Introduced implements trigger.Conditions.
func (c *conditions) Introduced(rule int) int64 { return c.t.since[rule] }

// maxData bounds what goes with a message.
const maxData = 16 << 10

// content is the event by which a firing is told.
func (t *TriggerScheduler) content(key string, d *triggers.Decision, id record.MessageID, now int64, must *conditions) []byte {
	rule := &t.p.messages.Rules[d.Rule]
	name, field := EventTriggerFired, "userId"
	if d.Outcome == triggers.ControlGroup {
		name = EventTriggerHeldOut
	}
	if key[0] == record.Anonymous {
		field = "anonymousId"
	}
	at := func(dst []byte, before string, ms int64) []byte {
		return append(event.AppendTime(append(dst, before...), ms), '"')
	}
	b := append(make([]byte, 0, 512), `{"type":"track","event":"`...)
	b = append(b, name...)
	b = append(b, `","messageId":"`...)
	b = hex.AppendEncode(b, id[:])
	b = append(b, `","`+field+`":`...)
	b = jsontext.AppendString(b, record.KeyID(key))
	b = at(b, `,"timestamp":"`, now)
	b = append(b, `,"properties":{"trigger":"`+rule.Name+`","channel":"`+t.p.messages.Channels[rule.Channel].Name+`"`...)
	b = at(b, `,"cause_at":"`, d.CauseTime)
	b = at(b, `,"due_at":"`, d.Due)
	if q := t.p.messages.Data[d.Rule]; q != nil {
		if data := t.data(q, must); data != nil {
			b = append(append(b, `,"data":`...), data...)
		}
	}
	return append(b, "}}"...)
}

func (t *TriggerScheduler) data(q *definition.Query, must *conditions) []byte {
	facts, err := must.facts()
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
