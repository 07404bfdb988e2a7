package customers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// A sweep re-evaluates all profiles while events are processed: segments that change
// because time passes, without an event; all segments after a change of rules or
// parameters; the due times of triggers after a change of triggers; and index
// entries after a change of identifiers.
//
// Processes coordinate by a reserved record of the store, the sweep state. One
// process sweeps at a time: it holds a lease and saves its cursor. For example:
//
//	12:00:00  P1 starts a sweep   {until 12:01:00, cursor ""}
//	12:00:06  P1 saves            {until 12:01:06, cursor "..500"}
//	12:00:09  P1 crashes
//	12:01:07  P2 finds an expired lease and continues after "..500"
//
// A page is evaluated in memory, and changed records are committed on the condition
// that they were not changed meanwhile; records with a conflict are loaded and
// evaluated again. If the rules change during a sweep, it starts again.

// Keys of reserved records, which belong to no customer.
const (
	sweepKey  = "!sweep"
	countsKey = "!segments"
)

// isCustomer reports whether a key is that of a customer and not of a reserved
// record.
func isCustomer(key string) bool { return key[0] == record.User || key[0] == record.Anonymous }

// sweepState is the content of the reserved record sweepKey.
type sweepState struct {
	// Until is the end of the lease in Unix milliseconds; 0 without a sweep.
	Until int64 `json:"until"`
	// Cursor is the position of the current sweep, Started its start time, and
	// Rules the rules that it evaluates.
	Cursor  string `json:"cursor"`
	Started int64  `json:"started"`
	Rules   string `json:"rules"`
	// Finished is the start time of the last complete sweep, and Swept its rules.
	Finished int64  `json:"finished"`
	Swept    string `json:"swept"`
	// Found counts the members by segment, and the entries by identifier index.
	Found map[string]int64 `json:"found"`
}

const (
	sweepPage  = 500
	sweepLease = time.Minute
	// sweepCheck is the interval at which idle processes check the sweep state.
	sweepCheck = 5 * time.Second
)

// Sweep re-evaluates all customers at an interval, and soon after rules or
// parameters changed, until ctx ends. Any number of processes may call it.
func (p *Service) Sweep(ctx context.Context, interval time.Duration) {
	s := sweeper{p: p, interval: interval}
	check := min(sweepCheck, max(interval/4, time.Millisecond))
	for {
		if err := s.sweepIfDue(ctx); err != nil && ctx.Err() == nil {
			p.StoreFailed(err)
		} else if err == nil {
			p.StoreRecovered()
		}
		if pause(ctx, check) != nil {
			return
		}
	}
}

// sweeper is the part of one process in sweeping.
type sweeper struct {
	p        *Service
	interval time.Duration
	state    sweepState
	version  store.Version
	viewer   record.Viewer
	watcher  record.TriggerEvaluator
	rec      record.Record
}

// rules identifies the current rules, parameters, triggers and identifiers.
func (p *Service) rules() (rules string) {
	if s := p.def.Segments; s != nil {
		rules = strconv.FormatUint(uint64(s.Hash)<<32|uint64(s.Parameters().Hash), 16)
	}
	if p.messages != nil {
		rules += "/" + strconv.FormatUint(p.messages.Schedule, 16)
	}
	if hash := p.def.Identifiers.Hash(); hash != 0 {
		rules += "+" + strconv.FormatUint(uint64(hash), 16)
	}
	return rules
}

// sweepsPeriodically reports whether sweeps are needed without a change of rules:
// because segments depend on time, or because expired records leave index entries.
func (p *Service) sweepsPeriodically() bool {
	return p.def.Segments != nil || len(p.def.Identifiers) > 0
}

// sweepIfDue sweeps if a sweep is due and no other process is sweeping.
func (s *sweeper) sweepIfDue(ctx context.Context) error {
	records, err := s.p.store.Load(ctx, []string{sweepKey})
	if err != nil {
		return err
	}
	s.state, s.version = sweepState{}, records[0].Version
	if s.version != store.Absent {
		if err := json.Unmarshal(records[0].Data, &s.state); err != nil {
			s.state = sweepState{} // an additional sweep is harmless
		}
	}
	now, rules := s.p.now().UnixMilli(), s.p.rules()
	if s.state.Until > now {
		return nil
	}
	if s.state.Started == 0 || s.state.Rules != rules {
		begun := s.state.Started > 0 // with other rules, which some records have
		if !begun && rules == s.state.Swept && (!s.p.sweepsPeriodically() || now < s.state.Finished+s.interval.Milliseconds()) {
			return nil
		}
		s.begin(now, rules)
	}
	if owned, err := s.save(ctx); err != nil || !owned {
		return err
	}
	return s.sweep(ctx)
}

func (s *sweeper) begin(now int64, rules string) {
	if s.state.Started > 0 && s.state.Rules != rules {
		s.state.Swept = "" // records have a mixture of rules
	}
	s.state.Cursor, s.state.Started, s.state.Rules, s.state.Found = "", now, rules, map[string]int64{}
}

// save writes the state and reports whether this process still owns the sweep.
func (s *sweeper) save(ctx context.Context) (bool, error) {
	if s.state.Started > 0 {
		s.state.Until = s.p.now().Add(sweepLease).UnixMilli()
	}
	text, err := json.Marshal(&s.state)
	if err != nil {
		return false, err
	}
	lost, err := s.p.store.Commit(ctx, []store.Change{{Key: sweepKey, Version: s.version, Data: text}})
	if err != nil || len(lost) > 0 {
		return false, err
	}
	s.version = store.VersionOf(text)
	return true, nil
}

// sweep continues from the cursor of the state to the end.
func (s *sweeper) sweep(ctx context.Context) error {
	saved := s.p.now()
	for {
		page, next, err := s.p.store.Scan(ctx, s.state.Cursor, sweepPage)
		if errors.Is(err, store.ErrScanRestart) {
			s.begin(s.state.Started, s.state.Rules)
			continue
		}
		if err != nil {
			return err
		}
		if err := s.evaluate(ctx, page); err != nil {
			return err
		}
		if s.state.Cursor = next; next == "" {
			return s.finish(ctx)
		}
		if s.p.rules() != s.state.Rules {
			s.begin(s.p.now().UnixMilli(), s.p.rules())
		}
		// After a crash, the pages since the last save are evaluated again.
		if now := s.p.now(); now.Sub(saved) > sweepLease/10 {
			if owned, err := s.save(ctx); err != nil || !owned {
				return err
			}
			saved = now
		}
	}
}

// evaluate evaluates a page of records and commits those that changed.
func (s *sweeper) evaluate(ctx context.Context, page []store.Entry) error {
	now := s.p.now().UnixMilli()
	var changes []store.Change
	var waiting []bool // by change: whether the record has messages
	for i := range page {
		e := &page[i]
		if !isCustomer(e.Key) || s.rec.Decode(s.p.def, e.Key, e.Data) != nil || s.rec.Link() != "" {
			continue
		}
		changed, err := s.change(&s.rec, e.Key, now)
		if err != nil {
			continue // Update reports the error
		}
		s.rec.VisitSegments(func(name string) { s.state.Found[name]++ })
		s.rec.VisitIdentifiers(func(name, _ string) { s.state.Found[record.IdentifierIndex+name]++ })
		if !changed {
			continue
		}
		changes = append(changes, store.Change{Key: e.Key, Version: e.Version, Data: s.rec.Encode(nil, e.Key), Index: indexEdits(&s.rec)})
		waiting = append(waiting, len(s.rec.Outbox()) > 0)
	}
	if len(changes) == 0 {
		return nil
	}
	lost, err := s.p.store.Commit(ctx, changes)
	if err != nil {
		return err
	}
	var again []string
	for i := range changes {
		if len(lost) > 0 && lost[0] == i {
			lost = lost[1:]
			again = append(again, changes[i].Key)
		} else if waiting[i] {
			s.p.hint(changes[i].Key)
		}
	}
	return s.p.edit(ctx, again, func(key string, rec *record.Record) (bool, string) {
		if rec.Link() != "" {
			return false, ""
		}
		changed, err := s.change(rec, key, s.p.now().UnixMilli())
		return changed && err == nil, ""
	})
}

// change applies the current rules to a record and reports whether it changed.
func (s *sweeper) change(rec *record.Record, key string, now int64) (changed bool, err error) {
	j, err := s.viewer.EvaluateSegments(rec, key, now, record.Cause{})
	if err != nil {
		return false, err
	}
	reindexed, err := rec.SetIdentifiers()
	if err != nil {
		return false, err
	}
	changed = j.Entered+j.Left > 0 || reindexed
	if !changed && s.state.Rules == s.state.Swept {
		return false, nil
	}
	due, pending := rec.TriggersDue()
	if err := s.watcher.Schedule(rec, key); err != nil {
		return false, err
	}
	if newDue, nowPending := rec.TriggersDue(); newDue != due || nowPending != pending {
		changed = true
	}
	s.p.countSegmentChanges(j)
	return changed, nil
}

// finish ends a sweep: it removes stale index entries and emits the sizes of the
// segments.
func (s *sweeper) finish(ctx context.Context) error {
	counts := map[string]int64{}
	for _, name := range s.p.Segments() {
		n, err := s.p.SegmentCount(ctx, name)
		if err != nil {
			return err
		}
		// More entries than members were found: expired records left some, or
		// customers entered during the sweep.
		if n > s.state.Found[name] {
			if err := s.p.removeStale(ctx, record.SegmentIndex+name); err != nil {
				return err
			}
			if n, err = s.p.SegmentCount(ctx, name); err != nil {
				return err
			}
		}
		counts[name] = n
		s.p.members.Set(n, name)
	}
	for _, name := range s.p.Identifiers() {
		index := record.IdentifierIndex + name
		n, err := s.p.store.CountIndex(ctx, index, "", "")
		if err != nil {
			return err
		}
		if n > s.state.Found[index] {
			if err := s.p.removeStale(ctx, index); err != nil {
				return err
			}
		}
	}
	s.state.Finished, s.state.Swept = s.state.Started, s.state.Rules
	s.state.Started, s.state.Until, s.state.Cursor, s.state.Found = 0, 0, "", nil
	owned, err := s.save(ctx)
	if err != nil || !owned || len(counts) == 0 {
		return err
	}
	return s.p.enqueueCounts(ctx, counts)
}

// removeStale removes the index entries that no record has.
func (p *Service) removeStale(ctx context.Context, index string) error {
	var rec record.Record
	var after store.IndexEntry
	for {
		page, err := p.store.ScanIndex(ctx, index, "", "", after, sweepPage)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1]
		keys := make([]string, len(page))
		for i, e := range page {
			keys[i] = e.Key
		}
		records, err := p.store.Load(ctx, keys)
		if err != nil {
			return err
		}
		var changes []store.Change
		for i, e := range page {
			if records[i].Version != store.Absent {
				if rec.Decode(p.def, e.Key, records[i].Data) != nil || rec.HasEntry(record.Entry{Index: index, Value: e.Value}) {
					continue
				}
			}
			changes = append(changes, store.Change{Key: e.Key, Version: records[i].Version, Data: records[i].Data,
				Index: []store.IndexEdit{{Index: index, Value: e.Value, Remove: true}}})
		}
		if _, err := p.store.Commit(ctx, changes); err != nil {
			return err
		}
	}
}

// enqueueCounts adds a message with the sizes of the segments to the outbox of a
// reserved record.
func (p *Service) enqueueCounts(ctx context.Context, counts map[string]int64) error {
	now := p.now().UnixMilli()
	for {
		records, err := p.store.Load(ctx, []string{countsKey})
		if err != nil {
			return err
		}
		var rec record.Record
		if rec.Reset(p.def); records[0].Version != store.Absent {
			if err := rec.Decode(p.def, countsKey, records[0].Data); err != nil {
				return fmt.Errorf("the record of segment sizes: %w", err)
			}
		}
		p.dropped.Incr(int64(rec.Enqueue(record.CountsMessage(counts, now))))
		lost, err := p.store.Commit(ctx, []store.Change{{Key: countsKey, Version: records[0].Version, Data: rec.Encode(nil, countsKey), Index: indexEdits(&rec)}})
		if err != nil {
			return err
		}
		if len(lost) == 0 {
			p.hint(countsKey)
			return nil
		}
	}
}
