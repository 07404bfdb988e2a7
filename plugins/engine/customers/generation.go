package customers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// A store can lose its data while processes run: an operator empties it, restores
// an old backup, or switches to a store that was rebuilt. Without further measures
// the next replay of the events would fire triggers again although their message was sent
// before the loss, and write to erased customers, because their tombstones were lost.
//
// A reserved record therefore identifies the generation of the store: a random id,
// the time of its creation, and a heartbeat that the processes advance. For example:
//
//	09:00  P1 finds no record    writes {id a, created 09:00, beat 09:00}
//	11:30  P1, P2 see                   {id a, created 09:00, beat 11:30}
//	11:31  the store loses its data
//	11:31  P1 finds no record    writes {id b, created 11:31, beat 11:31, replaces a}
//	11:31  P2 sees b instead of a
//
// A process that knew an earlier generation logs an error, counts a metric, and fails
// Ping until it is restarted. Until then it neither fires triggers nor delivers
// messages, so that the profiles can be rebuilt first. A heartbeat that is more than
// maxBeatLoss older than the known one reveals a restored backup; the process that
// finds it writes a new generation. Smaller differences are the writes that an
// asynchronous replica loses in a failover.
//
// Within a generation that replaces another, also after a restart of all processes:
//
//   - A cause before the creation does not fire: its outcome is predates.
//   - An event that was received before the creation is history. It changes features
//     and traits as usual, but its segment changes neither cause triggers nor emit
//     messages: they took place in the earlier generation.
//   - A message that was enqueued before the creation, as in a restored backup, is
//     dropped: whether it was delivered is not known.
//
// A loss while no process runs is not noticed: the next process finds a new store.
// Causes that were due before its triggers are created again are skipped then, as
// in every new store.
const generationKey = "!store"

const (
	beatInterval = 10 * time.Second
	maxBeatLoss  = time.Minute
	// generationTTL is the maximum age of the generation that Update uses.
	generationTTL = time.Second
)

// generation is the content of the record. Times are Unix milliseconds.
type generation struct {
	ID      string `json:"id"`
	Created int64  `json:"created"`
	Beat    int64  `json:"beat"`
	// Replaces is the id of the generation that was lost, if any.
	Replaces string `json:"replaces,omitempty"`
}

// historyUntil returns the time before which events belong to a lost generation, 0
// if there is none.
func (g *generation) historyUntil() int64 {
	if g.Replaces == "" {
		return 0
	}
	return g.Created
}

// LostError is the error of Ping after the store lost data.
type LostError struct {
	// Found describes the store: empty, replaced or older.
	Found string
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the profile store lost data: it is %s. Rebuild the profiles from the topic of events, then restart this process", e.Found)
}

// generations observes the generation of the store.
type generations struct {
	mu      sync.Mutex
	known   generation
	checked time.Time // by the wall clock, even in simulations
	lost    *LostError
}

// current returns the known generation if it was checked recently.
func (g *generations) current() (known generation, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known, g.known.ID != "" && time.Since(g.checked) < generationTTL
}

// loss returns the loss that this process has noticed, nil if there is none.
func (g *generations) loss() *LostError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost
}

// recentGeneration returns the generation of the store as of at most generationTTL
// ago.
func (p *Service) recentGeneration(ctx context.Context) (generation, error) {
	if known, ok := p.generations.current(); ok {
		return known, nil
	}
	return p.checkGeneration(ctx)
}

// checkGeneration reads the generation of the store, creates it in a new store, and
// advances its heartbeat. It notices a loss of data.
func (p *Service) checkGeneration(ctx context.Context) (generation, error) {
	for {
		records, err := p.store.Load(ctx, []string{generationKey})
		if err != nil {
			return generation{}, err
		}
		found, next, write := p.generations.compare(records[0], p.now().UnixMilli())
		if write {
			data, err := json.Marshal(next)
			if err != nil {
				return generation{}, err
			}
			conflicts, err := p.store.Commit(ctx, []store.Change{{Key: generationKey, Version: records[0].Version, Data: data}})
			if err != nil {
				return generation{}, err
			}
			if len(conflicts) > 0 {
				continue
			}
		}
		if p.generations.adopt(next, found) {
			p.storeLosses.Incr(1)
			p.log.Errorf("The profile store lost data: it is %s. Triggers and messages are paused. Rebuild the profiles from the topic of events, then restart this process.", found)
		}
		return next, nil
	}
}

// compare compares a record with the known generation. It returns a description of
// the store if it lost data, and the generation that holds from now on, which must be
// written if write is true.
func (g *generations) compare(r store.Record, now int64) (found string, next generation, write bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Version == store.Absent || json.Unmarshal(r.Data, &next) != nil || next.ID == "" {
		if g.known.ID != "" {
			found = "empty"
		}
		return found, newGeneration(now, g.known.ID), true
	}
	switch {
	case g.known.ID == "":
	case next.ID != g.known.ID:
		write = next.Replaces == "" // a process without memory of the lost one created it
		if write {
			next.Replaces = g.known.ID
		}
		return "replaced by another", next, write
	case next.Beat < g.known.Beat-maxBeatLoss.Milliseconds():
		return "older than it was", newGeneration(now, g.known.ID), true
	}
	if now-next.Beat >= beatInterval.Milliseconds() {
		next.Beat = now
		return "", next, true
	}
	return "", next, false
}

// adopt makes a generation the known one, and reports whether that is a loss of data.
func (g *generations) adopt(next generation, found string) (lost bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known.ID == next.ID {
		next.Beat = max(next.Beat, g.known.Beat)
		found = "" // another goroutine was first
	}
	g.known, g.checked = next, time.Now()
	if found == "" {
		return false
	}
	g.lost = &LostError{Found: found}
	return true
}

func newGeneration(now int64, replaces string) generation {
	return generation{ID: rand.Text(), Created: now, Beat: now, Replaces: replaces}
}
