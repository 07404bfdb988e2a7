package customers

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

// definitionsOf reads definitions.
func definitionsOf(t testing.TB, texts ...string) (defs []*definition.Definition) {
	for _, text := range texts {
		def, err := profiledefinition.Read(writeDefinition(t, text))
		require.NoError(t, err)
		defs = append(defs, def)
	}
	return defs
}

// processes returns some that share a store, one for each definition.
func processes(s store.Store, now func() time.Time, defs []*definition.Definition) (all []*Service) {
	for _, def := range defs {
		p := New(def, s, Options{})
		p.now = now
		all = append(all, p)
	}
	return all
}

// spending is segmented with another parameter.
func spending(revenue string) string {
	return strings.Replace(segmented, "spender_revenue: 100", "spender_revenue: "+revenue, 1)
}

// TestSegmentChangesInOneMillisecondHaveDistinctIDs moves a customer in and out of a
// segment by processes with different parameters.
func TestSegmentChangesInOneMillisecondHaveDistinctIDs(t *testing.T) {
	for _, tt := range []struct {
		name    string
		message bool // whether each is delivered before the next comes up
		other   string
	}{
		{"delivered together", false, spending("300")},
		{"delivered one by one", true, spending("300")},
		{"without segments", true, shop},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			now := orderedAt.Add(time.Second)
			both := processes(s, func() time.Time { return now }, definitionsOf(t, spending("100"), tt.other))
			apply(t, both[1], order("m", `"userId":"u1"`, 150))
			var all []segmentMessage
			for i := range 7 {
				sweep(t, both[i%2])
				if tt.message {
					all = append(all, consume(t, both[0])...)
				}
				if i%2 == 1 {
					apply(t, both[1], order(fmt.Sprint("page", i), `"userId":"u1"`, 0))
				}
			}
			all = append(all, consume(t, both[0])...)
			seen := map[string]bool{}
			in := false
			for _, m := range all {
				if m.Properties.Segment == "spender" {
					require.False(t, seen[m.MessageID], "each has an id of its own")
					require.Equal(t, in, m.Properties.Old)
					require.Equal(t, "2026-01-02T03:04:06.000Z", m.Timestamp)
					seen[m.MessageID], in = true, m.Properties.New
				}
			}
			require.Len(t, seen, 7)
			require.True(t, in)
		})
	}
}

// TestSegmentChangeHasOneMessageID retries a write: the message id stays the same.
func TestSegmentChangeHasOneMessageID(t *testing.T) {
	inner, err := embedded.Open(embedded.Options{Path: embedded.Memory})
	require.NoError(t, err)
	lost := true
	s := &faulty{Store: inner, fail: func() (before, after bool) { return false, lost }}
	p := processes(s, func() time.Time { return orderedAt.Add(time.Second) }, definitionsOf(t, segmented))[0]
	_, err = p.Update(t.Context(), [][]byte{order("m", `"userId":"u1"`, 150)})
	require.ErrorIs(t, err, errFault, "it is stored, but the answer is lost")
	lost = false
	for range 3 {
		apply(t, p, order("m", `"userId":"u1"`, 150))
	}
	var ids []string
	for _, m := range consume(t, p) {
		ids = append(ids, m.Properties.Segment+" "+m.MessageID)
	}
	require.Equal(t, []string{"active 8c41370e099226dd167f954caa0d9560", "spender 08dec8475e5313ab1ba5321502f0ebb8"}, ids)
}

// TestParameterChangeIsNotAttributedToEvent changes parameters before an event: the segment
// change has the reason parameter and starts no trigger.
func TestParameterChangeIsNotAttributedToEvent(t *testing.T) {
	const thanking = `
messages: { channels: [ { name: email, consent: 'true' } ] }
triggers:
  - { name: thanks, on: { enter: spender }, channel: email }
`
	p, now := openAt(t, spending("100")+thanking, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"userId":"u1"`, 60))
	fireAll(t, p) // from now on the trigger is there
	consume(t, p)
	p = under(t, p, spending("50")+thanking)
	now.pass(time.Second)
	apply(t, p, order("m2", `"userId":"u1"`, 1), order("m3", `"userId":"u2"`, 60))
	require.ElementsMatch(t, []string{"u1 Entered spender: parameter", "u2 Entered active: eventm3", "u2 Entered spender: eventm3"}, lines(consume(t, p)))
	apply(t, p, order("m4", `"userId":"u1"`, -20))
	require.Equal(t, []string{"u1 Left spender: eventm4"}, lines(consume(t, p)))
	fireAll(t, p)
	require.Empty(t, fired(t, p, "uu1"), "it was not their doing")
	require.Equal(t, []string{"thanks"}, fired(t, p, "uu2"))
}

// TestMergeRemovesSegmentMembership claims the messages of an anonymous customer at any step of
// its merge; afterwards it is in no segment.
func TestMergeRemovesSegmentMembership(t *testing.T) {
	for moment := range 8 {
		inner, err := embedded.Open(embedded.Options{Path: embedded.Memory})
		require.NoError(t, err)
		t.Cleanup(func() { _ = inner.Close() })
		calls := -1
		var other *Service
		s := &faulty{Store: inner, fail: func() (before, after bool) {
			if calls >= 0 {
				if calls++; calls == moment+1 {
					calls = -1
					o := other.Outbox(time.Hour, time.Minute, 10)
					defer o.Close()
					_, err := o.take(context.Background())
					require.NoError(t, err)
				}
			}
			return false, false
		}}
		now := func() time.Time { return orderedAt.Add(time.Second) }
		defs := definitionsOf(t, segmented)
		p := processes(s, now, defs)[0]
		other = processes(inner, now, defs)[0]
		apply(t, p, order("m1", `"anonymousId":"a1"`, 20))
		calls = 0
		apply(t, p, identifyAs("m2", "u1", "a1"))
		calls = -1
		members, err := p.SegmentMembers(t.Context(), "active", "", 10)
		require.NoError(t, err)
		require.Equal(t, []Member{{ID: "u1"}}, members, "moment %d", moment)
	}
}

// consumer is a consumer of segment messages that deduplicates by message id.
type consumer struct {
	content map[string]string         // by id
	net     map[string]map[string]int // by customer and segment, entries less exits
}

// consume delivers all messages, some of them twice.
func (a *consumer) consume(t require.TestingT, p *Service, again func() bool) {
	o := p.Outbox(time.Hour, time.Minute, 3)
	defer o.Close()
	for {
		o.nextPoll = time.Time{}
		d, err := o.take(context.Background())
		require.NoError(t, err)
		if d == nil {
			return
		}
		for _, m := range d.Messages {
			line := decodeMessage(t, m.Content)
			if old, known := a.content[line.MessageID]; known {
				require.Equal(t, old, string(m.Content), "an id has one content")
				continue
			}
			a.content[line.MessageID] = string(m.Content)
			if line.Event == record.SegmentsCounted {
				continue
			}
			who := line.UserID + line.AnonymousID
			if a.net[who] == nil {
				a.net[who] = map[string]int{}
			}
			if line.Properties.New {
				a.net[who][line.Properties.Segment]++
			} else {
				a.net[who][line.Properties.Segment]--
			}
		}
		if again() {
			require.NoError(t, d.Release(context.Background(), 0))
		} else {
			require.NoError(t, d.Acknowledge(context.Background()))
		}
	}
}

// TestSegmentEventsAddUpToMembership runs processes with different parameters, rules and clocks,
// with lost answers, conflicts, merges, erasures and readmissions. A consumer of all
// messages, some of them twice, knows every membership.
func TestSegmentEventsAddUpToMembership(t *testing.T) {
	const known = "identity: { merge_known: true }\n"
	defs := definitionsOf(t, spending("50")+known, spending("100")+known, spending("150")+known,
		strings.ReplaceAll(spending("100"), "features.recent > 0", "features.recent > 1")+known, shop+known)
	rapid.Check(t, func(t *rapid.T) {
		inner, err := embedded.Open(embedded.Options{Path: embedded.Memory})
		require.NoError(t, err)
		defer func() { _ = inner.Close() }()
		var faults []string
		var race func()
		s := &faulty{Store: inner, fail: func() (before, after bool) {
			if race != nil {
				meanwhile := race
				race = nil
				meanwhile()
			}
			if len(faults) == 0 {
				return false, false
			}
			fault := faults[0]
			faults = faults[1:]
			return fault == "before", fault == "after"
		}}
		now := orderedAt.Add(time.Second)
		all := processes(s, nil, defs)
		for _, p := range all {
			skew := time.Duration(rapid.IntRange(0, 2).Draw(t, "skew")) * time.Millisecond
			p.now = func() time.Time { return now.Add(skew) }
		}
		one := func() *Service { return all[rapid.IntRange(0, len(all)-1).Draw(t, "process")] }
		take := func(p *Service, events ...[]byte) {
			for {
				if _, err := p.Update(context.Background(), events); err == nil {
					return
				}
			}
		}
		judge := func(p *Service) {
			sweeper := sweeper{p: p}
			sweeper.state.Found = map[string]int64{}
			for cursor := ""; ; {
				page, next, err := inner.Scan(context.Background(), cursor, 100)
				require.NoError(t, err)
				for sweeper.evaluate(context.Background(), page) != nil {
					sweeper.state.Found = map[string]int64{}
				}
				if cursor = next; next == "" {
					return
				}
			}
		}
		a := consumer{content: map[string]string{}, net: map[string]map[string]int{}}
		never := func() bool { return false }
		var sent [][]byte
		erasedAt := orderedAt.Add(-time.Hour)
		user := func() string { return rapid.SampledFrom([]string{"u1", "u2"}).Draw(t, "user") }
		stamp := func(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }
		for i := range rapid.IntRange(1, 25).Draw(t, "steps") {
			who := fmt.Sprintf(`"userId":%q`, user())
			switch rapid.IntRange(0, 11).Draw(t, "step") {
			case 0, 1:
				if rapid.Bool().Draw(t, "anonymous") {
					who = `"anonymousId":"a1"`
				}
				sent = append(sent, order(fmt.Sprint("m", i), who, float64(rapid.IntRange(-60, 90).Draw(t, "total"))))
				take(one(), sent[len(sent)-1])
			case 2:
				take(one(), sent...)
			case 3, 4, 5:
				judge(one())
			case 6:
				take(one(), identifyAs(fmt.Sprint("i", i), user(), "a1"))
			case 7:
				held := faults
				faults, race = nil, nil
				a.consume(t, one(), func() bool { return rapid.IntRange(0, 3).Draw(t, "again") == 0 })
				faults = held
			case 8:
				faults = append(faults, rapid.SliceOfN(rapid.SampledFrom([]string{"", "before", "after"}), 1, 4).Draw(t, "faults")...)
			case 9:
				p := one()
				race = func() { judge(p) }
			case 10:
				now = now.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "passes")) * time.Millisecond)
			case 11:
				// Erased customers have no messages, including pending ones.
				faults, race = nil, nil
				a.consume(t, all[0], never)
				erasedAt = erasedAt.Add(2 * time.Millisecond)
				take(one(), erasureOf("erase", fmt.Sprint("e", i), who, stamp(erasedAt)))
				for id := range a.net {
					for _, kind := range []byte{record.User, record.Anonymous} {
						key := record.Key(kind, []byte(id))
						records, err := inner.Load(context.Background(), []string{key})
						require.NoError(t, err)
						var rec record.Record
						if records[0].Version != store.Absent && rec.Decode(all[0].def, key, records[0].Data) == nil && rec.Erased() {
							delete(a.net, id)
						}
					}
				}
				for _, who := range []string{`"userId":"u1"`, `"userId":"u2"`, `"anonymousId":"a1"`} {
					take(one(), erasureOf("readmit", fmt.Sprint("r", i, who), who, stamp(erasedAt.Add(time.Millisecond))))
				}
			}
		}
		faults, race = nil, nil
		now = now.Add(10 * time.Millisecond)
		judge(all[1])
		a.consume(t, all[1], never)
		records, indexes := stored(t, all[1])
		require.Equal(t, records, indexes)
		delivered := map[string]map[string]bool{}
		for id, segments := range a.net {
			for name, n := range segments {
				require.Contains(t, []int{0, 1}, n, "%s %s", id, name)
				if n == 1 {
					if delivered[id] == nil {
						delivered[id] = map[string]bool{}
					}
					delivered[id][name] = true
				}
			}
		}
		require.Equal(t, records, delivered)
	})
}
