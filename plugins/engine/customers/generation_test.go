package customers

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

const lossy = shop + `
segments:
  - { name: buyer, when: 'features.orders > 0' }
messages: { channels: [ { name: email, consent: 'true' } ] }
triggers:
  - { name: cart, on: { events: [Product Added] }, after: 1h, channel: email }
  - { name: thanks, on: { enter: buyer }, channel: email, expire: 30d }
`

// replaceable is a store with data that can be replaced, as by FLUSHALL or by a restore.
type replaceable struct{ store.Store }

func emptyStore(t testing.TB) store.Store {
	s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func requireLost(t testing.TB, p *Service, found string) {
	t.Helper()
	var lost *LostError
	require.ErrorAs(t, p.Ping(t.Context()), &lost)
	require.Equal(t, found, lost.Found)
}

// messages delivers all messages and returns their events, without counts of
// segments.
func messages(t testing.TB, p *Service) (events []string) {
	for _, m := range consume(t, p) {
		if m.Event != record.SegmentsCounted {
			events = append(events, m.Event+" "+m.UserID)
		}
	}
	return events
}

// TestReplayAfterLossRepeatsNoMessage empties the store and replays the events: no
// message is sent again, and none to an erased customer.
func TestReplayAfterLossRepeatsNoMessage(t *testing.T) {
	s := &replaceable{emptyStore(t)}
	now := &clock{now: orderedAt}
	def := definitionsOf(t, lossy)
	running := processes(s, now.Now, def)[0]
	require.NoError(t, running.Ping(t.Context()))
	fireAll(t, running) // creates the triggers

	now.pass(time.Minute)
	begun := now.now
	history := [][]byte{
		added("m1", `"userId":"u1"`, begun), ordered("m2", `"userId":"u2"`, begun), ordered("m3", `"userId":"u3"`, begun),
		added("m4", `"userId":"u3"`, begun), erasureOf("erase", "m5", `"userId":"u3"`, begun.Add(time.Second).Format(time.RFC3339)),
	}
	apply(t, running, history[:4]...)
	fireAll(t, running)
	require.ElementsMatch(t, []string{"Segment Entered u2", "Segment Entered u3", "Trigger Fired u2", "Trigger Fired u3"}, messages(t, running))
	now.pass(10 * time.Minute)
	apply(t, running, history[4:]...)

	// The cart of u1 is pending when the data is lost.
	s.Store = emptyStore(t)
	require.NoError(t, processes(s, now.Now, def)[0].Ping(t.Context()), "a new process is the first to find the empty store")
	_, err := running.checkGeneration(t.Context()) // which it does every second
	require.NoError(t, err)
	restarted := processes(s, now.Now, def)[0]
	for _, event := range history { // one by one, so that each state in between is written
		apply(t, restarted, event)
		now.pass(10 * time.Minute)
		fireAll(t, running)
		fireAll(t, restarted)
		require.NoError(t, (&sweeper{p: restarted, interval: time.Minute}).sweepIfDue(t.Context()))
		require.Empty(t, messages(t, restarted))
	}
	now.pass(2 * time.Hour)
	fireAll(t, restarted)
	require.Empty(t, messages(t, restarted))
	requireErased(t, restarted, "uu3")
	require.Equal(t, map[string]int64{"buyer": 1}, counts(t, restarted))

	// New causes fire, though not in the process that noticed the loss.
	require.NoError(t, restarted.Ping(t.Context()))
	requireLost(t, running, "replaced by another")
	apply(t, restarted, added("m6", `"userId":"u1"`, now.now), ordered("m7", `"userId":"u4"`, now.now))
	now.pass(2 * time.Hour)
	fireAll(t, running)
	require.Empty(t, messages(t, running))
	fireAll(t, restarted)
	require.Empty(t, messages(t, running))
	require.ElementsMatch(t, []string{"Segment Entered u4", "Trigger Fired u1", "Trigger Fired u4"}, messages(t, restarted))
}

// TestRestoredBackupRepeatsNoMessage restores a backup that has messages which were
// delivered since.
func TestRestoredBackupRepeatsNoMessage(t *testing.T) {
	s, backup := &replaceable{emptyStore(t)}, emptyStore(t)
	now := &clock{now: orderedAt}
	def := definitionsOf(t, lossy)
	running := processes(s, now.Now, def)[0]
	require.NoError(t, running.Ping(t.Context()))
	copied, err := s.Load(t.Context(), []string{generationKey})
	require.NoError(t, err)
	_, err = backup.Commit(t.Context(), []store.Change{{Key: generationKey, Data: copied[0].Data}})
	require.NoError(t, err)
	earlier := processes(backup, now.Now, def)[0]
	fireAll(t, earlier)
	fireAll(t, running)
	now.pass(time.Minute)
	events := [][]byte{added("m1", `"userId":"u1"`, now.now), ordered("m2", `"userId":"u2"`, now.now)}
	apply(t, earlier, events...)
	apply(t, running, events...)
	require.Equal(t, []string{"Segment Entered u2"}, messages(t, running))
	now.pass(2 * time.Hour)
	fireAll(t, running)
	require.ElementsMatch(t, []string{"Trigger Fired u1", "Trigger Fired u2"}, messages(t, running))

	s.Store = backup
	_, err = running.checkGeneration(t.Context())
	require.NoError(t, err)
	requireLost(t, running, "older than it was")
	restarted := processes(s, now.Now, def)[0]
	require.EqualValues(t, 1, outboxEntries(t, restarted), "the backup has a message")
	now.pass(time.Minute)
	fireAll(t, restarted)
	require.Empty(t, messages(t, restarted))
	require.Zero(t, outboxEntries(t, restarted))
}

// TestFailoverIsNotALoss compares generations with an older heartbeat, as after a
// failover to an asynchronous replica, and after a restore.
func TestFailoverIsNotALoss(t *testing.T) {
	known := generation{ID: "a", Created: 1, Beat: orderedAt.UnixMilli()}
	for _, tt := range []struct {
		behind time.Duration
		found  string
		write  bool
	}{
		{0, "", false},
		{beatInterval - 1, "", false},
		{beatInterval, "", true},
		{maxBeatLoss, "", true},
		{maxBeatLoss + time.Millisecond, "older than it was", true},
	} {
		stored := known
		stored.Beat -= tt.behind.Milliseconds()
		data, err := json.Marshal(stored)
		require.NoError(t, err)
		g := generations{known: known}
		found, next, write := g.compare(store.Record{Data: data, Version: store.VersionOf(data)}, known.Beat)
		require.Equal(t, tt.found, found, tt.behind)
		require.Equal(t, tt.write, write, tt.behind)
		require.Equal(t, tt.found == "", next.ID == known.ID, tt.behind)
	}
}
