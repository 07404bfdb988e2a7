package customers

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

const lapsing = segmented + `
messages: { channels: [ { name: email, consent: 'true' } ] }
triggers:
  - { name: lapsed, on: { leave: active }, after: 2d, when: '!segments.active && segments.spender', channel: email, expire: 3d }
  - { name: hello, on: { enter: active }, after: 1d, when: segments.active, channel: email, expire: 3d }
`

// under opens the store of other profiles with another definition.
func under(t testing.TB, p *Service, definition string) *Service {
	def, err := profiledefinition.Read(writeDefinition(t, definition))
	require.NoError(t, err)
	other := New(def, p.store, Options{})
	other.now = p.now
	t.Cleanup(other.unfollow)
	return other
}

// fired returns the triggers with a message in the outbox of a customer.
func fired(t testing.TB, p *Service, key string) (names []string) {
	for _, m := range waiting(t, p, key) {
		if m.Event == EventTriggerFired {
			names = append(names, m.Props.Trigger)
		}
	}
	return names
}

func TestLeavingSegmentCausesTrigger(t *testing.T) {
	p, now := openAt(t, lapsing, orderedAt.Add(time.Second))
	fireAll(t, p)
	apply(t, p, order("m1", `"userId":"u1"`, 200), order("m2", `"userId":"u2"`, 20))
	now.pass(24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"hello"}, fired(t, p, "uu1"))
	require.Equal(t, []string{"hello"}, fired(t, p, "uu2"))
	consume(t, p)
	now.pass(30 * 24 * time.Hour)
	sweep(t, p) // which finds that they left
	require.Len(t, dueIndex(t, p), 2)
	now.pass(2*24*time.Hour - time.Second)
	fireAll(t, p)
	require.Empty(t, fired(t, p, "uu1"), "not before its time")
	now.pass(time.Second)
	fireAll(t, p)
	require.Equal(t, []string{"lapsed"}, fired(t, p, "uu1"))
	require.Empty(t, fired(t, p, "uu2"), "the condition does not hold")
	require.Empty(t, dueIndex(t, p))
	consume(t, p)
	now.pass(24 * time.Hour)
	sweep(t, p)
	fireAll(t, p)
	require.Empty(t, fired(t, p, "uu1"), "once")
}

func TestEnteringAgainCancelsTrigger(t *testing.T) {
	p, now := openAt(t, lapsing, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"userId":"u1"`, 200))
	now.pass(31 * 24 * time.Hour)
	sweep(t, p)
	fireAll(t, p)
	now.pass(24 * time.Hour)
	apply(t, p, added("m2", `"userId":"u1"`, now.Now()), []byte(fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":"m3","userId":"u1","timestamp":%q,"properties":{"total":1}}`, now.Now().Format(time.RFC3339))))
	consume(t, p)
	now.pass(24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"hello"}, fired(t, p, "uu1"))
}

// TestMergeDoesNotCauseLeaveTriggers merges a customer: pending causes of segments it left
// before the merge stay pending.
func TestMergeDoesNotCauseLeaveTriggers(t *testing.T) {
	p, now := openAt(t, lapsing, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"anonymousId":"a1"`, 200), order("m2", `"anonymousId":"a2"`, 200))
	fireAll(t, p)
	now.pass(29 * 24 * time.Hour)
	apply(t, p, identifyAs("m3", "u1", "a1"))
	now.pass(2 * 24 * time.Hour)
	sweep(t, p) // u1 and a2 leave
	now.pass(24 * time.Hour)
	apply(t, p, identifyAs("m4", "u2", "a2"))
	consume(t, p)
	now.pass(24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"lapsed"}, fired(t, p, "uu1"))
	require.Equal(t, []string{"lapsed"}, fired(t, p, "uu2"))
	require.Empty(t, dueIndex(t, p))
}

// TestConditionsReadCurrentSegments lets time change a segment before the firing, without a
// sweep.
func TestConditionsReadCurrentSegments(t *testing.T) {
	p, now := openAt(t, segmented+`
messages: { channels: [ { name: email, consent: '!segments.at_risk' } ] }
triggers:
  - { name: still, on: { events: [Order Completed] }, after: 29d, when: segments.active, channel: email, data: '{ "at_risk": segments.at_risk, "spender": segments.spender }' }
  - { name: late, on: { events: [Order Completed] }, after: 31d, when: '!segments.active', channel: email }
  - { name: never, on: { events: [Order Completed] }, after: 31d, when: segments.active, channel: email }
`, orderedAt)
	apply(t, p, order("m1", `"userId":"u1"`, 20), order("m2", `"userId":"u2"`, 200))
	fireAll(t, p)
	consume(t, p)
	now.pass(29 * 24 * time.Hour)
	fireAll(t, p)
	all := waiting(t, p, "uu2")
	require.Equal(t, []string{"still"}, names(all))
	require.Equal(t, map[string]any{"at_risk": false, "spender": true}, all[0].Props.Data)
	require.Equal(t, []string{"still"}, fired(t, p, "uu1"))
	consume(t, p)
	now.pass(2 * 24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"late"}, fired(t, p, "uu1"), "active is left without a sweep")
	require.Empty(t, fired(t, p, "uu2"), "consent fails for a member of at_risk")
	require.Equal(t, map[string]int64{"active": 0, "at_risk": 1, "spender": 1}, counts(t, p), "a firing evaluates segments")
}

// TestRuleChangeIsNotATriggerCause changes a threshold; no trigger fires, whether a sweep, an
// event or a firing comes first.
func TestRuleChangeIsNotATriggerCause(t *testing.T) {
	changed := `
  - { name: recent, count: { events: [Order Completed], window: 30d } }
segments: [ { name: spender, when: 'features.revenue > %d' } ]
messages: { channels: [ { name: email, consent: 'true' } ] }
triggers:
  - { name: in, on: { enter: spender }, channel: email }
  - { name: out, on: { leave: spender }, channel: email }
`
	for name, first := range map[string]func(p *Service){
		"a sweep": func(p *Service) { sweep(t, p) },
		"an event": func(p *Service) {
			id := p.now().String()
			apply(t, p, order(id+"a", `"userId":"u1"`, 1), order(id+"b", `"userId":"u2"`, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, now := openAt(t, shop+fmt.Sprintf(changed, 100), orderedAt.Add(time.Second))
			fireAll(t, p)
			apply(t, p, order("m1", `"userId":"u1"`, 60), order("m2", `"userId":"u2"`, 200))
			fireAll(t, p)
			require.Equal(t, []string{"in"}, fired(t, p, "uu2"))
			consume(t, p)
			now.pass(time.Hour)
			lower := under(t, p, shop+fmt.Sprintf(changed, 50))
			first(lower)
			fireAll(t, lower)
			require.Empty(t, fired(t, lower, "uu1"))
			require.EqualValues(t, 2, counts(t, lower)["spender"])
			now.pass(time.Hour)
			higher := under(t, p, shop+fmt.Sprintf(changed, 1000))
			first(higher)
			fireAll(t, higher)
			require.Empty(t, fired(t, higher, "uu1"))
			require.EqualValues(t, 0, counts(t, higher)["spender"])
			// Events of the customer still cause triggers.
			apply(t, higher, order("m6", `"userId":"u1"`, 1000))
			fireAll(t, higher)
			require.Equal(t, []string{"in"}, fired(t, higher, "uu1"))
		})
	}
}

// TestSegmentTriggersEqualNaiveModel fires triggers on random histories of orders and
// compares them with a model that stores memberships only.
func TestSegmentTriggersEqualNaiveModel(t *testing.T) {
	const day = 24 * time.Hour
	type spell struct {
		begin time.Time
		some  bool
	}
	p, now := openAt(t, lapsing, orderedAt)
	fireAll(t, p)
	id := 0
	rapid.Check(t, func(rt *rapid.T) {
		id++ // each case is of another customer
		key := fmt.Sprint("uu", id)
		var events []oracle.Event
		var in, out spell
		settled, seen := map[string]bool{}, map[string]bool{}
		var examined time.Time
		member := func() map[string]bool {
			return oracle.Members(naive, naiveFeatures, events, now.Now().UnixMilli())
		}
		judge := func() {
			switch active := member()["active"]; {
			case active && !in.some:
				in, out = spell{now.Now(), true}, spell{}
			case !active && in.some:
				in, out = spell{}, spell{now.Now(), true}
			}
		}
		// due is the first of what waits after the last write.
		var due spell
		waits := func() (causes map[string]time.Time) {
			causes, due = map[string]time.Time{}, spell{}
			for name, c := range map[string]struct {
				of    spell
				after time.Duration
			}{"hello": {in, day}, "lapsed": {out, 2 * day}} {
				at := c.of.begin.Add(c.after)
				if !c.of.some || settled[name+c.of.begin.String()] || at.Add(3*day).Before(examined) {
					continue
				}
				causes[name] = at
				if !due.some || at.Before(due.begin) {
					due = spell{at, true}
				}
			}
			return causes
		}
		for i := range rapid.IntRange(1, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				when := now.Now().Add(-time.Duration(rapid.IntRange(0, 40).Draw(rt, "late")) * day)
				raw := fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"m%d","userId":%q,"timestamp":%q,"properties":{"total":%d}}`,
					i, key[1:], when.Format(time.RFC3339), rapid.IntRange(1, 90).Draw(rt, "total"))
				apply(t, p, raw)
				events = append(events, oracle.Parse(raw, record.HashID))
				judge()
				waits()
			case 1:
				sweep(t, p)
				if len(events) > 0 {
					judge()
					waits()
				}
			default:
				now.pass(time.Duration(rapid.IntRange(1, 200).Draw(rt, "hours")) * time.Hour)
			}
			fireAll(t, p)
			var want []string
			if due.some && !due.begin.After(now.Now()) {
				judge()
				for name, at := range waits() {
					if at.After(now.Now()) {
						continue
					}
					holds, begin := member()["active"], in.begin
					if name == "lapsed" {
						holds, begin = !holds && member()["spender"], out.begin
					}
					if holds && !at.Add(3*day).Before(now.Now()) { // at exactly due + expire it still fires
						want = append(want, name)
					}
					settled[name+begin.String()] = true
				}
				examined = now.Now()
				waits()
			}
			var got []string
			for _, m := range waiting(t, p, key) {
				if m.Event == EventTriggerFired && !seen[m.MessageID] {
					got = append(got, m.Props.Trigger)
				}
				seen[m.MessageID] = true
			}
			require.ElementsMatch(rt, want, got)
		}
	})
}

const mails = `
messages: { channels: [ { name: email, consent: 'true' } ] }
`

// TestNewTriggerFiresForDormantCustomers adds a trigger to a store: it fires for customers
// without new events if it is due later, and not for causes that were due before it
// was created.
func TestNewTriggerFiresForDormantCustomers(t *testing.T) {
	p, now := openAt(t, shop+mails+`
triggers:
  - { name: other, on: { events: [Product Added] }, after: 1h, channel: email }
`, orderedAt)
	fireAll(t, p)
	sweep(t, p)
	apply(t, p, order("m1", `"userId":"u1"`, 20))
	now.pass(2 * 24 * time.Hour)
	apply(t, p, added("m2", `"userId":"u2"`, now.Now()),
		fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"m3","userId":"u2","timestamp":%q,"properties":{"total":1}}`, now.Now().Format(time.RFC3339)))
	now.pass(59 * 24 * time.Hour) // for u1 it would have been due yesterday
	fireAll(t, p)
	require.Empty(t, dueIndex(t, p))

	later := under(t, p, shop+mails+`
triggers:
  - { name: other, on: { events: [Product Added] }, after: 1h, channel: email }
  - { name: win_back, on: { events: [Order Completed] }, after: 60d, channel: email, expire: 7d }
  - { name: thanks, on: { events: [Order Completed], repeat: each }, after: 10d, channel: email }
  - { name: birthday, on: { date: { trait: birthday } }, channel: email }
`)
	fireAll(t, later)
	require.Empty(t, dueIndex(t, later))
	sweep(t, later)
	require.Len(t, dueIndex(t, later), 2)
	fireAll(t, later)
	require.Empty(t, fired(t, later, "uu1"), "what was due before is not made up for")
	require.Empty(t, fired(t, later, "uu2"))
	require.Len(t, dueIndex(t, later), 1)
	now.pass(24 * time.Hour)
	fireAll(t, later)
	require.Equal(t, []string{"win_back"}, fired(t, later, "uu2"))

	// A process that starts anew knows since when it is there.
	again := under(t, p, shop+mails+`
triggers:
  - { name: win_back, on: { events: [Order Completed] }, after: 60d, when: 'true', channel: email, expire: 7d }
`)
	now.pass(time.Hour)
	fireAll(t, again)
	sweep(t, again)
	fireAll(t, again)
	require.Equal(t, []string{"win_back"}, fired(t, again, "uu2"), "once")
}

// TestSweepRestartsAfterRuleChange takes over a sweep that a crashed process started with
// other rules.
func TestSweepRestartsAfterRuleChange(t *testing.T) {
	trigger := shop + mails + "triggers: [ { name: a, on: { events: [Order Completed] }, after: %s, channel: email } ]\n"
	p, now := openAt(t, fmt.Sprintf(trigger, "9d"), orderedAt)
	apply(t, p, order("m1", `"userId":"u1"`, 20))
	sweep(t, p)
	before := dueIndex(t, p)
	other := under(t, p, fmt.Sprintf(trigger, "3d"))
	s := sweeper{p: other, interval: time.Minute}
	require.NoError(t, s.sweepIfDue(context.Background()))
	require.NotEqual(t, before, dueIndex(t, p))
	// As if it had died just before the end.
	s.begin(now.Now().UnixMilli(), s.state.Rules)
	s.state.Swept = p.rules()
	mine, err := s.save(context.Background())
	require.NoError(t, err)
	require.True(t, mine)
	now.pass(2 * sweepLease)
	sweep(t, p)
	require.Equal(t, before, dueIndex(t, p))
}

// TestTriggerChangesEqualNaiveModel replaces a definition while customers wait: one trigger
// stays, one waits longer than before, and one is new.
func TestTriggerChangesEqualNaiveModel(t *testing.T) {
	triggers := func(changed int, more string) string {
		return shop + mails + fmt.Sprintf(`
triggers:
  - { name: kept, on: { events: [Order Completed] }, after: 5h, channel: email }
  - { name: changed, on: { events: [Order Completed] }, after: %dh, channel: email }
`, changed) + more
	}
	const hours = 20
	in, now := openAt(t, shop, orderedAt)
	cases := 0
	rapid.Check(t, func(rt *rapid.T) {
		cases++ // each case is of other customers, and of a store that knows no triggers
		begun := now.Now()
		for _, key := range []string{introducedKey, sweepKey} {
			records, err := in.store.Load(context.Background(), []string{key})
			require.NoError(rt, err)
			_, err = in.store.Commit(context.Background(), []store.Change{{Key: key, Version: records[0].Version}})
			require.NoError(rt, err)
		}
		was, is := rapid.IntRange(1, 9).Draw(rt, "was"), rapid.IntRange(1, 9).Draw(rt, "is")
		fresh := rapid.IntRange(1, 9).Draw(rt, "new")
		p := under(t, in, triggers(was, ""))
		fireAll(t, p)
		other := under(t, p, triggers(is, fmt.Sprintf("  - { name: new, on: { events: [Order Completed] }, after: %dh, channel: email }\n", fresh)))
		exchange := begun.Add(hours * time.Hour)
		changed := exchange // when the one that may be changed is
		if was == is {
			changed = begun
		}
		ordered := map[string]time.Time{}
		for i := range rapid.IntRange(1, 6).Draw(rt, "customers") {
			ordered[fmt.Sprint("u", cases, "-", i)] = begun.Add(time.Duration(rapid.IntRange(0, 2*hours*60).Draw(rt, "ordered")) * time.Minute)
		}
		want, got := map[string]time.Time{}, map[string]time.Time{}
		for id, at := range ordered {
			due := func(name string, after int, since time.Time) bool {
				hour := at.Add(time.Duration(after) * time.Hour)
				if hour.Before(since) {
					return false
				}
				want[id+name] = hour
				return true
			}
			due("kept", 5, begun)
			due("new", fresh, exchange)
			// A firing of the old trigger is not repeated.
			if at.Add(time.Duration(was) * time.Hour).After(exchange.Add(-time.Hour)) {
				due("changed", is, changed)
			} else {
				due("changed", was, begun)
			}
		}
		for hour := 0; hour <= 2*hours+10; hour++ {
			running := p
			if hour >= hours {
				running = other
			}
			for id, at := range ordered {
				if !at.After(now.Now()) && at.After(now.Now().Add(-time.Hour)) {
					apply(t, running, fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"%s","userId":%q,"timestamp":%q,"properties":{"total":1}}`, id, id, at.Format(time.RFC3339)))
				}
			}
			if hour == hours {
				fireAll(t, other)
				sweep(t, other)
			}
			fireAll(t, running)
			now.pass(time.Hour)
		}
		for id := range ordered {
			for _, m := range waiting(t, p, "u"+id) {
				require.NotContains(rt, got, id+m.Props.Trigger, "twice")
				got[id+m.Props.Trigger] = m.Props.DueAt
			}
		}
		require.Equal(rt, want, got)
	})
}
