package customers

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// A new trigger must not fire for causes that were due before it was created:
// otherwise a deployment would send messages for months of past events at once.
// A reserved record of the store contains the creation time of every trigger;
// the first process that fires triggers writes it. A trigger with a changed
// cause counts as new.
const introducedKey = "!triggers"

// introduction is the creation time of a trigger, in Unix milliseconds, and the
// hash of its cause.
type introduction struct {
	Since int64  `json:"since"`
	Cause string `json:"cause"`
}

// introduced returns the creation time of each trigger. A trigger that is not yet
// in the reserved record is created now; with write it is added to the record.
func (p *Service) introduced(ctx context.Context, now int64, write bool) ([]int64, error) {
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
			created, exists := known[name]
			if !exists || created.Cause != cause {
				created, changed = introduction{now, cause}, true
			}
			since[i], next[name] = created.Since, created
		}
		if !write || !changed {
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
