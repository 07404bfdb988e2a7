package customers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

const segmented = shop + `
  - { name: recent, count: { events: [Order Completed], window: 30d } }
segments:
  - { name: spender, when: 'features.revenue > parameters.spender_revenue' }
  - { name: active, when: 'features.recent > 0' }
  - { name: at_risk, when: 'segments.spender && !segments.active' }
parameters: { spender_revenue: 100 }
`

// segmentMessage is a message of the outbox, decoded.
type segmentMessage struct {
	Event, UserID, AnonymousID, MessageID, Timestamp string
	Properties                                       struct {
		Segment, Reason string
		EventID         string           `json:"event_id"`
		Since           string           `json:"since"`
		MergedInto      string           `json:"merged_into"`
		Segments        map[string]int64 `json:"segments"`
		Old, New        bool
	}
}

func decodeMessage(t require.TestingT, content []byte) (message segmentMessage) {
	require.NoError(t, json.Unmarshal(content, &message), "%s", content)
	return message
}

// consume delivers all messages and returns them.
func consume(t testing.TB, p *Service) (all []segmentMessage) {
	o := p.Outbox(time.Hour, time.Minute, 1000)
	defer o.Close()
	for {
		d, _ := next(t, o)
		if d == nil {
			return all
		}
		for _, m := range d.Messages {
			message := decodeMessage(t, m.Content)
			require.Equal(t, fmt.Sprintf("%x", m.ID), message.MessageID)
			all = append(all, message)
		}
		require.NoError(t, d.Acknowledge(context.Background()))
	}
}

// lines summarises messages: customer, change, reason.
func lines(all []segmentMessage) (out []string) {
	for _, m := range all {
		if m.Event == record.SegmentsCounted {
			continue
		}
		line := fmt.Sprintf("%s%s %s %s: %s", m.UserID, m.AnonymousID, m.Event[len("Segment "):], m.Properties.Segment, m.Properties.Reason)
		out = append(out, line+m.Properties.EventID)
	}
	return out
}

func sweep(t testing.TB, p *Service) {
	s := sweeper{p: p, interval: time.Minute}
	require.NoError(t, s.sweepIfDue(context.Background()))
}

func segmentsOf(t testing.TB, p *Service, id string) map[string]any {
	results, err := p.Read(context.Background(), []string{id}, Query{Fields: []string{"segments"}})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	var v struct {
		Segments map[string]struct{ Since any }
	}
	require.NoError(t, json.Unmarshal(results[0].JSON, &v), "%s", results[0].JSON)
	in := map[string]any{}
	for name, s := range v.Segments {
		in[name] = s.Since
	}
	return in
}

func counts(t testing.TB, p *Service) map[string]int64 {
	n := map[string]int64{}
	for _, name := range p.Segments() {
		var err error
		n[name], err = p.SegmentCount(context.Background(), name)
		require.NoError(t, err)
	}
	return n
}

var orderedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestSegmentsChangeByEventsAndTime(t *testing.T) {
	p, now := openAt(t, segmented, orderedAt.Add(time.Second))
	entered := "2026-01-02T03:04:06.000Z"
	apply(t, p, order("m1", `"userId":"u1"`, 60))
	apply(t, p, order("m2", `"userId":"u1"`, 60), order("m2", `"userId":"u1"`, 60))
	apply(t, p, order("m2", `"userId":"u1"`, 60))
	require.Equal(t, []string{"u1 Entered active: eventm1", "u1 Entered spender: eventm2"}, lines(consume(t, p)))
	require.Equal(t, map[string]any{"active": entered, "spender": entered}, segmentsOf(t, p, "u1"))
	require.Equal(t, map[string]int64{"active": 1, "at_risk": 0, "spender": 1}, counts(t, p))

	// A read evaluates the passed time before a sweep does.
	now.pass(31 * 24 * time.Hour)
	require.Equal(t, map[string]any{"at_risk": nil, "spender": entered}, segmentsOf(t, p, "u1"))
	require.Equal(t, map[string]int64{"active": 1, "at_risk": 0, "spender": 1}, counts(t, p))
	sweep(t, p)
	all := consume(t, p)
	require.Equal(t, []string{"u1 Left active: time", "u1 Entered at_risk: time"}, lines(all))
	slices.SortStableFunc(all, func(a, b segmentMessage) int { return strings.Compare(b.UserID, a.UserID) })
	require.Equal(t, entered, all[0].Properties.Since, "since when it was in")
	require.True(t, all[0].Properties.Old)
	require.False(t, all[0].Properties.New)
	require.Equal(t, map[string]int64{"active": 0, "at_risk": 1, "spender": 1}, counts(t, p))
	require.Equal(t, counts(t, p), all[2].Properties.Segments, "and how many there are")

	now.pass(time.Hour)
	sweep(t, p)
	require.Empty(t, lines(consume(t, p)), "no message is delivered twice")
}

func TestSegmentsFollowMerges(t *testing.T) {
	p, _ := openAt(t, segmented, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"anonymousId":"a1"`, 60), order("m2", `"userId":"u1"`, 60))
	require.ElementsMatch(t, []string{"a1 Entered active: eventm1", "u1 Entered active: eventm2"}, lines(consume(t, p)))
	apply(t, p, identifyAs("m3", "u1", "a1"))
	all := consume(t, p)
	require.Equal(t, []string{"a1 Left active: merge", "u1 Entered spender: eventm3"}, lines(all))
	require.Equal(t, "u1", all[0].Properties.MergedInto)
	require.Equal(t, map[string]int64{"active": 1, "at_risk": 0, "spender": 1}, counts(t, p))
	members, err := p.SegmentMembers(context.Background(), "active", "", 10)
	require.NoError(t, err)
	require.Equal(t, []Member{{ID: "u1"}}, members)
}

// TestRuleChangesApplyToDormantCustomers changes the definition and the parameters file: members
// change without new events, with the reason.
func TestRuleChangesApplyToDormantCustomers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "parameters.yaml")
	require.NoError(t, os.WriteFile(file, []byte("spender_revenue: 100\n"), 0o600))
	definition := segmented + "parameters_file: " + file + "\n"
	p, now := openAt(t, definition, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"userId":"u1"`, 60), order("m2", `"userId":"u2"`, 200))
	sweep(t, p)
	consume(t, p)

	require.NoError(t, os.WriteFile(file, []byte("spender_revenue: 50.5\n"), 0o600))
	follow(p)
	sweep(t, p)
	require.Equal(t, []string{"u1 Entered spender: parameter"}, lines(consume(t, p)))
	require.NoError(t, os.WriteFile(file, []byte("spender_revenue: much: more\n"), 0o600))
	follow(p)
	require.Equal(t, 50.5, p.def.Segments.Parameters().Values["spender_revenue"], "a wrong file is not taken")

	def, err := profiledefinition.Read(writeDefinition(t, shop+`
segments:
  - { name: spender, when: 'features.revenue > 150' }
  - { name: buyer, when: 'features.orders > 0' }
`))
	require.NoError(t, err)
	other := New(def, p.store, Options{})
	other.now = now.Now
	defer other.unfollow()
	sweep(t, other)
	require.ElementsMatch(t, []string{
		"u1 Left active: definition", "u1 Left spender: definition", "u1 Entered buyer: definition",
		"u2 Left active: definition", "u2 Entered buyer: definition",
	}, lines(consume(t, other)))
	require.Equal(t, map[string]int64{"buyer": 2, "spender": 1}, counts(t, other))

	none, err := profiledefinition.Read(writeDefinition(t, shop))
	require.NoError(t, err)
	last := New(none, p.store, Options{})
	last.now = now.Now
	defer last.unfollow()
	sweep(t, last)
	require.Len(t, lines(consume(t, last)), 3, "without segments all are left")
	n, err := p.store.CountIndex(context.Background(), record.SegmentIndex+"buyer", "", "")
	require.NoError(t, err)
	require.Zero(t, n)
}

// follow makes the profiles look at their files, twice, as the first look may
// find one that is being written.
func follow(p *Service) {
	for _, f := range p.files {
		for range 2 {
			_, _ = f.Check()
		}
	}
}

func TestSegmentsOfOlderRecords(t *testing.T) {
	p, now := openAt(t, shop, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"userId":"u1"`, 200))
	def, err := profiledefinition.Read(writeDefinition(t, segmented))
	require.NoError(t, err)
	later := New(def, p.store, Options{})
	later.now = now.Now
	defer later.unfollow()
	sweep(t, later)
	require.Contains(t, lines(consume(t, later)), "u1 Entered spender: definition")
}

// TestSweepRemovesEntriesOfExpiredRecords expires records, of which some are created again.
func TestSweepRemovesEntriesOfExpiredRecords(t *testing.T) {
	p, now := openAt(t, segmented, orderedAt.Add(time.Second))
	ctx := context.Background()
	apply(t, p, order("m1", `"userId":"u1"`, 200), order("m2", `"userId":"u2"`, 200))
	for _, key := range []string{"uu1", "uu2"} { // as an expiry does it: without the entries
		records, err := p.store.Load(ctx, []string{key})
		require.NoError(t, err)
		_, err = p.store.Commit(ctx, []store.Change{{Key: key, Version: records[0].Version}})
		require.NoError(t, err)
	}
	apply(t, p, order("m3", `"userId":"u2"`, 5))
	require.EqualValues(t, 2, counts(t, p)["spender"])
	now.pass(time.Hour)
	sweep(t, p)
	require.Equal(t, map[string]int64{"active": 1, "at_risk": 0, "spender": 0}, counts(t, p))
}

// TestErasedCustomerLeavesSegmentsSilently erases a member: it is in no segment and no message is
// emitted.
func TestErasedCustomerLeavesSegmentsSilently(t *testing.T) {
	p, now := openAt(t, segmented, orderedAt.Add(time.Second))
	apply(t, p, order("m1", `"userId":"u1"`, 200))
	tombstone := func(key string, rec *record.Record) (bool, string) { return rec.Erase(now.Now().UnixMilli()), "" }
	require.NoError(t, p.edit(context.Background(), []string{"uu1"}, tombstone))
	now.pass(40 * 24 * time.Hour)
	sweep(t, p)
	require.Empty(t, lines(consume(t, p)))
	require.Equal(t, map[string]int64{"active": 0, "at_risk": 0, "spender": 0}, counts(t, p))
}

func TestSegmentListsPage(t *testing.T) {
	p, _ := openAt(t, segmented, orderedAt.Add(time.Second))
	var events [][]byte
	for i := range 25 {
		events = append(events, order(fmt.Sprint("m", i), fmt.Sprintf(`"userId":"u%02d"`, i), 200), order(fmt.Sprint("n", i), fmt.Sprintf(`"anonymousId":"a%02d"`, i), 5))
	}
	apply(t, p, events...)
	var all []Member
	for after := ""; ; {
		page, err := p.SegmentMembers(context.Background(), "active", after, 7)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		after = page[len(page)-1].Key()
	}
	require.Len(t, all, 50)
	require.Equal(t, Member{ID: "a00", Anonymous: true}, all[0])
	require.Equal(t, Member{ID: "u24"}, all[49])
	_, err := p.SegmentCount(context.Background(), "spendr")
	require.EqualError(t, err, `there is no segment "spendr"; did you mean "spender"?`)
	_, err = p.SegmentMembers(context.Background(), "x", "", 1)
	require.EqualError(t, err, `there is no segment "x"`)
}

// naive are the rules of segmented, and its features, as the oracle has them.
var naive = []oracle.Segment{
	{Name: "spender", In: func(f map[string]any, _ map[string]bool) bool { return f["revenue"].(float64) > 100 }},
	{Name: "active", In: func(f map[string]any, _ map[string]bool) bool { return f["recent"].(float64) > 0 }},
	{Name: "at_risk", In: func(_ map[string]any, s map[string]bool) bool { return s["spender"] && !s["active"] }},
}

var naiveFeatures = []oracle.Feature{
	{Name: "revenue", Kind: "sum", Events: []string{"Order Completed"}, Of: "properties.total"},
	{Name: "recent", Kind: "count", Events: []string{"Order Completed"}, Window: 30 * 24 * time.Hour},
}

// stored are the segments each customer's record holds it to be in, and those
// the indexes have it in.
func stored(t require.TestingT, p *Service) (records, indexes map[string]map[string]bool) {
	ctx := context.Background()
	records, indexes = map[string]map[string]bool{}, map[string]map[string]bool{}
	for cursor := ""; ; {
		page, next, err := p.store.Scan(ctx, cursor, 100)
		require.NoError(t, err)
		for _, e := range page {
			var rec record.Record
			if !isCustomer(e.Key) {
				continue
			}
			require.NoError(t, rec.Decode(p.def, e.Key, e.Data))
			in := map[string]bool{}
			rec.VisitSegments(func(name string) { in[name] = true })
			if len(in) > 0 {
				records[record.KeyID(e.Key)] = in
			}
		}
		if cursor = next; next == "" {
			break
		}
	}
	for _, name := range p.Segments() {
		for after := ""; ; {
			page, err := p.SegmentMembers(ctx, name, after, 3)
			require.NoError(t, err)
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				if indexes[m.ID] == nil {
					indexes[m.ID] = map[string]bool{}
				}
				indexes[m.ID][name] = true
			}
			after = page[len(page)-1].Key()
		}
	}
	return records, indexes
}

// replay follows messages: what a listener takes each customer to be in. It
// fails if one enters where it is, or leaves where it is not.
func replay(t require.TestingT, in map[string]map[string]bool, all []segmentMessage) {
	for _, m := range all {
		if m.Event == record.SegmentsCounted {
			continue
		}
		id := m.UserID + m.AnonymousID
		if in[id] == nil {
			in[id] = map[string]bool{}
		}
		require.Equal(t, m.Properties.Old, in[id][m.Properties.Segment], "%+v", m)
		require.Equal(t, m.Properties.New, m.Event == record.SegmentEntered)
		if m.Properties.New {
			in[id][m.Properties.Segment] = true
		} else {
			delete(in[id], m.Properties.Segment)
		}
		if len(in[id]) == 0 {
			delete(in, id)
		}
	}
}

// TestMembershipEqualsOracle compares stored members, indexes and emitted messages with a naive
// computation after random orders, merges, sweeps and passing time.
func TestMembershipEqualsOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p, now := openAt(t, segmented, orderedAt)
		defer func() { _ = p.Close(context.Background()) }()
		history := map[string][]oracle.Event{}
		var sent [][]byte
		merged := map[string]string{}
		listener := map[string]map[string]bool{}
		for i := range rapid.IntRange(1, 15).Draw(rt, "steps") {
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1, 2:
				kind := rapid.SampledFrom([]string{"userId", "anonymousId"}).Draw(rt, "kind")
				id := map[string]string{"userId": "u", "anonymousId": "a"}[kind] + rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "id")
				when := now.Now().Add(-time.Duration(rapid.IntRange(0, 40).Draw(rt, "late")) * 24 * time.Hour)
				raw := fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"m%d",%q:%q,"timestamp":%q,"properties":{"total":%d}}`,
					i, kind, id, when.Format(time.RFC3339), rapid.IntRange(1, 90).Draw(rt, "total"))
				e := oracle.Parse(raw, record.HashID)
				if into := merged[id]; into != "" {
					id = into
				}
				history[id] = append(history[id], e)
				sent = append(sent, raw)
				apply(t, p, raw)
			case 3:
				if len(sent) > 0 { // all of it again
					apply(t, p, sent...)
				}
			case 4:
				u, a := rapid.SampledFrom([]string{"u1", "u2"}).Draw(rt, "user"), rapid.SampledFrom([]string{"a1", "a2"}).Draw(rt, "anonymous")
				raw := identifyAs(fmt.Sprint("i", i), u, a)
				sent = append(sent, raw)
				apply(t, p, raw)
				if merged[a] == "" {
					merged[a] = u
					history[u] = append(history[u], history[a]...)
					delete(history, a)
				}
			case 5:
				replay(rt, listener, consume(t, p)) // a week is kept
				now.pass(time.Duration(rapid.IntRange(1, 40).Draw(rt, "days")) * 24 * time.Hour)
			case 6:
				replay(rt, listener, consume(t, p))
			}
		}
		now.pass(time.Minute)
		sweep(t, p)
		want := map[string]map[string]bool{}
		for id, events := range history {
			if in := oracle.Members(naive, naiveFeatures, events, now.Now().UnixMilli()); len(in) > 0 {
				want[id] = in
			}
		}
		records, indexes := stored(rt, p)
		require.Equal(rt, want, records)
		require.Equal(rt, want, indexes)
		replay(rt, listener, consume(t, p))
		require.Equal(rt, want, listener)
	})
}

// TestSweepWithConcurrentWriters sweeps after rule changes while two writers with different
// clocks apply events. Members, indexes and messages equal a full computation.
func TestSweepWithConcurrentWriters(t *testing.T) {
	const customers, batches = 60, 60
	ctx := context.Background()
	s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	file := filepath.Join(t.TempDir(), "parameters.yaml")
	require.NoError(t, os.WriteFile(file, []byte("spender_revenue: 300\n"), 0o600))
	path := writeDefinition(t, segmented+"parameters_file: "+file+"\n")
	var writers []*Service
	for range 2 {
		def, err := profiledefinition.Read(path)
		require.NoError(t, err)
		p := New(def, s, Options{})
		defer p.unfollow()
		writers = append(writers, p)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	history := map[string][]oracle.Event{}
	message := map[string]segmentMessage{}
	content := map[string]string{}
	listening, stop := context.WithCancel(ctx)
	var listeners sync.WaitGroup
	listen := func(ctx context.Context, p *Service) {
		o := p.Outbox(10*time.Millisecond, time.Minute, 20)
		defer o.Close()
		for {
			d, err := o.Next(ctx)
			if err != nil {
				return
			}
			mu.Lock()
			for _, m := range d.Messages {
				var line segmentMessage
				if err := json.Unmarshal(m.Content, &line); err != nil {
					t.Error(err)
				}
				if old, again := content[line.MessageID]; again && old != string(m.Content) {
					t.Errorf("another content for %v", m.ID)
				}
				content[line.MessageID] = string(m.Content)
				message[line.MessageID] = line
			}
			mu.Unlock()
			if err := d.Acknowledge(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	for w, p := range writers {
		listeners.Go(func() { listen(listening, p) })
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for b := range batches {
				var batch [][]byte
				for i := range 20 {
					id := fmt.Sprintf("u%d", r.IntN(customers))
					when := time.Now().Add(-time.Duration(r.IntN(60)) * 24 * time.Hour).UTC()
					raw := fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"m%d-%d-%d","userId":%q,"timestamp":%q,"properties":{"total":%d}}`, w, b, i, id, when.Format(time.RFC3339Nano), r.IntN(30))
					batch = append(batch, raw)
					mu.Lock()
					history[id] = append(history[id], oracle.Parse(raw, record.HashID))
					mu.Unlock()
				}
				for range 1 + r.IntN(2) { // some batches again
					if _, err := p.Update(ctx, batch); err != nil {
						t.Error(err)
					}
				}
				if b == batches/3 && w == 0 {
					if err := os.WriteFile(file, []byte("spender_revenue: 100\n# lower\n"), 0o600); err != nil {
						t.Error(err)
					}
				}
				if b%10 == 5 {
					follow(p)
					s := sweeper{p: p, interval: time.Millisecond}
					if err := s.sweepIfDue(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	for _, p := range writers {
		follow(p)
		require.Equal(t, 100.0, p.def.Segments.Parameters().Values["spender_revenue"])
	}
	end := time.Now()
	s1 := sweeper{p: writers[0], interval: time.Nanosecond}
	require.NoError(t, s1.sweepIfDue(ctx))
	for outboxEntries(t, writers[0]) > 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	listeners.Wait()

	want := map[string]map[string]bool{}
	for id, events := range history {
		if in := oracle.Members(naive, naiveFeatures, events, end.UnixMilli()); len(in) > 0 {
			want[id] = in
		}
	}
	records, indexes := stored(t, writers[0])
	require.Equal(t, want, records)
	require.Equal(t, want, indexes)
	// A message that came twice is one.
	net := map[string]map[string]int{}
	for _, m := range message {
		if m.Event == record.SegmentsCounted {
			continue
		}
		if net[m.UserID] == nil {
			net[m.UserID] = map[string]int{}
		}
		if m.Properties.New {
			net[m.UserID][m.Properties.Segment]++
		} else {
			net[m.UserID][m.Properties.Segment]--
		}
	}
	got := map[string]map[string]bool{}
	for id, segments := range net {
		for name, n := range segments {
			require.Contains(t, []int{0, 1}, n, "%s %s", id, name)
			if n == 1 {
				if got[id] == nil {
					got[id] = map[string]bool{}
				}
				got[id][name] = true
			}
		}
	}
	for id := range want {
		if !maps.Equal(want[id], got[id]) {
			var all []string
			for _, m := range message {
				if m.UserID == id {
					all = append(all, content[m.MessageID])
				}
			}
			slices.Sort(all)
			t.Logf("messages of %s:\n%s", id, strings.Join(all, "\n"))
		}
	}
	require.Equal(t, want, got, "messages add up to the memberships")
}
