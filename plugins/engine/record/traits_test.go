package record_test

import (
	"cmp"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// TestLatestStatementWins draws statements, many within one millisecond, and
// applies them in any order, repeated, split over merged customers and stored in
// between. The latest to the nanosecond wins, and the stored bytes are the same.
func TestLatestStatementWins(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	def.Sources = record.Sources{"crm", "web"}
	rapid.Check(t, func(t *rapid.T) {
		type statement struct {
			record.Statement
			value string
		}
		statements := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) statement {
			return statement{record.Statement{
				Time:   epoch + rapid.Int64Range(0, 2).Draw(t, "ms"),
				Nanos:  rapid.SampledFrom([]int32{0, 1, 127, 128, 999_999}).Draw(t, "nanos"),
				Source: []byte(rapid.SampledFrom([]string{"", "app", "crm", "web"}).Draw(t, "source")),
			}, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "value")}
		}), 1, 12).Draw(t, "statements")
		apply := func(list []statement) *record.Record {
			var halves [2]*record.Record
			for i := range halves {
				halves[i] = &record.Record{}
				halves[i].Reset(def)
			}
			for _, s := range list {
				i := rapid.IntRange(0, 1).Draw(t, "customer")
				_, err := halves[i].SetTrait([]byte("consent"), text(s.value), s.Statement)
				require.NoError(t, err)
				halves[i] = reload(t, def, halves[i])
			}
			_, err := halves[0].Merge("aa1", halves[1])
			require.NoError(t, err)
			return halves[0]
		}
		rank := func(s statement) int {
			if i := slices.Index([]string{"crm", "web"}, string(s.Source)); i >= 0 {
				return i
			}
			return 2
		}
		want := slices.MaxFunc(statements, func(a, b statement) int {
			return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Nanos, b.Nanos), cmp.Compare(rank(b), rank(a)),
				cmp.Compare(string(a.Source), string(b.Source)), cmp.Compare(a.value, b.value))
		})
		once := apply(statements)
		require.Equal(t, want.value, traitsOf(t, once)["consent"])
		again := apply(rapid.Permutation(slices.Concat(statements, statements)).Draw(t, "order"))
		require.Equal(t, once.Encode(nil, "uu1"), again.Encode(nil, "uu1"))
	})
}

// TestIntegersKeepTheirDigits shows that an integer that a float cannot
// represent survives in traits, exports and identifiers.
func TestIntegersKeepTheirDigits(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	def.Identifiers = record.Identifiers{{Name: "crm_no", Trait: "crm_no"}}
	for digits, isFloat := range map[string]bool{"9007199254740993": false, "-9007199254740993": false, "18446744073709551617": false, "9007199254740992": true} {
		number, ok := event.Integer([]byte(digits))
		require.Equal(t, !isFloat, ok)
		if !ok {
			continue
		}
		r := &record.Record{}
		r.Reset(def)
		_, err := r.SetTrait([]byte("crm_no"), number, record.Statement{Time: epoch})
		require.NoError(t, err)
		_, err = r.SetIdentifiers()
		require.NoError(t, err)
		r = reload(t, def, r)
		var w record.Viewer
		view, err := w.AppendJSON(nil, r, "u1", epoch, &record.Everything)
		require.NoError(t, err)
		require.Contains(t, string(view), `"crm_no":`+digits+`}`)
		exported, err := r.AppendExport(nil, "uu1")
		require.NoError(t, err)
		require.Contains(t, string(exported), `"value":`+digits)
		require.True(t, r.HasEntry(record.Entry{Index: record.IdentifierIndex + "crm_no", Value: digits}))
	}
}

// traitsOf returns the traits of a record as a reader decodes them.
func traitsOf(t require.TestingT, r *record.Record) map[string]any {
	var w record.Viewer
	raw, err := w.AppendJSON(nil, r, "u1", epoch, &record.Selection{AllTraits: true})
	require.NoError(t, err)
	var view struct {
		Traits map[string]any `json:"traits"`
	}
	require.NoError(t, json.Unmarshal(raw, &view))
	return view.Traits
}
