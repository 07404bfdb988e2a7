package trackingplan

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const watchedPlan = `
name: test
version: 1
events: { A: { properties: { $ref: schemas/a.json } } }
`

func TestWatcher(t *testing.T) {
	path := writePlan(t, watchedPlan, "schemas/a.json", `{"required":["a"]}`)
	schema := filepath.Join(filepath.Dir(path), "schemas", "a.json")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	w, err := Watch(path, 3)
	require.NoError(t, err)
	check := func(wantReload bool, wantErr string) {
		t.Helper()
		reloaded, err := w.Check()
		require.Equal(t, wantReload, reloaded)
		if wantErr == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, wantErr)
		}
	}
	status := func(properties string) Status { return w.Plan().Check([]byte(track("A", properties))).Status }

	first := w.Plan()
	check(false, "")
	require.Same(t, first, w.Plan())
	require.Equal(t, Valid, status(`{"a":1}`))

	// A schema file changes: loaded at the second poll.
	write(schema, `{"required":["b"]}`)
	check(false, "")
	require.Same(t, first, w.Plan())
	check(true, "")
	require.Equal(t, Rejected, status(`{"a":1}`))
	require.Equal(t, Valid, status(`{"b":1}`))
	check(false, "")

	// A file that is still being written is not loaded.
	write(path, "name: test\nversion: 2\n")
	check(false, "")
	write(path, "name: test\nversion: 2\nevents: { A: { properties: { $ref: schemas/new.json } } }\n")
	check(false, "")
	// The plan refers to a missing file: the last valid plan stays.
	check(true, "there is no file schemas/new.json")
	require.Equal(t, "1", w.Plan().Version)
	require.Equal(t, Valid, status(`{"b":1}`))
	// The invalid plan is not loaded again without a change.
	check(false, "")
	check(false, "")
	// The missing file appears, and the plan is valid.
	write(filepath.Join(filepath.Dir(path), "schemas", "new.json"), `{"required":["c"]}`)
	check(false, "")
	check(true, "")
	require.Equal(t, "2", w.Plan().Version)
	require.Equal(t, Valid, status(`{"c":1}`))

	// A reverted change is not loaded.
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	write(path, "rubbish: [")
	check(false, "")
	write(path, string(good))
	check(false, "")
	check(false, "")
	require.Equal(t, "2", w.Plan().Version)

	// The plan is removed and appears again.
	require.NoError(t, os.Remove(path))
	check(false, "")
	check(true, "there is no such file")
	require.Equal(t, "2", w.Plan().Version)
	write(path, string(good))
	check(false, "")
	check(true, "")
	require.Equal(t, Rejected, status(`[[[]]]`), "the depth allowed outlives a reload")
}

func TestWatchRejectsAnInvalidPlan(t *testing.T) {
	_, err := Watch(writePlan(t, "name: test"), 3)
	require.ErrorContains(t, err, "a plan needs events")
}
