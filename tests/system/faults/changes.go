package faults

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
)

// segments are the segments of profile.yaml, as functions for the oracle.
var segments = []oracle.Segment{
	{Name: "buyer", In: func(f map[string]any, _ map[string]bool) bool { return f["orders"].(float64) > 0 }},
	{Name: "spender", In: func(f map[string]any, _ map[string]bool) bool { return f["revenue"].(float64) > 150 }},
	{Name: "recent", In: func(f map[string]any, _ map[string]bool) bool { return f["orders_30d"].(float64) > 0 }},
	{Name: "lapsed", In: func(_ map[string]any, s map[string]bool) bool { return s["buyer"] && !s["recent"] }},
}

// changes are the messages of the topic of changes.
type changes struct {
	content     map[string]string   // by message id
	entries     map[string][]change // by customer, each message id once
	delivered   int                 // messages, with repeated ones
	conflicting int                 // ids of two messages with different content

	outOfOrder, members, wrong int
	examples                   []string
}

type change struct {
	ID          string `json:"messageId"`
	Event       string
	UserID      string
	AnonymousID string
	Timestamp   time.Time
	Properties  struct {
		Segment string
		New     bool
	}
}

func (c *changes) add(value []byte) error {
	var ch change
	if err := json.Unmarshal(value, &ch); err != nil {
		return fmt.Errorf("a change is not JSON: %w", err)
	}
	c.delivered++
	if old, again := c.content[ch.ID]; again {
		if old != string(value) {
			c.conflicting++
		}
		return nil
	}
	c.content[ch.ID] = string(value)
	if ch.Event != record.SegmentsCounted {
		id := cmp.Or(ch.UserID, ch.AnonymousID)
		c.entries[id] = append(c.entries[id], ch)
	}
	return nil
}

// memberships applies the changes in order of time and returns the segments of
// each customer.
func (c *changes) memberships() map[string]map[string]bool {
	all := map[string]map[string]bool{}
	c.outOfOrder, c.members = 0, 0
	for id, entries := range c.entries {
		slices.SortStableFunc(entries, func(a, b change) int { return a.Timestamp.Compare(b.Timestamp) })
		in := map[string]bool{}
		for _, m := range entries {
			if in[m.Properties.Segment] == m.Properties.New {
				// A change between these two was lost.
				c.outOfOrder++
			}
			if m.Properties.New {
				in[m.Properties.Segment] = true
			} else {
				delete(in, m.Properties.Segment)
			}
		}
		if c.members += len(in); len(in) > 0 {
			all[id] = in
		}
	}
	return all
}

// compareChanges waits until the published changes result in the memberships of
// the oracle, and reports differences.
func (s *suite) compareChanges(ctx context.Context) error {
	var c *changes
	began := time.Now()
	var differences int
	err := poll(ctx, 90*time.Second, "the changes to result in the expected memberships", func() (bool, error) {
		c = &changes{content: map[string]string{}, entries: map[string][]change{}}
		if err := s.broker.Read(ctx, s.changed, c.add); err != nil {
			return false, err
		}
		c.compare(s, c.memberships(), time.Now())
		differences = c.wrong
		return differences == 0, nil
	})
	if c == nil {
		return err
	}
	s.report.changes = c
	switch {
	case c.wrong > 0:
		s.report.fail("changes: %d customers have other memberships than expected: %v", c.wrong, c.examples)
	case err != nil:
		return err
	}
	if c.conflicting > 0 {
		s.report.fail("changes: %d message ids have two contents", c.conflicting)
	}
	// A killed primary may lose its latest acknowledged writes.
	if c.outOfOrder > 0 && !s.cluster {
		s.report.fail("changes: %d are out of order, so others are lost", c.outOfOrder)
	}
	if len(c.content) == 0 {
		s.report.fail("changes: there are none")
	}
	s.say("compared %d changes after %.1f s, %d differences", len(c.content), time.Since(began).Seconds(), c.wrong)
	return nil
}

// compare compares memberships with the oracle's.
func (c *changes) compare(s *suite, got map[string]map[string]bool, asOf time.Time) {
	c.wrong, c.examples = 0, nil
	var needed []oracle.Feature
	for _, f := range s.features {
		if slices.Contains([]string{"orders", "revenue", "orders_30d"}, f.Name) {
			needed = append(needed, f)
		}
	}
	for _, customer := range s.history.customers {
		if customer.erased {
			continue // messages published before the erasure stay in the topic
		}
		var history []oracle.Event
		for _, raw := range customer.events {
			history = append(history, oracle.Parse(raw, record.HashID))
		}
		want := oracle.Members(segments, needed, history, asOf.UnixMilli())
		in := got[customer.id]
		same := maps.Equal(want, in) || len(want)+len(in) == 0
		if left := got[customer.anonymous]; customer.anonymous != "" && len(left) > 0 {
			same = false
		}
		if !same {
			if c.wrong++; len(c.examples) < 5 {
				c.examples = append(c.examples, fmt.Sprintf("%s is in %v by the changes, not in %v (as %q in %v)", customer.id, in, want, customer.anonymous, got[customer.anonymous]))
			}
		}
	}
}
