package record_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

func TestNormalise(t *testing.T) {
	exact, ignoring := record.Identifier{Name: "e"}, record.Identifier{Name: "i", IgnoreCase: true}
	for _, c := range []struct{ value, exact, ignoring string }{
		{"jo@example.com", "jo@example.com", "jo@example.com"},
		{" Jo@EXAMPLE.com\t", " Jo@EXAMPLE.com\t", "jo@example.com"},
		{"ÅSA@Ω.gr", "ÅSA@Ω.gr", "åsa@ω.gr"},
		{"\u00a0Ä\u3000", "\u00a0Ä\u3000", "ä"},
		{"", "", ""},
		{"  ", "  ", ""},
		{"a\xff", "", ""},
		{strings.Repeat("x", 256), strings.Repeat("x", 256), strings.Repeat("x", 256)},
		{strings.Repeat("x", 257), "", ""},
		{" " + strings.Repeat("X", 256), "", strings.Repeat("x", 256)},
		{strings.Repeat(" ", 2000) + "x", "", ""},
	} {
		require.Equal(t, c.exact, exact.Normalise(c.value), "%q", c.value)
		require.Equal(t, c.ignoring, ignoring.Normalise(c.value), "%q", c.value)
	}
}

// TestNormaliseIsIdempotent shows that a value taken from an index can be
// looked up.
func TestNormaliseIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := record.Identifier{Name: "e", IgnoreCase: rapid.Bool().Draw(t, "ignore case")}
		value := i.Normalise(rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "value"))
		require.Equal(t, value, i.Normalise(value))
		require.True(t, utf8.ValidString(value))
		require.LessOrEqual(t, len(value), record.MaxIdentifierBytes)
	})
}

// TestIdentifiersFollowTraits applies statements in any order, repeated, split
// over merged customers, and stored in between. The identifiers of a record
// are those of its traits, and none after a merge into another record or an
// erasure.
func TestIdentifiersFollowTraits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		def := newDefinition(t, specsOf("orders"))
		def.Identifiers = record.Identifiers{{Name: "email", Trait: "email", IgnoreCase: true}, {Name: "mail", Trait: "email"}, {Name: "phone", Trait: "phone"}}
		type statement struct {
			name string
			v    event.Value
			at   int64
		}
		var said []statement
		for range rapid.IntRange(0, 12).Draw(t, "statements") {
			said = append(said, statement{
				rapid.SampledFrom([]string{"email", "phone", "plan"}).Draw(t, "name"),
				rapid.SampledFrom([]event.Value{{}, {Kind: event.True}, {Kind: event.Number, Number: 7}, text("A@b.c"), text("a@b.c"), text("x"), text(strings.Repeat("x", 300)), {Kind: event.JSON, Text: []byte("[1]")}}).Draw(t, "value"),
				rapid.Int64Range(1, 5).Draw(t, "at"),
			})
		}
		var whole, known, anonymous record.Record
		for _, r := range []*record.Record{&whole, &known, &anonymous} {
			r.Reset(def)
		}
		state := func(r *record.Record, s statement) {
			_, err := r.SetTrait([]byte(s.name), s.v, record.Statement{Time: s.at})
			require.NoError(t, err)
		}
		for _, s := range said {
			state(&whole, s)
		}
		store := func(r *record.Record) *record.Record {
			_, err := r.SetIdentifiers()
			require.NoError(t, err)
			return reload(t, def, r)
		}
		k, a := &known, &anonymous
		for _, s := range rapid.Permutation(append(said, said...)).Draw(t, "order") {
			if rapid.Bool().Draw(t, "anonymous") {
				state(a, s)
			} else {
				state(k, s)
			}
			if rapid.IntRange(0, 3).Draw(t, "store") == 0 {
				k, a = store(k), store(a)
			}
		}
		// Each of the two receives every statement that it lacks.
		for _, s := range said {
			state(k, s)
		}
		_, err := k.Merge("aa1", a)
		require.NoError(t, err)
		found := func(r *record.Record) (all []string) {
			r.VisitIdentifiers(func(name, value string) { all = append(all, name+"="+value) })
			return all
		}
		k = store(k)
		require.Equal(t, found(store(&whole)), found(k))
		changed, err := k.SetIdentifiers()
		require.NoError(t, err)
		require.False(t, changed)

		a = store(a)
		a.LinkTo("uu1")
		a = store(a)
		require.Empty(t, found(a))
		require.Empty(t, a.Entries(nil))
		k.Erase(9)
		require.Empty(t, found(k))
		require.Empty(t, store(k).Entries(nil))
	})
}

func TestNamedIdentifiers(t *testing.T) {
	ids := record.Identifiers{{Name: "email", Trait: "email"}, {Name: "phone", Trait: "phone"}}
	require.Equal(t, "phone", ids.Lookup("phone").Trait)
	require.Nil(t, ids.Lookup("fax"))
	require.Nil(t, record.Identifiers(nil).Lookup("email"))
	require.Equal(t, []string{"email", "phone"}, ids.Names())
	require.Zero(t, record.Identifiers(nil).Hash())
	for _, other := range []record.Identifiers{nil, ids[:1], {{Name: "email", Trait: "email", IgnoreCase: true}, ids[1]}, {{Name: "email", Trait: "mail"}, ids[1]}, {{Name: "emailemail", Trait: ""}, ids[1]}} {
		require.NotEqual(t, ids.Hash(), other.Hash())
	}
}
