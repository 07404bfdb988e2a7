package record_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
)

// TestDefinitionChangesKeepFeatures adds, removes, redefines and reorders
// features on a live record. A feature equals its definition applied to the
// events that arrived while some feature used the same events and values, and
// features_since is present exactly if these are not all events.
func TestDefinitionChangesKeepFeatures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p event.Parser
		rec := &record.Record{}
		var stored []byte
		type taken struct {
			event  oracle.Event
			series map[uint64]bool
		}
		var history []taken
		n := 0
		for range rapid.IntRange(2, 4).Draw(t, "definitions") {
			specs, naive := genFeatures(t)
			def := newDefinition(t, specs)
			rec.Reset(def)
			if stored != nil {
				require.NoError(t, rec.Decode(def, "uu1", stored))
			}
			_, err := rec.SetTrait([]byte("timezone"), event.Value{Kind: event.String, Text: []byte(zone.String())}, record.Statement{Time: 1})
			require.NoError(t, err)
			series := map[uint64]bool{}
			for _, s := range def.Features.Series {
				series[s.Fingerprint] = true
			}
			for range rapid.IntRange(0, 10).Draw(t, "events") {
				raw := genEvent(t, n)
				n++
				applyRaw(t, def, &p, rec, raw)
				history = append(history, taken{oracle.Parse(raw, record.HashID), series})
			}
			stored = rec.Encode(nil, "uu1")

			asOf := epoch + rapid.Int64Range(0, 140).Draw(t, "asOf")*day
			got, since := featuresAndSince(t, rec, asOf)
			for i, f := range naive {
				fingerprint := def.Features.Series[def.Features.Features[i].Series].Fingerprint
				var known []oracle.Event
				missed := false
				for _, h := range history {
					if h.series[fingerprint] {
						known = append(known, h.event)
					} else if len(h.series) > 0 && logged(h.event, rec) {
						missed = true
					}
				}
				requireSame(t, oracle.Evaluate(f, known, asOf), got[f.Name], fmt.Sprintf("%+v", f))
				if missed {
					require.Contains(t, since, f.Name)
				}
				if len(known) == len(history) {
					require.NotContains(t, since, f.Name)
				}
			}
		}
	})
}

// logged reports whether the record contains an event: applying it again
// changes nothing.
func logged(e oracle.Event, rec *record.Record) bool {
	copied := &record.Record{}
	if copied.Decode(rec.Definition(), "uu1", rec.Encode(nil, "uu1")) != nil {
		return false
	}
	changed, err := copied.Apply(record.Fact{Time: e.Time, ID: record.HashID([]byte(e.ID))})
	return err == nil && !changed
}

// TestRemovedFeatureComesBack shows that events from before the removal still
// count, and that features_since reports the gap.
func TestRemovedFeatureComesBack(t *testing.T) {
	with := newDefinition(t, specsOf("orders"))
	without := newDefinition(t, specsOf("pages"))
	var p event.Parser
	rec := &record.Record{}
	rec.Reset(with)
	applyRaw(t, with, &p, rec, rawEvent("m1", `"type":"track","event":"Order Completed"`, "2026-01-01T00:00:00Z"))
	for i, def := range []*record.Definition{without, with} {
		stored := rec.Encode(nil, "uu1")
		rec = &record.Record{}
		require.NoError(t, rec.Decode(def, "uu1", stored))
		applyRaw(t, def, &p, rec, rawEvent(fmt.Sprint("o", i), `"type":"track","event":"Order Completed"`, "2026-01-02T00:00:00Z"))
		applyRaw(t, def, &p, rec, rawEvent(fmt.Sprint("p", i), `"type":"page"`, "2026-01-03T00:00:00Z"))
	}
	got, since := featuresAndSince(t, rec, epoch+10*day)
	require.Equal(t, map[string]any{"orders": 2.0}, got, "the order of the time without the feature is missing")
	require.Equal(t, map[string]any{"orders": "2026-01-03T00:00:00.000Z"}, since)
}
