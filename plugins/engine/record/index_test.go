package record_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

func messageOf(n byte, at int64) record.Message {
	return record.Message{ID: record.MessageID{n}, Time: at, Content: []byte{'{', n, '}'}}
}

func text(s string) event.Value { return event.Value{Kind: event.String, Text: []byte(s)} }

func TestFormatTimeKeepsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		time := rapid.Int64Range(0, record.MaxTime-1)
		a, b := time.Draw(t, "a"), time.Draw(t, "b")
		require.Equal(t, a < b, record.FormatTime(a) < record.FormatTime(b))
		require.Equal(t, a == b, record.FormatTime(a) == record.FormatTime(b))
		ms, ok := record.ParseTime(record.FormatTime(a))
		require.True(t, ok)
		require.Equal(t, a, ms)
	})
}

// TestEditsKeepIndexesConsistent changes a record arbitrarily between decoding
// and encoding. Its edits turn the index entries from before into those from
// after.
func TestEditsKeepIndexesConsistent(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	def.Identifiers = record.Identifiers{{Name: "email", Trait: "email", IgnoreCase: true}, {Name: "phone", Trait: "phone"}}
	rapid.Check(t, func(t *rapid.T) {
		var stored []byte
		indexes := map[record.Entry]bool{}
		for range rapid.IntRange(1, 10).Draw(t, "writes") {
			var r record.Record
			if stored == nil {
				r.Reset(def)
			} else {
				require.NoError(t, r.Decode(def, "uu1", stored))
			}
			for range rapid.IntRange(0, 5).Draw(t, "changes") {
				at := rapid.Int64Range(0, 5).Draw(t, "at")
				id := rapid.ByteRange(1, 5).Draw(t, "id")
				switch rapid.IntRange(0, 8).Draw(t, "change") {
				case 0:
					r.Enqueue(messageOf(id, at))
				case 1:
					r.Acknowledge([]record.MessageID{{id}})
				case 2:
					r.Claim(at)
				case 3:
					r.SetMember(rapid.SampledFrom([]string{"a", "ab", "b"}).Draw(t, "segment"), rapid.Bool().Draw(t, "in"), at)
				case 4:
					var o record.Record
					o.Reset(def)
					o.Enqueue(messageOf(id, at))
					_, err := r.Merge("aa1", &o)
					require.NoError(t, err)
				case 5:
					r.Strip("uu1")
				case 6:
					trait := rapid.SampledFrom([]string{"email", "phone"}).Draw(t, "trait")
					value := rapid.SampledFrom([]event.Value{{}, text("A@b.c"), text(" a@B.C"), text("d@e.f"), {Kind: event.Number, Number: 5}}).Draw(t, "value")
					_, err := r.SetTrait([]byte(trait), value, record.Statement{Time: at})
					require.NoError(t, err)
				case 7:
					r.Erase(at + 1)
				case 8:
					r.LinkTo("uu2")
				}
			}
			_, err := r.SetIdentifiers()
			require.NoError(t, err)
			r.Edits(func(e record.Entry, remove bool) {
				require.Equal(t, remove, indexes[e], "an edit that does nothing")
				if remove {
					delete(indexes, e)
				} else {
					indexes[e] = true
				}
			})
			want := map[record.Entry]bool{}
			for _, e := range r.Entries(nil) {
				want[e] = true
			}
			require.Equal(t, want, indexes)
			stored = r.Encode(nil, "uu1")
			require.Equal(t, r.Entries(nil), reload(t, def, &r).Entries(nil))
		}
	})
}

// TestOutbox shows that messages keep order and content, and wait while the
// outbox is claimed.
func TestOutbox(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	var r record.Record
	r.Reset(def)
	require.Empty(t, r.Outbox())
	plain := r.Encode(nil, "uu1")

	r.Enqueue(messageOf(1, 100))
	r.Enqueue(messageOf(2, 100))
	r.Enqueue(record.Message{ID: record.MessageID{1}, Time: 300, Content: []byte("another content")})
	again := reload(t, def, &r)
	require.Equal(t, []record.Message{messageOf(1, 100), messageOf(2, 100)}, again.Outbox(), "an id has one content")
	require.EqualValues(t, 100, again.OutboxDue())

	again.Claim(900)
	again = reload(t, def, again)
	require.EqualValues(t, 900, again.ClaimedUntil())
	require.EqualValues(t, 900, again.OutboxDue())
	require.Equal(t, []record.Entry{{Index: "outbox", Value: "000000000384"}}, again.Entries(nil))

	require.True(t, again.Acknowledge([]record.MessageID{{1}, {9}}))
	require.False(t, again.Acknowledge([]record.MessageID{{1}}))
	require.Equal(t, []record.Message{messageOf(2, 100)}, again.Outbox())
	require.True(t, again.Acknowledge([]record.MessageID{{2}}))
	require.Equal(t, plain, again.Encode(nil, "uu1"), "an acknowledged outbox leaves nothing")
}

// TestOutboxIsBounded shows that a record without a deliverer stops growing.
func TestOutboxIsBounded(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	var r record.Record
	r.Reset(def)
	dropped := 0
	for i := range 300 {
		dropped += r.Enqueue(record.Message{ID: record.MessageID{byte(i), byte(i >> 8)}, Time: int64(i)})
	}
	require.Len(t, r.Outbox(), 256)
	require.Equal(t, 300-256, dropped)
	require.EqualValues(t, 299, r.Outbox()[255].Time, "the latest are kept")

	require.Equal(t, 256, r.Enqueue(messageOf(1, 8*day)), "a week is enough")
	require.Equal(t, []record.Message{messageOf(1, 8*day)}, r.Outbox())
}

// TestMergeMovesOutbox shows that the messages of a merged customer move to
// the other once, in order of time, even if the merge is repeated.
func TestMergeMovesOutbox(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	var known, anonymous record.Record
	known.Reset(def)
	anonymous.Reset(def)
	known.Enqueue(messageOf(1, 10))
	known.Enqueue(messageOf(2, 30))
	anonymous.Enqueue(messageOf(3, 20))
	anonymous.LinkTo("uu1")
	require.True(t, anonymous.HasUnmergedContent())
	_, err := known.Merge("aa1", &anonymous)
	require.NoError(t, err)
	want := []record.Message{messageOf(1, 10), messageOf(3, 20), messageOf(2, 30)}
	require.Equal(t, want, known.Outbox())

	known.Acknowledge([]record.MessageID{{3}})
	changed, err := known.Merge("aa1", &anonymous)
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, slices.Delete(want, 1, 2), known.Outbox(), "it was acknowledged")
	anonymous.Strip("aa1")
	require.False(t, anonymous.HasUnmergedContent())
	require.Empty(t, anonymous.Outbox())
}
