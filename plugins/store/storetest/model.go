package storetest

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// model is a naive implementation of the contract: maps, and sorting on demand.
type model struct {
	records map[string][]byte
	indexes map[string]map[store.IndexEntry]bool
}

func newModel() *model {
	return &model{records: map[string][]byte{}, indexes: map[string]map[store.IndexEntry]bool{}}
}

func (m *model) version(key string) store.Version {
	data, ok := m.records[key]
	if !ok {
		return store.Absent
	}
	return store.VersionOf(data)
}

func (m *model) edit(key string, e store.IndexEdit) {
	if m.indexes[e.Index] == nil {
		m.indexes[e.Index] = map[store.IndexEntry]bool{}
	}
	entry := store.IndexEntry{Value: e.Value, Key: key}
	if e.Remove {
		delete(m.indexes[e.Index], entry)
	} else {
		m.indexes[e.Index][entry] = true
	}
}

// removals returns the edits that remove a key from all indexes.
func (m *model) removals(key string) (edits []store.IndexEdit) {
	for index, entries := range m.indexes {
		for e := range entries {
			if e.Key == key {
				edits = append(edits, remove(index, e.Value))
			}
		}
	}
	return edits
}

func (m *model) commit(changes []store.Change) (conflicts []int) {
	for i, c := range changes {
		if m.version(c.Key) != c.Version {
			conflicts = append(conflicts, i)
			continue
		}
		if c.Data == nil {
			delete(m.records, c.Key)
		} else {
			m.records[c.Key] = slices.Clone(c.Data)
		}
		for _, e := range c.Index {
			m.edit(c.Key, e)
		}
	}
	return conflicts
}

func (m *model) scanIndex(index, from, to string, after store.IndexEntry, limit int) []store.IndexEntry {
	var out []store.IndexEntry
	for e := range m.indexes[index] {
		if e.Value >= from && (to == "" || e.Value < to) && compareEntries(e, after) > 0 {
			out = append(out, e)
		}
	}
	sort.Slice(out, func(i, j int) bool { return compareEntries(out[i], out[j]) < 0 })
	return out[:min(limit, len(out))]
}

func compareEntries(a, b store.IndexEntry) int {
	if c := strings.Compare(a.Value, b.Value); c != 0 {
		return c
	}
	return strings.Compare(a.Key, b.Key)
}

// space is a part of a store with names of its own: opening a store for each history
// would take longer than the history.
type space struct {
	whole store.Store
	name  string
}

func (s space) Load(ctx context.Context, keys []string) ([]store.Record, error) {
	named := make([]string, len(keys))
	for i, k := range keys {
		named[i] = s.name + k
	}
	return s.whole.Load(ctx, named)
}

func (s space) Commit(ctx context.Context, changes []store.Change) ([]int, error) {
	named := slices.Clone(changes)
	for i := range named {
		named[i].Key = s.name + named[i].Key
		named[i].Index = slices.Clone(named[i].Index)
		for j := range named[i].Index {
			named[i].Index[j].Index = s.name + named[i].Index[j].Index
		}
	}
	return s.whole.Commit(ctx, named)
}

func (s space) ScanIndex(ctx context.Context, index, from, to string, after store.IndexEntry, limit int) ([]store.IndexEntry, error) {
	if after != (store.IndexEntry{}) {
		after.Key = s.name + after.Key
	}
	found, err := s.whole.ScanIndex(ctx, s.name+index, from, to, after, limit)
	for i := range found {
		found[i].Key = strings.TrimPrefix(found[i].Key, s.name)
	}
	return found, err
}

func (s space) Lookup(ctx context.Context, index string, values []string, limit int) ([][]string, error) {
	found, err := s.whole.Lookup(ctx, s.name+index, values, limit)
	for i := range found {
		for j := range found[i] {
			found[i][j] = strings.TrimPrefix(found[i][j], s.name)
		}
	}
	return found, err
}

func (s space) CountIndex(ctx context.Context, index, from, to string) (int64, error) {
	return s.whole.CountIndex(ctx, s.name+index, from, to)
}

func (s space) scanAll(t require.TestingT, limit int) map[string]store.Record {
	all := map[string]store.Record{}
	for k, r := range scanAll(t, s.whole, limit) {
		if key, ok := strings.CutPrefix(k, s.name); ok {
			all[key] = r
		}
	}
	return all
}

// runModel runs the same random histories on a store and on the model.
func runModel(t *testing.T, open func(t *testing.T) store.Store) {
	// Few letters, so that names collide, including those that encodings confuse.
	letters := rapid.SampledFrom([]byte{0x00, 0x01, 'a', '{', '}', ':', 0xfe, 0xff})
	name := rapid.Map(rapid.SliceOfN(letters, 0, 3), func(b []byte) string { return string(b) })
	key := rapid.Map(rapid.SliceOfN(letters, 1, 2), func(b []byte) string { return string(b) })
	data := rapid.OneOf(
		rapid.Just[[]byte](nil), // a deletion
		rapid.SliceOfN(letters, 0, 2),
		rapid.SliceOfN(rapid.Byte(), 1, 300),
	)
	edit := rapid.Custom(func(t *rapid.T) store.IndexEdit {
		return store.IndexEdit{
			Index:  rapid.SampledFrom([]string{"", "a", "a\x00", "ab"}).Draw(t, "index"),
			Value:  name.Draw(t, "value"),
			Remove: rapid.Bool().Draw(t, "remove"),
		}
	})

	whole := open(t)
	t.Cleanup(func() { _ = whole.Close() })
	histories := 0
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		histories++
		s := space{whole, fmt.Sprintf("%d:", histories)}
		m := newModel()
		known := map[string]store.Version{} // versions that a client has loaded, possibly stale
		defer func() {
			// The scans of the next history need not skip this one.
			var changes []store.Change
			for k := range m.records {
				changes = append(changes, store.Change{Key: k, Version: m.version(k), Index: m.removals(k)})
			}
			_, _ = s.Commit(ctx, changes)
		}()

		rt.Repeat(map[string]func(*rapid.T){
			"load": func(t *rapid.T) {
				keys := rapid.SliceOfN(key, 0, 20).Draw(t, "keys")
				records, err := s.Load(ctx, keys)
				require.NoError(t, err)
				require.Len(t, records, len(keys))
				for i, k := range keys {
					want, ok := m.records[k]
					require.Equal(t, m.version(k), records[i].Version, "version of %q", k)
					require.Equal(t, ok, records[i].Data != nil, "existence of %q", k)
					require.Equal(t, string(want), string(records[i].Data), "data of %q", k)
					known[k] = records[i].Version
				}
			},
			"commit": func(t *rapid.T) {
				keys := rapid.SliceOfNDistinct(key, 0, 20, rapid.ID[string]).Draw(t, "keys")
				changes := make([]store.Change, len(keys))
				for i, k := range keys {
					changes[i] = store.Change{Key: k, Version: known[k], Data: data.Draw(t, "data")}
					if changes[i].Data == nil {
						changes[i].Index = m.removals(k)
					} else {
						changes[i].Index = rapid.SliceOfN(edit, 0, 3).Draw(t, "edits")
					}
				}
				conflicts, err := s.Commit(ctx, changes)
				require.NoError(t, err)
				require.Equal(t, m.commit(changes), conflicts)
			},
			"scan index": func(t *rapid.T) {
				index := rapid.SampledFrom([]string{"", "a", "a\x00", "ab"}).Draw(t, "index")
				from, to := name.Draw(t, "from"), name.Draw(t, "to")
				var after store.IndexEntry
				if rapid.Bool().Draw(t, "continued") {
					after = store.IndexEntry{Value: name.Draw(t, "after value"), Key: name.Draw(t, "after key")}
				}
				limit := rapid.IntRange(0, 20).Draw(t, "limit")
				got, err := s.ScanIndex(ctx, index, from, to, after, limit)
				require.NoError(t, err)
				want := m.scanIndex(index, from, to, after, limit)
				require.Equal(t, len(want), len(got))
				for i := range want {
					require.Equal(t, want[i], got[i])
				}
			},
			"look up": func(t *rapid.T) {
				index := rapid.SampledFrom([]string{"", "a", "a\x00", "ab"}).Draw(t, "index")
				values := rapid.SliceOfN(name, 0, 8).Draw(t, "values")
				limit := rapid.IntRange(0, 3).Draw(t, "limit")
				got, err := s.Lookup(ctx, index, values, limit)
				require.NoError(t, err)
				require.Len(t, got, len(values))
				for i, value := range values {
					var want []string
					for _, e := range m.scanIndex(index, value, value+"\x00", store.IndexEntry{}, limit) {
						want = append(want, e.Key)
					}
					require.Equal(t, want, got[i], "keys of %q", value)
				}
			},
			"count index": func(t *rapid.T) {
				index := rapid.SampledFrom([]string{"", "a", "a\x00", "ab"}).Draw(t, "index")
				from, to := name.Draw(t, "from"), name.Draw(t, "to")
				got, err := s.CountIndex(ctx, index, from, to)
				require.NoError(t, err)
				require.EqualValues(t, len(m.scanIndex(index, from, to, store.IndexEntry{}, 1<<20)), got)
			},
			"scan": func(t *rapid.T) {
				limit := rapid.IntRange(1, 30).Draw(t, "limit")
				all := s.scanAll(rt, limit)
				require.Len(t, all, len(m.records))
				for k, want := range m.records {
					require.Equal(t, string(want), string(all[k].Data))
					require.Equal(t, m.version(k), all[k].Version)
				}
			},
		})
	})
}
