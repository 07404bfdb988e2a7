package profileapioutput

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// patience is the maximum wait of a test.
const patience = 30 * time.Second

// fakeProfiles is an in-process profiles resource.
type fakeProfiles struct {
	mu       sync.Mutex
	profiles map[string]string // JSON by id
	corrupt  map[string]bool   // ids of records that cannot be decoded
	merged   map[string]string // ids merged into another, by id
	readErr  error
	reads    [][]string // the ids of each read
}

func (f *fakeProfiles) Read(_ context.Context, ids []string, _ customers.Query) ([]customers.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads = append(f.reads, append([]string(nil), ids...))
	if f.readErr != nil {
		return nil, f.readErr
	}
	results := make([]customers.Result, len(ids))
	for i, id := range ids {
		if known, ok := f.merged[id]; ok {
			id = known
		}
		if f.corrupt[id] {
			results[i].Err = record.ErrCorrupt
		} else if text, ok := f.profiles[id]; ok {
			results[i] = customers.Result{Found: true, ID: id, Anonymous: strings.HasPrefix(id, "a-"), JSON: []byte(text), Complete: true}
		}
	}
	return results, nil
}

func (f *fakeProfiles) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeProfiles) seen() [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([][]string(nil), f.reads...)
}

// profileOf is a profile as the resource writes it.
func profileOf(id string) string {
	quoted, err := json.Marshal(id)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"id":%s,"traits":{"plan":"gold"},"features":{"orders_30d":2},"as_of":"2026-01-31T08:30:00.000Z","updated_at":"2026-01-30T10:00:00.000Z"}`, quoted)
}

func withProfiles(ids ...string) *fakeProfiles {
	f := &fakeProfiles{profiles: map[string]string{}, corrupt: map[string]bool{}}
	for _, id := range ids {
		f.profiles[id] = profileOf(id)
	}
	return f
}

func debugLogger(log *syncBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// syncBuffer collects a log.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
	// changed is signalled after each line.
	changed chan struct{}
}

func newSyncBuffer() *syncBuffer { return &syncBuffer{changed: make(chan struct{}, 1)} }

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.buf.Write(p)
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return n, err
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await returns what follows the first occurrence of text in the log, up to
// the next space or quote.
func (b *syncBuffer) await(t testing.TB, text string) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		if _, rest, ok := strings.Cut(b.String(), text); ok {
			return rest[:strings.IndexAny(rest, " \"\n")]
		}
		select {
		case <-b.changed:
		case <-deadline:
			t.Fatalf("the log never said %q:\n%s", text, b.String())
		}
	}
}

// helloBlock is a content block that reads a trait and a feature.
const helloBlock = `type: html
description: Greets.
definition: shop.yaml
requires: [ traits.plan ]
fallback: <p>Hello</p>
template: |
  <p title="{{ traits.plan }}">{{ id }} has {{ features.orders_30d }}</p>
samples:
  - { name: gold, profile: { id: s1, traits: { plan: "<gold>" }, features: { orders_30d: 3 } } }
`

// withBlocks writes a folder of content blocks, by name.
func withBlocks(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600))
	}
	return dir
}
