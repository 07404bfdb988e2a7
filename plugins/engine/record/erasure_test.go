package record

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// TestErasureModel compares a record with a model of erasure: the latest
// erasure and readmission decide, in any order and any number of repetitions.
func TestErasureModel(t *testing.T) {
	def := &Definition{Features: &features.Definition{}}
	rapid.Check(t, func(t *rapid.T) {
		var rec Record
		rec.Reset(def)
		rec.LinkTo("uother")
		rec.addMerged([]byte("amerged"))
		erased, readmitted := int64(0), int64(0)
		for range rapid.IntRange(0, 8).Draw(t, "steps") {
			at := rapid.Int64Range(1, 20).Draw(t, "at")
			if rapid.Bool().Draw(t, "erase") {
				require.Equal(t, at > erased, rec.Erase(at))
				erased = max(erased, at)
			} else {
				changes := erased > readmitted && at > erased
				require.Equal(t, changes, rec.Readmit(at))
				if changes {
					readmitted = at
				}
			}
			data := rec.Encode(nil, "uk")
			require.NoError(t, rec.Decode(def, "uk", data))
			require.Equal(t, data, rec.Encode(nil, "uk"))
			require.Equal(t, erased > readmitted, rec.Erased())
			require.Equal(t, []string{"amerged"}, rec.MergedKeys())
			require.Equal(t, erased == 0, rec.Link() != "")
			if rec.Erased() {
				require.Empty(t, rec.Entries(nil))
			}
		}
		time, received := rapid.Int64Range(0, 21).Draw(t, "time"), rapid.Int64Range(0, 21).Draw(t, "received")
		want := erased > readmitted || readmitted > 0 && (time <= erased || received <= readmitted)
		require.Equal(t, want, rec.RejectsEvent(time, received))
	})
}
