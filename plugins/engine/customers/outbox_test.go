package customers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

// enqueue adds messages to the record of a customer, which it creates if missing.
func enqueue(t testing.TB, p *Service, key string, messages ...record.Message) {
	ctx := context.Background()
	for {
		records, err := p.store.Load(ctx, []string{key})
		require.NoError(t, err)
		var rec record.Record
		if rec.Reset(p.def); records[0].Version != store.Absent {
			require.NoError(t, rec.Decode(p.def, key, records[0].Data))
		}
		for _, m := range messages {
			rec.Enqueue(m)
		}
		lost, err := p.store.Commit(ctx, []store.Change{{Key: key, Version: records[0].Version, Data: rec.Encode(nil, key), Index: indexEdits(&rec)}})
		require.NoError(t, err)
		if len(lost) == 0 {
			p.hint(key)
			return
		}
	}
}

func message(id byte, at time.Time) record.Message {
	return record.Message{ID: record.MessageID{id}, Time: at.UnixMilli(), Content: fmt.Appendf(nil, `{"n":%d}`, id)}
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func openAt(t testing.TB, definition string, now time.Time) (*Service, *clock) {
	p, c := open(t, definition), &clock{now: now}
	p.now = c.Now
	return p, c
}

// next returns the contents of what is delivered now, nil if nothing is.
func next(t testing.TB, o *Outbox) (*Delivery, []string) {
	o.nextPoll = time.Time{}
	d, err := o.take(context.Background())
	require.NoError(t, err)
	if d == nil {
		return nil, nil
	}
	var contents []string
	for _, m := range d.Messages {
		contents = append(contents, m.CustomerID+string(m.Content))
	}
	return d, contents
}

func outboxEntries(t testing.TB, p *Service) int64 {
	n, err := p.store.CountIndex(context.Background(), record.OutboxIndex, "", "")
	require.NoError(t, err)
	return n
}

func TestOutboxDeliversOnceAndInOrder(t *testing.T) {
	ctx := context.Background()
	p, now := openAt(t, shop, at)
	o, other := p.Outbox(time.Hour, 30*time.Second, 10), p.Outbox(time.Hour, 30*time.Second, 10)
	enqueue(t, p, "uu1", message(1, at), message(2, at), message(3, at.Add(time.Minute)))

	d, got := next(t, o)
	require.Equal(t, []string{`u1{"n":1}`, `u1{"n":2}`}, got, "what is not due yet waits")
	_, again := next(t, other)
	require.Empty(t, again, "it is claimed")

	// New messages wait for the end of the lease and do not extend it.
	enqueue(t, p, "uu1", message(4, at))
	_, got = next(t, o)
	require.Empty(t, got)
	require.NoError(t, d.Acknowledge(ctx))
	d, got = next(t, other)
	require.Equal(t, []string{`u1{"n":4}`}, got)
	require.NoError(t, d.Acknowledge(ctx))
	now.pass(time.Minute)
	d, got = next(t, other)
	require.Equal(t, []string{`u1{"n":3}`}, got)
	require.NoError(t, d.Acknowledge(ctx))
	require.NoError(t, d.Acknowledge(ctx), "settling again does nothing")
	require.Zero(t, outboxEntries(t, p))
}

func TestCorruptRecordsDoNotBlockOutbox(t *testing.T) {
	p, _ := openAt(t, shop, at)
	const damaged = 100 // more than one look finds
	for i := range damaged {
		key := fmt.Sprintf("ud%d", i)
		enqueue(t, p, key, message(1, at.Add(-time.Hour)))
		records, err := p.store.Load(t.Context(), []string{key})
		require.NoError(t, err)
		lost, err := p.store.Commit(t.Context(), []store.Change{{Key: key, Version: records[0].Version, Data: []byte("damaged")}})
		require.NoError(t, err)
		require.Empty(t, lost)
	}
	enqueue(t, p, "uu1", message(2, at))
	o := p.Outbox(time.Hour, 30*time.Second, 10)
	d, got := next(t, o)
	require.Equal(t, []string{`u1{"n":2}`}, got)
	require.NoError(t, d.Acknowledge(t.Context()))
	_, got = next(t, o)
	require.Empty(t, got)
	require.EqualValues(t, damaged, outboxEntries(t, p), "they may be of a newer release")
}

func TestExpiredLeaseIsDeliveredAgain(t *testing.T) {
	ctx := context.Background()
	p, now := openAt(t, shop, at)
	o := p.Outbox(time.Hour, 30*time.Second, 10)
	enqueue(t, p, "uu1", message(1, at))
	dead, got := next(t, o)
	require.Len(t, got, 1)
	now.pass(29 * time.Second)
	_, none := next(t, o)
	require.Empty(t, none)
	now.pass(time.Second)
	d, again := next(t, o)
	require.Equal(t, got, again, "the same id, the same bytes")

	// It was not dead after all.
	require.NoError(t, dead.Release(ctx, 0))
	_, none = next(t, o)
	require.Empty(t, none, "the claim is another's by now")
	require.NoError(t, dead.Acknowledge(ctx))
	_, none = next(t, o)
	require.Empty(t, none)
	require.NoError(t, d.Acknowledge(ctx))
	require.Zero(t, outboxEntries(t, p))
}

// TestClaimWithoutAnswerIsOwned fails a commit that was written: the messages are delivered
// before the lease ends.
func TestClaimWithoutAnswerIsOwned(t *testing.T) {
	p, now := openAt(t, shop, at)
	_, err := p.checkGeneration(t.Context())
	require.NoError(t, err)
	written, lost := 0, 0
	p.store = &faulty{Store: p.store, fail: func() (before, after bool) {
		before, after = lost > 0, written > 0
		lost, written = max(0, lost-1), max(0, written-1)
		return before, after
	}}
	o, other := p.Outbox(time.Hour, 30*time.Second, 10), p.Outbox(time.Hour, 30*time.Second, 10)
	enqueue(t, p, "uu1", message(1, at))
	enqueue(t, p, "uu2", message(2, at))
	for range 3 {
		written = 3 // the loads of records and generation, and the commit
		o.nextPoll = time.Time{}
		_, err := o.Next(t.Context())
		require.ErrorIs(t, err, errFault)
		_, none := next(t, other)
		require.Empty(t, none)
		now.pass(time.Second)
	}
	lost = 1
	_, err = o.Next(t.Context())
	require.ErrorIs(t, err, errFault)
	d, got := next(t, o)
	require.ElementsMatch(t, []string{`u1{"n":1}`, `u2{"n":2}`}, got)
	require.NoError(t, d.Acknowledge(t.Context()))
	require.Empty(t, o.unsure)
	require.Zero(t, outboxEntries(t, p))
}

func TestReleasedMessagesAreDeliveredAfterDelay(t *testing.T) {
	ctx := context.Background()
	p, now := openAt(t, shop, at)
	o := p.Outbox(time.Hour, 30*time.Second, 10)
	enqueue(t, p, "uu1", message(1, at))
	d, got := next(t, o)
	require.NoError(t, d.Release(ctx, 5*time.Second))
	_, none := next(t, o)
	require.Empty(t, none)
	now.pass(5 * time.Second)
	_, again := next(t, o)
	require.Equal(t, got, again)
}

// TestAcknowledgeFollowsMerge acknowledges messages of a customer that was merged after the
// claim; they are not delivered again for the other customer.
func TestAcknowledgeFollowsMerge(t *testing.T) {
	ctx := context.Background()
	p, _ := openAt(t, shop, at)
	o := p.Outbox(time.Hour, 30*time.Second, 10)
	apply(t, p, order("m1", `"anonymousId":"a1"`, 5))
	enqueue(t, p, "aa1", message(1, at))
	d, got := next(t, o)
	require.Equal(t, []string{`a1{"n":1}`}, got)
	enqueue(t, p, "aa1", message(2, at))
	apply(t, p, identifyAs("m2", "u1", "a1"))
	require.NoError(t, d.Acknowledge(ctx))
	d, got = next(t, o)
	require.Equal(t, []string{`u1{"n":2}`}, got, "the other customer delivers the rest")
	require.NoError(t, d.Acknowledge(ctx))
	require.Zero(t, outboxEntries(t, p))
}

func identifyAs(id, user, anonymous string) []byte {
	return fmt.Appendf(nil, `{"type":"identify","messageId":%q,"userId":%q,"anonymousId":%q,"timestamp":"2026-01-02T03:04:05.000Z","traits":{}}`, id, user, anonymous)
}

// TestStaleOutboxEntriesAreRemoved has index entries without a message, as an expired record
// leaves them.
func TestStaleOutboxEntriesAreRemoved(t *testing.T) {
	ctx := context.Background()
	p, _ := openAt(t, shop, at)
	apply(t, p, order("m1", `"userId":"u1"`, 5))
	records, err := p.store.Load(ctx, []string{"uu1"})
	require.NoError(t, err)
	value := record.FormatTime(at.UnixMilli())
	_, err = p.store.Commit(ctx, []store.Change{
		{Key: "uu1", Version: records[0].Version, Data: records[0].Data, Index: []store.IndexEdit{{Index: record.OutboxIndex, Value: value}}},
		{Key: "ugone", Data: nil, Index: []store.IndexEdit{{Index: record.OutboxIndex, Value: value}}},
	})
	require.NoError(t, err)
	require.EqualValues(t, 2, outboxEntries(t, p))
	_, got := next(t, p.Outbox(time.Hour, 30*time.Second, 10))
	require.Empty(t, got)
	require.Zero(t, outboxEntries(t, p))
	v, _ := read(t, p, "u1")
	require.EqualValues(t, 1, v.Features["orders"])
}

// TestConcurrentOutboxesDeliverAll delivers with several outboxes, of which some crash and some
// release their claims, while records change. Every message is delivered, unchanged
// and in order for each customer.
func TestConcurrentOutboxesDeliverAll(t *testing.T) {
	const customers, rounds = 40, 25
	p := open(t, shop)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var mu sync.Mutex
	arrived := map[record.MessageID]string{}
	last := map[string]byte{}
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			o := p.Outbox(5*time.Millisecond, 200*time.Millisecond, 8)
			defer o.Close()
			for {
				d, err := o.Next(ctx)
				if err != nil {
					return
				}
				switch r.IntN(8) {
				case 0: // dies
					continue
				case 1:
					_ = d.Release(ctx, time.Millisecond)
					continue
				}
				mu.Lock()
				for _, m := range d.Messages {
					if content, again := arrived[m.ID]; again && content != string(m.Content) {
						t.Errorf("another content for %x", m.ID)
					}
					if _, again := arrived[m.ID]; !again {
						if m.ID[1] != last[m.CustomerID]+1 {
							t.Errorf("customer %s: message %d after %d", m.CustomerID, m.ID[1], last[m.CustomerID])
						}
						last[m.CustomerID] = m.ID[1]
					}
					arrived[m.ID] = string(m.Content)
				}
				n := len(arrived)
				mu.Unlock()
				if err := d.Acknowledge(ctx); err != nil {
					return
				}
				if n == customers*rounds && outboxEntries(t, p) == 0 {
					cancel()
				}
			}
		})
	}
	all.Go(func() {
		for round := range rounds {
			for c := range customers {
				enqueue(t, p, fmt.Sprintf("uu%d", c), record.Message{ID: record.MessageID{byte(c), byte(round + 1)}, Time: int64(round), Content: fmt.Appendf(nil, "%d %d", c, round)})
			}
		}
	})
	all.Go(func() {
		for i := range 200 {
			_, err := p.Update(ctx, [][]byte{order(fmt.Sprint("m", i), fmt.Sprintf(`"userId":"u%d"`, i%customers), 1)})
			if err != nil {
				return
			}
		}
	})
	all.Wait()
	require.Len(t, arrived, customers*rounds)
	require.Zero(t, outboxEntries(t, p), "and nothing is left")
	require.Zero(t, p.outboxes.Load())
}

// TestOwnMessagesAreDeliveredWithoutPoll delivers a message of the same process before the next poll.
func TestOwnMessagesAreDeliveredWithoutPoll(t *testing.T) {
	def, err := profiledefinition.Read(writeDefinition(t, shop))
	require.NoError(t, err)
	s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
	require.NoError(t, err)
	p := New(def, s, Options{})
	t.Cleanup(func() { require.NoError(t, p.Close(context.Background())) })
	o := p.Outbox(time.Hour, time.Hour, 10)
	defer o.Close()
	o.nextPoll = time.Now().Add(time.Hour)
	got := make(chan int)
	go func() {
		d, err := o.Next(context.Background())
		if err != nil {
			got <- 0
			return
		}
		got <- len(d.Messages)
	}()
	enqueue(t, p, "uu1", message(1, time.Now().Add(-time.Second)))
	require.Equal(t, 1, <-got)
}
