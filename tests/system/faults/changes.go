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

// segments are the rules of the definition in the oracle's terms.
var segments = []oracle.Segment{
	{Name: "buyer", In: func(f map[string]any, _ map[string]bool) bool { return f["orders"].(float64) > 0 }},
	{Name: "spender", In: func(f map[string]any, _ map[string]bool) bool { return f["revenue"].(float64) > 150 }},
	{Name: "recent", In: func(f map[string]any, _ map[string]bool) bool { return f["orders_30d"].(float64) > 0 }},
	{Name: "lapsed", In: func(_ map[string]any, s map[string]bool) bool { return s["buyer"] && !s["recent"] }},
}

// changes are what was told in the topic.
type changes struct {
	content   map[string]string   // by id
	moves     map[string][]change // by customer, each id once
	delivered int                 // messages, repeated ones too
	forged    int                 // ids with another content

	outOfTurn, members, wrong int
	examples                  []string
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

func (c *changes) take(value []byte) error {
	var ch change
	if err := json.Unmarshal(value, &ch); err != nil {
		return fmt.Errorf("a change is no JSON: %w", err)
	}
	c.delivered++
	if old, again := c.content[ch.ID]; again {
		if old != string(value) {
			c.forged++
		}
		return nil
	}
	c.content[ch.ID] = string(value)
	if ch.Event != record.SegmentsCounted {
		id := cmp.Or(ch.UserID, ch.AnonymousID)
		c.moves[id] = append(c.moves[id], ch)
	}
	return nil
}

// listen follows the messages in order of time: what they add up to.
func (c *changes) listen() map[string]map[string]bool {
	all := map[string]map[string]bool{}
	c.outOfTurn, c.members = 0, 0
	for id, moves := range c.moves {
		slices.SortStableFunc(moves, func(a, b change) int { return a.Timestamp.Compare(b.Timestamp) })
		in := map[string]bool{}
		for _, m := range moves {
			if in[m.Properties.Segment] == m.Properties.New {
				// One between must have been lost.
				c.outOfTurn++
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

// compareChanges waits until the changes that were told add up to the
// memberships that the oracle gives, and judges them.
func (s *suite) compareChanges(ctx context.Context) error {
	var c *changes
	began := time.Now()
	var differences int
	err := poll(ctx, 90*time.Second, "the changes to add up", func() (bool, error) {
		c = &changes{content: map[string]string{}, moves: map[string][]change{}}
		if err := s.broker.Read(ctx, s.changed, c.take); err != nil {
			return false, err
		}
		c.differ(s, c.listen(), time.Now())
		differences = c.wrong
		return differences == 0, nil
	})
	if c == nil {
		return err
	}
	s.report.changes = c
	switch {
	case c.wrong > 0:
		s.report.fail("changes: %d customers are not where the changes put them: %v", c.wrong, c.examples)
	case err != nil:
		return err
	}
	if c.forged > 0 {
		s.report.fail("changes: %d ids came with another content", c.forged)
	}
	// A primary that dies may take the latest of what it acknowledged with it.
	if c.outOfTurn > 0 && !s.cluster {
		s.report.fail("changes: %d are out of turn, so that others must be lost", c.outOfTurn)
	}
	if len(c.content) == 0 {
		s.report.fail("changes: there are none")
	}
	s.say("%d changes were compared after %.1f s, %d differences", len(c.content), time.Since(began).Seconds(), c.wrong)
	return nil
}

// differ compares memberships with the oracle's.
func (c *changes) differ(s *suite, got map[string]map[string]bool, asOf time.Time) {
	c.wrong, c.examples = 0, nil
	var needed []oracle.Feature
	for _, f := range s.features {
		if slices.Contains([]string{"orders", "revenue", "orders_30d"}, f.Name) {
			needed = append(needed, f)
		}
	}
	for _, customer := range s.history.customers {
		if customer.erased {
			continue // what was told of them before is not taken back
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
				c.examples = append(c.examples, fmt.Sprintf("%s is told to be in %v, not %v (as %q in %v)", customer.id, in, want, customer.anonymous, got[customer.anonymous]))
			}
		}
	}
}
