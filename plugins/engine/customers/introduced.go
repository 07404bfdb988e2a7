package customers

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// A trigger that is added to customers who have long done what causes it tells
// them nothing that was due before it was there: a thousand would get at once
// what nobody had meant to send. Since when it is there is known by a record of
// the store's own, which the first process writes that fires it. One whose cause
// was changed is a new one.
const introducedKey = "!triggers"

// introduction is since when a trigger is there, and what its cause is.
type introduction struct {
	Since int64  `json:"since"`
	Cause string `json:"cause"`
}

// introduced returns since when each trigger is there: from now on for one that
// is not known, which is noted if it is to be.
func (p *Service) introduced(ctx context.Context, now int64, note bool) ([]int64, error) {
	for {
		records, err := p.store.Load(ctx, []string{introducedKey})
		if err != nil {
			return nil, err
		}
		known := map[string]introduction{}
		if records[0].Version != store.Absent {
			if err := json.Unmarshal(records[0].Data, &known); err != nil {
				return nil, fmt.Errorf("the record of triggers: %w", err)
			}
		}
		since := make([]int64, len(p.messages.Rules))
		next := map[string]introduction{}
		changed := len(known) != len(since)
		for i := range p.messages.Rules {
			name, cause := p.messages.Rules[i].Name, p.messages.Causes[i]
			one, there := known[name]
			if !there || one.Cause != cause {
				one, changed = introduction{now, cause}, true
			}
			since[i], next[name] = one.Since, one
		}
		if !note || !changed {
			return since, nil
		}
		text, err := json.Marshal(next)
		if err != nil {
			return nil, err
		}
		lost, err := p.store.Commit(ctx, []store.Change{{Key: introducedKey, Version: records[0].Version, Data: text}})
		if err != nil || len(lost) == 0 {
			return since, err
		}
	}
}
