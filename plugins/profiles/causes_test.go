package profiles

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/profile"
	"github.com/connect-personalize/connect-personalize/plugins/profile/oracle"
)

const lapsing = segmented + `
messages: { channels: [ { name: email, consent: 'true' } ] }
triggers:
  - { name: lapsed, on: { leave: active }, after: 2d, when: '!segments.active && segments.spender', channel: email, expire: 3d }
  - { name: hello, on: { enter: active }, after: 1d, when: segments.active, channel: email, expire: 3d }
`

// under opens the store of other profiles with another definition.
func under(t testing.TB, p *Profiles, definition string) *Profiles {
	def, err := ReadDefinition(writeDefinition(t, definition))
	require.NoError(t, err)
	other := New(def, p.store, service.MockResources())
	other.now = p.now
	t.Cleanup(other.unfollow)
	return other
}

// fired are the triggers that wait to be told of a customer.
func fired(t testing.TB, p *Profiles, key string) (names []string) {
	for _, m := range waiting(t, p, key) {
		if m.Event == EventTriggerFired {
			names = append(names, m.Props.Trigger)
		}
	}
	return names
}

func TestLeavingASegmentIsACause(t *testing.T) {
	p, now := openAt(t, lapsing, orderedAt.Add(time.Second))
	fireAll(t, p)
	apply(t, p, order("m1", `"userId":"u1"`, 200), order("m2", `"userId":"u2"`, 20))
	now.pass(24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"hello"}, fired(t, p, "uu1"))
	require.Equal(t, []string{"hello"}, fired(t, p, "uu2"))
	hear(t, p)
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
	hear(t, p)
	now.pass(24 * time.Hour)
	sweep(t, p)
	fireAll(t, p)
	require.Empty(t, fired(t, p, "uu1"), "once")
}

func TestEnteringAgainCancels(t *testing.T) {
	p, now := openAt(t, lapsing, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"userId":"u1"`, 200))
	now.pass(31 * 24 * time.Hour)
	sweep(t, p)
	fireAll(t, p)
	now.pass(24 * time.Hour)
	apply(t, p, added("m2", `"userId":"u1"`, now.Now()), []byte(fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":"m3","userId":"u1","timestamp":%q,"properties":{"total":1}}`, now.Now().Format(time.RFC3339))))
	hear(t, p)
	now.pass(24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"hello"}, fired(t, p, "uu1"))
}

// TestAMergeIsNoLeaving: who is merged into another leaves segments, but what
// they left before goes on waiting.
func TestAMergeIsNoLeaving(t *testing.T) {
	p, now := openAt(t, lapsing, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"anonymousId":"a1"`, 200), order("m2", `"anonymousId":"a2"`, 200))
	fireAll(t, p)
	now.pass(29 * 24 * time.Hour)
	apply(t, p, identifyAs("m3", "u1", "a1"))
	now.pass(2 * 24 * time.Hour)
	sweep(t, p) // u1 and a2 leave
	now.pass(24 * time.Hour)
	apply(t, p, identifyAs("m4", "u2", "a2"))
	hear(t, p)
	now.pass(24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"lapsed"}, fired(t, p, "uu1"))
	require.Equal(t, []string{"lapsed"}, fired(t, p, "uu2"))
	require.Empty(t, dueIndex(t, p))
}

// TestConditionsReadSegmentsOfTheMoment: time has moved the customer, and
// nobody has noticed but the firing.
func TestConditionsReadSegmentsOfTheMoment(t *testing.T) {
	p, now := openAt(t, segmented+`
messages: { channels: [ { name: email, consent: '!segments.at_risk' } ] }
triggers:
  - { name: still, on: { events: [Order Completed] }, after: 29d, when: segments.active, channel: email, data: '{ "at_risk": segments.at_risk, "spender": segments.spender }' }
  - { name: late, on: { events: [Order Completed] }, after: 31d, when: '!segments.active', channel: email }
  - { name: never, on: { events: [Order Completed] }, after: 31d, when: segments.active, channel: email }
`, orderedAt)
	apply(t, p, order("m1", `"userId":"u1"`, 20), order("m2", `"userId":"u2"`, 200))
	fireAll(t, p)
	hear(t, p)
	now.pass(29 * 24 * time.Hour)
	fireAll(t, p)
	all := waiting(t, p, "uu2")
	require.Equal(t, []string{"still"}, names(all))
	require.Equal(t, map[string]any{"at_risk": false, "spender": true}, all[0].Props.Data)
	require.Equal(t, []string{"still"}, fired(t, p, "uu1"))
	hear(t, p)
	now.pass(2 * 24 * time.Hour)
	fireAll(t, p)
	require.Equal(t, []string{"late"}, fired(t, p, "uu1"), "active is left without a sweep")
	require.Empty(t, fired(t, p, "uu2"), "who has come to be at risk gives no consent")
	require.Equal(t, map[string]int64{"active": 0, "at_risk": 1, "spender": 1}, counts(t, p), "a firing is a write, which judges")
}

// TestAChangeOfRulesIsNoCause: nobody is told anything because somebody wrote
// another number, whether a sweep, an event or a firing comes first.
func TestAChangeOfRulesIsNoCause(t *testing.T) {
	changed := `
  - { name: recent, count: { events: [Order Completed], window: 30d } }
segments: [ { name: spender, when: 'features.revenue > %d' } ]
messages: { channels: [ { name: email, consent: 'true' } ] }
triggers:
  - { name: in, on: { enter: spender }, channel: email }
  - { name: out, on: { leave: spender }, channel: email }
`
	for name, first := range map[string]func(p *Profiles){
		"a sweep": func(p *Profiles) { sweep(t, p) },
		"an event": func(p *Profiles) {
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
			hear(t, p)
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
			// What the customer does is a cause as ever.
			apply(t, higher, order("m6", `"userId":"u1"`, 1000))
			fireAll(t, higher)
			require.Equal(t, []string{"in"}, fired(t, higher, "uu1"))
		})
	}
}

// TestSegmentCausesEqualAPlainModel: whatever is ordered, early or late, and
// whenever somebody looks, what fires is what a model says that keeps only when
// the customer was found in and out.
func TestSegmentCausesEqualAPlainModel(t *testing.T) {
	const day = 24 * time.Hour
	type spell struct {
		begin time.Time
		some  bool
	}
	rapid.Check(t, func(rt *rapid.T) {
		p, now := openAt(t, lapsing, orderedAt)
		defer func() { _ = p.Close(context.Background()) }()
		fireAll(t, p)
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
				if !c.of.some || settled[name+c.of.begin.String()] || !at.Add(3*day).After(examined) {
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
				raw := fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"m%d","userId":"u1","timestamp":%q,"properties":{"total":%d}}`,
					i, when.Format(time.RFC3339), rapid.IntRange(1, 90).Draw(rt, "total"))
				apply(t, p, raw)
				events = append(events, oracle.Parse(raw, profile.HashID))
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
					if holds && at.Add(3*day).After(now.Now()) {
						want = append(want, name)
					}
					settled[name+begin.String()] = true
				}
				examined = now.Now()
				waits()
			}
			var got []string
			for _, m := range waiting(t, p, "uu1") {
				if m.Event == EventTriggerFired && !seen[m.MessageID] {
					got = append(got, m.Props.Trigger)
				}
				seen[m.MessageID] = true
			}
			require.ElementsMatch(rt, want, got)
		}
	})
}
