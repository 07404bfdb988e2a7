package customers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// A sweep judges every customer anew: those whose segments change because time
// passes, without any event, and all of them after the rules changed, while
// events flow. After triggers changed it finds for each customer anew when the
// first is due, and after identifiers changed what they are found by. One
// process of those that sweep the same store does it at a time; if it ends,
// another goes on where it was.

// The store's own records have keys that are no customer's.
const (
	sweepKey  = "!sweep"
	countsKey = "!segments"
)

// isCustomer tells a customer's key from those of the store's own records.
func isCustomer(key string) bool { return key[0] == record.User || key[0] == record.Anonymous }

// sweepState is what processes agree on who sweep: a record of the store.
type sweepState struct {
	// Until is when whoever sweeps has to have said that it still does, in Unix
	// milliseconds; 0 if nobody sweeps.
	Until int64 `json:"until"`
	// Cursor is where the sweep is, Started when it began and by which Rules.
	Cursor  string `json:"cursor"`
	Started int64  `json:"started"`
	Rules   string `json:"rules"`
	// Finished is when the last whole sweep had begun, and Swept its rules.
	Finished int64  `json:"finished"`
	Swept    string `json:"swept"`
	// Found are the members seen so far, by segment, and entries by index.
	Found map[string]int64 `json:"found"`
}

const (
	sweepPage  = 500
	sweepLease = time.Minute
	// sweepLook is how often those who do not sweep look whether they should.
	sweepLook = 5 * time.Second
)

// Sweep judges all customers every interval, and soon after the rules or their
// parameters changed, until ctx ends. Any number of processes may call it.
func (p *Service) Sweep(ctx context.Context, interval time.Duration) {
	s := sweeper{p: p, interval: interval}
	look := min(sweepLook, max(interval/4, time.Millisecond))
	for {
		if err := s.turn(ctx); err != nil && ctx.Err() == nil {
			p.StoreFailed(err)
		} else if err == nil {
			p.StoreRecovered()
		}
		if backoff.Sleep(ctx, look) != nil {
			return
		}
	}
}

// sweeper is one process's part in sweeping.
type sweeper struct {
	p        *Service
	interval time.Duration
	state    sweepState
	version  store.Version
	viewer   record.Viewer
	watcher  record.TriggerEvaluator
	rec      record.Record
}

// rules identifies the rules, parameters, triggers and identifiers that hold
// now.
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

// expires tells whether a sweep is due from time to time: because time passes,
// or because records that expired leave entries of indexes behind.
func (p *Service) expires() bool { return p.def.Segments != nil || len(p.def.Identifiers) > 0 }

// turn sweeps if a sweep is due and nobody else is at it.
func (s *sweeper) turn(ctx context.Context) error {
	records, err := s.p.store.Load(ctx, []string{sweepKey})
	if err != nil {
		return err
	}
	s.state, s.version = sweepState{}, records[0].Version
	if s.version != store.Absent {
		if err := json.Unmarshal(records[0].Data, &s.state); err != nil {
			s.state = sweepState{} // a sweep more does no harm
		}
	}
	now, rules := s.p.now().UnixMilli(), s.p.rules()
	if s.state.Until > now {
		return nil
	}
	if s.state.Started == 0 || s.state.Rules != rules {
		begun := s.state.Started > 0 // by other rules, which some records follow
		if !begun && rules == s.state.Swept && (!s.p.expires() || now < s.state.Finished+s.interval.Milliseconds()) {
			return nil
		}
		s.begin(now, rules)
	}
	if mine, err := s.save(ctx); err != nil || !mine {
		return err
	}
	return s.sweep(ctx)
}

func (s *sweeper) begin(now int64, rules string) {
	if s.state.Started > 0 && s.state.Rules != rules {
		s.state.Swept = "" // records follow the one and the other
	}
	s.state.Cursor, s.state.Started, s.state.Rules, s.state.Found = "", now, rules, map[string]int64{}
}

// save writes the state, and tells whether the sweep still is this process's.
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

// sweep goes on from the state's cursor to the end.
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
		if err := s.judge(ctx, page); err != nil {
			return err
		}
		if s.state.Cursor = next; next == "" {
			return s.finish(ctx)
		}
		if s.p.rules() != s.state.Rules {
			s.begin(s.p.now().UnixMilli(), s.p.rules())
		}
		// A process that dies has to do again what it did since.
		if now := s.p.now(); now.Sub(saved) > sweepLease/10 {
			if mine, err := s.save(ctx); err != nil || !mine {
				return err
			}
			saved = now
		}
	}
}

// judge judges a page of records and writes those that changed.
func (s *sweeper) judge(ctx context.Context, page []store.Entry) error {
	now := s.p.now().UnixMilli()
	var changes []store.Change
	var waiting []bool // whether the record has messages
	for i := range page {
		e := &page[i]
		if !isCustomer(e.Key) || s.rec.Decode(s.p.def, e.Key, e.Data) != nil || s.rec.Link() != "" {
			continue
		}
		changed, err := s.change(&s.rec, e.Key, now)
		if err != nil {
			continue // whoever updates the customer says so
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

// change makes a record follow the rules as of a moment, and tells whether it
// did not.
func (s *sweeper) change(rec *record.Record, key string, now int64) (changed bool, err error) {
	j, err := s.viewer.EvaluateSegments(rec, key, now, record.Cause{})
	if err != nil {
		return false, err
	}
	found, err := rec.SetIdentifiers()
	if err != nil {
		return false, err
	}
	changed = j.Entered+j.Left > 0 || found
	if !changed && s.state.Rules == s.state.Swept {
		return false, nil
	}
	due, some := rec.TriggersDue()
	if err := s.watcher.Schedule(rec, key); err != nil {
		return false, err
	}
	if again, still := rec.TriggersDue(); again != due || still != some {
		changed = true
	}
	s.p.judged(j)
	return changed, nil
}

// finish ends a sweep: it makes sure of the indexes and tells the sizes of the
// segments.
func (s *sweeper) finish(ctx context.Context) error {
	counts := map[string]int64{}
	for _, name := range s.p.Segments() {
		n, err := s.p.SegmentCount(ctx, name)
		if err != nil {
			return err
		}
		// A record that expired leaves its entries; and customers move
		// meanwhile, which costs a look in vain.
		if n > s.state.Found[name] {
			if err := s.p.clean(ctx, record.SegmentIndex+name); err != nil {
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
			if err := s.p.clean(ctx, index); err != nil {
				return err
			}
		}
	}
	s.state.Finished, s.state.Swept = s.state.Started, s.state.Rules
	s.state.Started, s.state.Until, s.state.Cursor, s.state.Found = 0, 0, "", nil
	mine, err := s.save(ctx)
	if err != nil || !mine || len(counts) == 0 {
		return err
	}
	return s.p.tellCounts(ctx, counts)
}

// clean removes the entries of an index that no record has.
func (p *Service) clean(ctx context.Context, index string) error {
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

// tellCounts leaves a message about the sizes of the segments, in the outbox
// of a record of the store's own.
func (p *Service) tellCounts(ctx context.Context, counts map[string]int64) error {
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
