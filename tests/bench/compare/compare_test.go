package compare

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	require.Equal(t, 0.0, median(nil, itself))
	require.Equal(t, 2.0, median([]float64{9, 2, 1}, itself))
	require.Equal(t, 3.0, median([]float64{9, 2, 1, 4}, itself))
}

func TestFigures(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 1.234: "1.23", 12: "12", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, thousands(value))
	}
	require.Equal(t, "512 B", bytesText(512))
	require.Equal(t, "1.5 GiB", bytesText(1.5*(1<<30)))
}

func TestBudgets(t *testing.T) {
	for _, c := range []struct {
		row     row
		verdict string
	}{
		{row{Ours: 5, Theirs: 1, Least: 5}, "met"},
		{row{Ours: 4.9, Theirs: 1, Least: 5}, "missed"},
		{row{Ours: 1.2, Theirs: 1, Most: 1.2}, "met"},
		{row{Ours: 1.3, Theirs: 1, Most: 1.2}, "missed"},
		{row{Ours: 1, Theirs: 1}, ""},
	} {
		_, verdict := c.row.budget()
		require.Equal(t, c.verdict, verdict, "%+v", c.row)
	}
}

// A reassigned event is still valid and belongs to one customer.
func TestEvenFilesHaveEveryCustomerEquallyOften(t *testing.T) {
	b := &bench{dir: t.TempDir(), files: map[string]eventFile{}}
	file, err := b.even(50, 20) // 1,000 events
	require.NoError(t, err)
	data, err := os.ReadFile(file.paths[0])
	require.NoError(t, err)
	require.EqualValues(t, len(data), file.bytes)
	counts := map[string]int{}
	ids := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		var event struct{ UserID, AnonymousID, MessageID string }
		require.NoError(t, json.Unmarshal([]byte(line), &event), line)
		require.Empty(t, event.AnonymousID)
		counts[event.UserID]++
		ids[event.MessageID] = true
	}
	require.Len(t, ids, 1000)
	require.Len(t, counts, 50)
	for i := range 50 {
		require.Equal(t, 20, counts[customerID(i)])
	}
}

func TestShardsKeepCustomersTogether(t *testing.T) {
	b := &bench{dir: t.TempDir(), files: map[string]eventFile{}}
	file, err := b.natural(20_000, 100, 4)
	require.NoError(t, err)
	at := map[string]int{}
	events := 0
	for i, path := range file.paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Zero(t, strings.Count(string(data), "\n")%batchUnit)
		for line := range strings.Lines(string(data)) {
			events++
			id := userID.FindString(line)
			if id == "" {
				id = anonymousID.FindString(line)
			}
			if before, ok := at[id]; ok {
				require.Equal(t, before, i)
			}
			at[id] = i
		}
	}
	require.Equal(t, file.events, events)
	require.Greater(t, events, 20_000-4*batchUnit)
	require.NoError(t, b.forget())
	require.NoFileExists(t, file.paths[0])
}

func TestReplaceGenerated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(path, []byte("before\n"+generatedBegin+"\nold\n"+generatedEnd+"\nafter\n"), 0o600))
	for range 2 {
		require.NoError(t, replaceGenerated(path, "new"))
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "before\n"+generatedBegin+"\nnew\n"+generatedEnd+"\nafter\n", string(data))
	require.NoError(t, os.WriteFile(path, []byte("no marks"), 0o600))
	require.Error(t, replaceGenerated(path, "new"))
}

// 10 us of a process and 2 us of Redis an event, at 60% busy, and 1,000 bytes
// a profile.
func TestScale(t *testing.T) {
	r := &results{Table: &table{
		EventBytes: 600,
		Runs: map[string][]measured{"redis": {{
			Events: 1000, Elapsed: time.Second, CPU: 10 * time.Millisecond, RedisCPU: 2 * time.Millisecond, PeakBytes: 100 << 20,
		}}},
		Rows: []row{{What: "bytes a profile in Redis", Ours: 1000}},
	}}
	text, err := r.scale()
	require.NoError(t, err)
	for _, want := range []string{
		"| 1,000,000 events/s × 10.0 us ÷ 60% | 17 |",
		"| 1,000,000 events/s × 2.0 us ÷ 60% | 4 |",
		"| that ÷ (64.0 GiB × 70%) | 21 |",
		"| the larger of the two | 21 |",
	} {
		require.Contains(t, text, want)
	}
	text, err = (&results{}).scale()
	require.NoError(t, err)
	require.Contains(t, text, "Not measured")
}
