package customers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

const cart = `
features:
  - { name: adds, count: { events: [Product Added], window: 7d } }
messages:
  timezone: Europe/Berlin
  limits: [ { count: 2, per: 1d } ]
  channels:
    - name: email
      consent: traits.consent == true
      quiet_hours: { from: "21:00", to: "08:00" }
triggers:
  - name: cart_abandoned
    on: { events: [Product Added] }
    after: 1h
    unless: { events: [Order Completed] }
    when: features.adds > 0
    channel: email
    limits: [ { count: 1, per: 3d } ]
    data: '{ "adds": features.adds }'
  - name: welcome
    on: { events: [identify], repeat: first }
    channel: email
    expire: 1d
`

func added(id, ids string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"type":"track","event":"Product Added","messageId":%q,%s,"timestamp":%q,"receivedAt":%q}`, id, ids, at.Format(time.RFC3339), at.Format(time.RFC3339))
}

func ordered(id, ids string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":%q,%s,"timestamp":%q,"receivedAt":%q}`, id, ids, at.Format(time.RFC3339), at.Format(time.RFC3339))
}

// fireAll decides everything that is due.
func fireAll(t testing.TB, p *Service) {
	triggers := p.TriggerScheduler(10)
	for {
		next, err := triggers.Fire(context.Background(), time.Minute)
		require.NoError(t, err)
		if next > 0 {
			return
		}
	}
}

type triggerMessage struct {
	Event     string    `json:"event"`
	MessageID string    `json:"messageId"`
	UserID    string    `json:"userId"`
	Timestamp time.Time `json:"timestamp"`
	Props     struct {
		Trigger string         `json:"trigger"`
		Channel string         `json:"channel"`
		CauseAt time.Time      `json:"cause_at"`
		DueAt   time.Time      `json:"due_at"`
		Data    map[string]any `json:"data"`
	} `json:"properties"`
}

// waiting returns what is in the outbox of a customer.
func waiting(t testing.TB, p *Service, key string) (all []triggerMessage) {
	records, err := p.store.Load(context.Background(), []string{key})
	require.NoError(t, err)
	if records[0].Version == store.Absent {
		return nil
	}
	var rec record.Record
	require.NoError(t, rec.Decode(p.def, key, records[0].Data))
	for _, m := range rec.Outbox() {
		var one triggerMessage
		require.NoError(t, json.Unmarshal(m.Content, &one), "%s", m.Content)
		require.Equal(t, fmt.Sprintf("%x", m.ID), one.MessageID)
		all = append(all, one)
	}
	return all
}

func names(all []triggerMessage) (names []string) {
	for _, one := range all {
		names = append(names, one.Props.Trigger)
	}
	return names
}

func dueIndex(t testing.TB, p *Service) []store.IndexEntry {
	page, err := p.store.ScanIndex(context.Background(), record.TriggerIndex, "", "", store.IndexEntry{}, 1000)
	require.NoError(t, err)
	return page
}

func TestTriggerFiresOnceWhenDue(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	apply(t, p, added("m1", `"userId":"u1"`, now), identify("m2", "u1", "a1", now.Format(time.RFC3339), "web", `{"consent":true}`), added("m3", `"userId":"u2"`, now))
	fireAll(t, p)
	require.Equal(t, []string{"welcome"}, names(waiting(t, p, "uu1")))

	now = now.Add(59 * time.Minute)
	fireAll(t, p)
	require.Len(t, waiting(t, p, "uu1"), 1, "not before its time")

	now = now.Add(time.Minute)
	for range 3 {
		fireAll(t, p)
	}
	all := waiting(t, p, "uu1")
	require.Equal(t, []string{"welcome", "cart_abandoned"}, names(all))
	require.Equal(t, triggerMessage{Event: EventTriggerFired, MessageID: all[1].MessageID, UserID: "u1", Timestamp: now, Props: all[1].Props}, all[1])
	require.Equal(t, "email", all[1].Props.Channel)
	require.Equal(t, now.Add(-time.Hour), all[1].Props.CauseAt)
	require.Equal(t, now, all[1].Props.DueAt)
	require.Equal(t, map[string]any{"adds": 1.0}, all[1].Props.Data)
	require.Empty(t, waiting(t, p, "uu2"), "no message without consent")
	require.Empty(t, dueIndex(t, p))
}

func TestCorruptRecordsDoNotBlockTriggers(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	fireAll(t, p)       // since when there are triggers
	const damaged = 100 // more than one look finds
	for i := range damaged {
		apply(t, p, added(fmt.Sprintf("m%d", i), fmt.Sprintf(`"userId":"d%d"`, i), now))
		key := fmt.Sprintf("ud%d", i)
		records, err := p.store.Load(t.Context(), []string{key})
		require.NoError(t, err)
		lost, err := p.store.Commit(t.Context(), []store.Change{{Key: key, Version: records[0].Version, Data: []byte("damaged")}})
		require.NoError(t, err)
		require.Empty(t, lost)
	}
	now = now.Add(2 * time.Hour) // all of them are due before
	apply(t, p, identify("i", "u1", "a1", now.Format(time.RFC3339), "web", `{"consent":true}`))
	triggers := p.TriggerScheduler(10)
	for range 2 * damaged {
		_, err := triggers.Fire(t.Context(), time.Minute)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"welcome"}, names(waiting(t, p, "uu1")))
	next, err := triggers.Fire(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, time.Minute, next, "later calls return the same")
	require.Len(t, dueIndex(t, p), damaged, "a newer release may be able to read them")
}

func TestFireReturnsTimeUntilNextTrigger(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	triggers := p.TriggerScheduler(2)
	fire := func() time.Duration {
		next, err := triggers.Fire(context.Background(), time.Minute)
		require.NoError(t, err)
		return next
	}
	require.Equal(t, time.Minute, fire(), "nothing waits")
	for i := range 3 {
		apply(t, p, added(fmt.Sprint("m", i), fmt.Sprintf(`"userId":"u%d"`, i), now.Add(time.Duration(i)*time.Second)))
	}
	require.Equal(t, time.Minute, fire(), "it does not look as far")
	now = now.Add(time.Hour - 10*time.Second)
	require.Equal(t, 10*time.Second, fire())
	require.Len(t, dueIndex(t, p), 3, "not before its time")
	now = now.Add(10 * time.Second)
	require.Equal(t, time.Second, fire())
	require.Len(t, dueIndex(t, p), 2)
	for i := range 3 {
		apply(t, p, added(fmt.Sprint("n", i), fmt.Sprintf(`"userId":"v%d"`, i), now.Add(-time.Hour)))
	}
	require.Zero(t, fire(), "two of three at most at a time")
	require.Equal(t, time.Second, fire())
}

func TestEventCancelsTrigger(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	apply(t, p, identify("m0", "u1", "a1", "2026-05-01T00:00:00Z", "web", `{"consent":true}`), added("m1", `"userId":"u1"`, now))
	fireAll(t, p) // the welcome is too late
	require.Len(t, dueIndex(t, p), 1)
	now = now.Add(30 * time.Minute)
	apply(t, p, ordered("m2", `"userId":"u1"`, now))
	require.Empty(t, dueIndex(t, p))
	now = now.Add(time.Hour)
	fireAll(t, p)
	require.Empty(t, waiting(t, p, "uu1"))
}

func TestMergeKeepsPendingTriggers(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	apply(t, p, added("m1", `"anonymousId":"a1"`, now))
	require.Empty(t, dueIndex(t, p), "anonymous customers have no pending triggers")
	now = now.Add(10 * time.Minute)
	apply(t, p, identify("m2", "u1", "a1", now.Format(time.RFC3339), "web", `{"consent":true}`))
	fireAll(t, p)
	require.Equal(t, []store.IndexEntry{{Value: record.FormatTime(now.Add(50 * time.Minute).UnixMilli()), Key: "uu1"}}, dueIndex(t, p))
	now = now.Add(50 * time.Minute)
	fireAll(t, p)
	require.Equal(t, []string{"welcome", "cart_abandoned"}, names(waiting(t, p, "uu1")))
}

func TestQuietHoursUseCustomerTimeZone(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 18, 30, 0, 0, time.UTC) // 20:30 in Berlin
	p.now = func() time.Time { return now }
	stated := "2026-05-01T00:00:00Z"
	apply(t, p,
		identify("m1", "u1", "a1", stated, "web", `{"consent":true}`),
		identify("m2", "u2", "a2", stated, "web", `{"consent":true,"timezone":"America/New_York"}`),
		added("m3", `"userId":"u1"`, now), added("m4", `"userId":"u2"`, now))
	now = now.Add(time.Hour)
	fireAll(t, p)
	require.Empty(t, waiting(t, p, "uu1"))
	require.Equal(t, []string{"cart_abandoned"}, names(waiting(t, p, "uu2")))
	now = time.Date(2026, 6, 2, 6, 0, 0, 0, time.UTC)
	fireAll(t, p)
	require.Equal(t, []string{"cart_abandoned"}, names(waiting(t, p, "uu1")))
}

// TestConcurrentSchedulersFireOnce fires with several processes that crash between
// the load and the commit, or before they receive the answer of a commit.
func TestConcurrentSchedulersFireOnce(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	const customers = 300
	var events [][]byte
	for i := range customers {
		events = append(events, identify(fmt.Sprint("i", i), fmt.Sprint("u", i), fmt.Sprint("a", i), "2026-05-01T00:00:00Z", "web", `{"consent":true}`),
			added(fmt.Sprint("m", i), fmt.Sprintf(`"userId":"u%d"`, i), now))
	}
	apply(t, p, events...)
	now = now.Add(time.Hour)
	done := make(chan error)
	for range 4 {
		go func() {
			triggers := p.TriggerScheduler(20)
			for {
				next, err := triggers.Fire(context.Background(), time.Minute)
				if err != nil || next > 0 {
					done <- err
					return
				}
			}
		}()
	}
	for range 4 {
		require.NoError(t, <-done)
	}
	fireAll(t, p)
	ids := map[string]bool{}
	for i := range customers {
		all := waiting(t, p, fmt.Sprintf("uu%d", i))
		require.Equal(t, []string{"cart_abandoned"}, names(all))
		ids[all[0].MessageID] = true
	}
	require.Len(t, ids, customers)
}

func TestDueIndexEqualsRecords(t *testing.T) {
	p := open(t, cart)
	now := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	for i := range 200 {
		who := fmt.Sprintf(`"userId":"u%d"`, i%17)
		e := added(fmt.Sprint("m", i), who, now)
		if i%5 == 0 {
			e = ordered(fmt.Sprint("m", i), who, now)
		}
		if i%7 == 0 {
			e = identify(fmt.Sprint("m", i), fmt.Sprint("u", i%17), fmt.Sprint("a", i%31), now.Format(time.RFC3339), "web", `{"consent":true}`)
		}
		apply(t, p, e)
		now = now.Add(7 * time.Minute)
		fireAll(t, p)
	}
	var want []store.IndexEntry
	page, _, err := p.store.Scan(context.Background(), "", 10_000)
	require.NoError(t, err)
	for _, e := range page {
		if !isCustomer(e.Key) {
			continue
		}
		var rec record.Record
		require.NoError(t, rec.Decode(p.def, e.Key, e.Data))
		stored, some := rec.TriggersDue()
		require.NoError(t, new(record.TriggerEvaluator).Schedule(&rec, e.Key))
		due, also := rec.TriggersDue()
		require.Equal(t, some, also)
		require.Equal(t, stored, due)
		if some {
			want = append(want, store.IndexEntry{Value: record.FormatTime(due), Key: e.Key})
		}
	}
	slices.SortFunc(want, func(a, b store.IndexEntry) int {
		return slices.Compare([]string{a.Value, a.Key}, []string{b.Value, b.Key})
	})
	require.NotEmpty(t, want)
	require.Equal(t, want, dueIndex(t, p))
}
