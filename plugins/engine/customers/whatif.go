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

// WhatIfQuery is what would be if a rule went live. One of Query, Segment and
// Trigger is set.
type WhatIfQuery struct {
	Query *definition.Query
	// Segment is the name of a segment of the definition.
	Segment string
	// Trigger is the name of a trigger of the definition.
	Trigger string
	// At is the moment it is asked for; zero is now.
	At time.Time
	// Sample is how many of the customers are listed.
	Sample int
	// Seed chooses them.
	Seed uint64
	// Profiles tells whether their whole profiles are, too.
	Profiles bool
}

// WhatIfResult is what came of looking at all profiles.
type WhatIfResult struct {
	// Customers is how many there are, Unreadable how many records could not be
	// read, and Matching for how many the rule holds: who match the query, or
	// for whom the trigger waits.
	Customers, Unreadable, Matching int
	// Failed is for how many the query could not be evaluated.
	Failed int
	// Entering and Leaving are how many of those who match a segment are not yet
	// stored to be in it, and how many are but do not match.
	Entering, Leaving int
	// Waiting counts firings of the trigger by when they are due: the first of
	// Horizons that is not too short.
	Waiting []int
	// Outcomes counts how they would be decided if they were due at once.
	Outcomes map[string]int
	// Sample are some of the customers, chosen evenly.
	Sample []SampleCustomer
}

// SampleCustomer is a customer for whom the rule holds.
type SampleCustomer struct {
	ID string
	// Due is when the trigger is due for the customer.
	Due time.Time
	// Profile is the whole profile as JSON, if it was asked for.
	Profile []byte
}

// Horizons are the spans of time that Waiting counts by; what is due later is
// counted after the last.
var Horizons = []time.Duration{0, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour}

// WhatIf looks at all profiles and answers a question. It changes nothing.
// progress is called with the number of customers so far, now and then.
func (p *Service) WhatIf(ctx context.Context, q WhatIfQuery, progress func(customers int)) (*WhatIfResult, error) {
	t := &trial{p: p, q: q, at: q.At.UnixMilli(), progress: progress}
	if q.At.IsZero() {
		t.at = p.now().UnixMilli()
	}
	switch {
	case q.Query != nil:
	case q.Segment != "":
		if err := p.knowSegment(q.Segment); err != nil {
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
		if t.triggers.since, err = p.introduced(ctx, t.at, false); err != nil {
			return nil, err
		}
	}
	for {
		err := t.run(ctx)
		if !errors.Is(err, store.ErrScanRestart) {
			return &t.answer, err
		}
	}
}

// trial is one look at all profiles.
type trial struct {
	p        *Service
	q        WhatIfQuery
	at       int64
	segment  int
	rule     int
	triggers *TriggerScheduler
	progress func(int)
	answer   WhatIfResult
	rand     *rand.Rand
	viewer   record.Viewer
	rec      record.Record
}

func (t *trial) run(ctx context.Context) error {
	t.answer = WhatIfResult{Waiting: make([]int, len(Horizons)+1), Outcomes: map[string]int{}}
	t.rand = rand.New(rand.NewPCG(t.q.Seed, 1))
	const pageSize = 1000
	for cursor := ""; ; {
		page, next, err := t.p.store.Scan(ctx, cursor, pageSize)
		if err != nil {
			return err
		}
		for i := range page {
			if err := t.look(&page[i]); err != nil {
				t.answer.Unreadable++
			}
		}
		t.progress(t.answer.Customers)
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

func (t *trial) look(e *store.Entry) error {
	if e.Key[0] != record.User && e.Key[0] != record.Anonymous {
		return nil // the store's own
	}
	rec := &t.rec
	if t.triggers != nil {
		rec = &t.triggers.rec
	}
	if err := rec.Decode(t.p.def, e.Key, e.Data); err != nil {
		return err
	}
	if rec.Link() != "" {
		return nil // it is counted where it leads
	}
	t.answer.Customers++
	if t.triggers != nil {
		return t.lookForTrigger(e.Key)
	}
	if t.q.Segment != "" {
		return t.lookForSegment(e.Key)
	}
	facts, err := t.viewer.QueryDocument(rec, t.at, t.q.Query.Features, t.q.Query.ReadsSegments)
	if err != nil {
		return err
	}
	holds, err := t.q.Query.Holds(facts)
	if err != nil {
		t.answer.Failed++
	}
	if holds {
		t.match(e.Key, rec, 0)
	}
	return nil
}

func (t *trial) lookForSegment(key string) error {
	in, err := t.viewer.Segments(&t.rec, t.at)
	if err != nil {
		return err
	}
	_, stored := t.rec.MemberSince(t.q.Segment)
	switch matches := in[t.segment]; {
	case matches && !stored:
		t.answer.Entering++
	case !matches && stored:
		t.answer.Leaving++
	}
	if in[t.segment] {
		t.match(key, &t.rec, 0)
	}
	return nil
}

func (t *trial) lookForTrigger(key string) error {
	// As the firing does it; nothing is written.
	if _, err := t.triggers.viewer.EvaluateSegments(&t.triggers.rec, key, t.at, record.Cause{}); err != nil {
		return err
	}
	must := &conditions{t: t.triggers, now: t.at}
	trials, err := t.triggers.watcher.Preview(nil, &t.triggers.rec, key, t.at, must)
	if err != nil {
		return err
	}
	var due int64
	waits := false
	for _, one := range trials {
		if one.Rule != t.rule {
			continue
		}
		if !waits || one.Due < due {
			waits, due = true, one.Due
		}
		slot := 0
		for slot < len(Horizons) && one.Due > t.at+Horizons[slot].Milliseconds() {
			slot++
		}
		t.answer.Waiting[slot]++
		t.answer.Outcomes[one.Outcome.String()]++
	}
	if waits {
		t.match(key, &t.triggers.rec, due)
	}
	return nil
}

// match counts a customer, and keeps an even sample of them.
func (t *trial) match(key string, rec *record.Record, due int64) {
	t.answer.Matching++
	at := len(t.answer.Sample)
	if at == t.q.Sample {
		if at = t.rand.IntN(t.answer.Matching); at >= t.q.Sample {
			return
		}
	} else {
		t.answer.Sample = append(t.answer.Sample, SampleCustomer{})
	}
	one := SampleCustomer{ID: record.KeyID(key)}
	if due > 0 {
		one.Due = time.UnixMilli(due).UTC()
	}
	if t.q.Profiles {
		text, err := t.viewer.AppendJSON(nil, rec, one.ID, t.at, &record.Everything)
		if err == nil {
			one.Profile = text
		}
	}
	t.answer.Sample[at] = one
}
