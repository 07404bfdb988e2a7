package customers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// WhatIfQuery selects a rule to try. One of Query, Segment and Trigger is set.
type WhatIfQuery struct {
	Query *definition.Query
	// Segment is the name of a segment of the definition.
	Segment string
	// Trigger is the name of a trigger of the definition.
	Trigger string
	// AsOf is the time at which the rule is evaluated; zero means now.
	AsOf time.Time
	// Sample is the number of customers to list.
	Sample int
	// Seed selects them.
	Seed uint64
	// Profiles reports whether their profiles are listed too.
	Profiles bool
}

// WhatIfResult is the result of a rule over all profiles.
type WhatIfResult struct {
	// Customers and Unreadable are the numbers of customers and of records that
	// cannot be decoded. Matching is the number of customers that match the query
	// or segment, or for which the trigger is pending.
	Customers, Unreadable, Matching int
	// Failed is the number of customers for which the query failed.
	Failed int
	// Entering is the number of customers that match a segment and are not stored
	// as members. Leaving is the number of members that do not match.
	Entering, Leaving int
	// Waiting counts pending firings by the first of Horizons within which they
	// are due.
	Waiting []int
	// Outcomes counts the decisions about pending firings if they were due now.
	Outcomes map[string]int
	// Sample is a uniform sample of the matching customers.
	Sample []SampleCustomer
}

// SampleCustomer is a customer that matches the rule.
type SampleCustomer struct {
	ID string
	// Due is the time when the trigger is due for the customer.
	Due time.Time
	// Profile is the profile as JSON, if it was requested.
	Profile []byte
}

// Horizons are the upper bounds of the groups in WhatIfResult.Waiting. A firing that
// is due later is counted behind the last.
var Horizons = []time.Duration{0, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour}

// WhatIf evaluates a rule over all profiles, without any change to the store. It
// calls progress from time to time with the number of customers read so far.
func (p *Service) WhatIf(ctx context.Context, q WhatIfQuery, progress func(customers int)) (*WhatIfResult, error) {
	t := &trial{p: p, q: q, asOf: q.AsOf.UnixMilli(), progress: progress}
	if q.AsOf.IsZero() {
		t.asOf = p.now().UnixMilli()
	}
	switch {
	case q.Query != nil:
	case q.Segment != "":
		if err := p.checkSegment(q.Segment); err != nil {
			return nil, err
		}
		t.segment, _ = p.def.Segments.Lookup(q.Segment)
	default:
		var known bool
		if p.messages != nil {
			t.rule, known = p.messages.Lookup(q.Trigger)
		}
		if !known {
			var names []string
			if p.messages != nil {
				for _, r := range p.messages.Rules {
					names = append(names, r.Name)
				}
			}
			return nil, fmt.Errorf("there is no trigger %q%s", q.Trigger, spelling.Hint(q.Trigger, names))
		}
		t.triggers = &TriggerScheduler{p: p}
		var err error
		if t.triggers.since, err = p.introduced(ctx, t.asOf, false); err != nil {
			return nil, err
		}
	}
	for {
		err := t.run(ctx)
		if !errors.Is(err, store.ErrScanRestart) {
			return &t.result, err
		}
	}
}

// trial is one evaluation of a rule over all profiles.
type trial struct {
	p        *Service
	q        WhatIfQuery
	asOf     int64
	segment  int
	rule     int
	triggers *TriggerScheduler
	progress func(int)
	result   WhatIfResult
	rand     *rand.Rand
	viewer   record.Viewer
	rec      record.Record
}

func (t *trial) run(ctx context.Context) error {
	t.result = WhatIfResult{Waiting: make([]int, len(Horizons)+1), Outcomes: map[string]int{}}
	t.rand = rand.New(rand.NewPCG(t.q.Seed, 1))
	const pageSize = 1000
	for cursor := ""; ; {
		page, next, err := t.p.store.Scan(ctx, cursor, pageSize)
		if err != nil {
			return err
		}
		for i := range page {
			if err := t.evaluate(&page[i]); err != nil {
				t.result.Unreadable++
			}
		}
		t.progress(t.result.Customers)
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

func (t *trial) evaluate(e *store.Entry) error {
	if !isCustomer(e.Key) {
		return nil
	}
	rec := &t.rec
	if t.triggers != nil {
		rec = &t.triggers.rec
	}
	if err := rec.Decode(t.p.def, e.Key, e.Data); err != nil {
		return err
	}
	if rec.Link() != "" {
		return nil // the linked customer is counted
	}
	t.result.Customers++
	if t.triggers != nil {
		return t.evaluateTrigger(e.Key)
	}
	if t.q.Segment != "" {
		return t.evaluateSegment(e.Key)
	}
	facts, err := t.viewer.QueryDocument(rec, t.asOf, t.q.Query.Features, t.q.Query.ReadsSegments)
	if err != nil {
		return err
	}
	holds, err := t.q.Query.Holds(facts)
	if err != nil {
		t.result.Failed++
	}
	if holds {
		t.match(e.Key, rec, 0)
	}
	return nil
}

func (t *trial) evaluateSegment(key string) error {
	in, err := t.viewer.Segments(&t.rec, t.asOf)
	if err != nil {
		return err
	}
	_, stored := t.rec.MemberSince(t.q.Segment)
	switch matches := in[t.segment]; {
	case matches && !stored:
		t.result.Entering++
	case !matches && stored:
		t.result.Leaving++
	}
	if in[t.segment] {
		t.match(key, &t.rec, 0)
	}
	return nil
}

func (t *trial) evaluateTrigger(key string) error {
	// This repeats TriggerScheduler.decide, but writes nothing.
	if _, err := t.triggers.viewer.EvaluateSegments(&t.triggers.rec, key, t.asOf, record.Cause{}); err != nil {
		return err
	}
	conditions := &conditions{t: t.triggers, now: t.asOf}
	trials, err := t.triggers.watcher.Preview(nil, &t.triggers.rec, key, t.asOf, conditions)
	if err != nil {
		return err
	}
	var due int64
	waits := false
	for _, pending := range trials {
		if pending.Rule != t.rule {
			continue
		}
		if !waits || pending.Due < due {
			waits, due = true, pending.Due
		}
		slot := 0
		for slot < len(Horizons) && pending.Due > t.asOf+Horizons[slot].Milliseconds() {
			slot++
		}
		t.result.Waiting[slot]++
		t.result.Outcomes[pending.Outcome.String()]++
	}
	if waits {
		t.match(key, &t.triggers.rec, due)
	}
	return nil
}

// match counts a customer and adds it to the sample (reservoir sampling).
func (t *trial) match(key string, rec *record.Record, due int64) {
	t.result.Matching++
	slot := len(t.result.Sample)
	if slot == t.q.Sample {
		if slot = t.rand.IntN(t.result.Matching); slot >= t.q.Sample {
			return
		}
	} else {
		t.result.Sample = append(t.result.Sample, SampleCustomer{})
	}
	customer := SampleCustomer{ID: record.KeyID(key)}
	if due > 0 {
		customer.Due = time.UnixMilli(due).UTC()
	}
	if t.q.Profiles {
		text, err := t.viewer.AppendJSON(nil, rec, customer.ID, t.asOf, &record.Everything)
		if err == nil {
			customer.Profile = text
		}
	}
	t.result.Sample[slot] = customer
}
