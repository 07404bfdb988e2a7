// Package storetest tests the contract of store.Store. Every implementation runs it:
//
//	storetest.Run(t, func(t *testing.T) store.Store { ... })
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Run tests the contract on stores created by open, each of which must be new and
// empty. The suite closes them.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"load keeps order and reports missing records", testLoad},
		{"loaded data belongs to the caller", testLoadOwnership},
		{"empty inputs", testEmptyInputs},
		{"create", testCreate},
		{"update", testUpdate},
		{"delete", testDelete},
		{"version identifies content", testVersion},
		{"empty data is a record", testEmptyData},
		{"conflicts are listed by position, the rest is applied", testConflicts},
		{"an unacceptable change rejects the whole commit", testRefusedChanges},
		{"commit retains no reference to its input", testCommitOwnership},
		{"any bytes", testAnyBytes},
		{"large records", testLargeRecords},
		{"large batches", testLargeBatches},
		{"index edits are applied only with their record", testIndexAtomicity},
		{"repeated index edits change nothing", testIndexIdempotence},
		{"index order, ranges and pages", testIndexScan},
		{"index counts are exact", testIndexCount},
		{"index lookups find the keys of each value", testLookup},
		{"index entries sort as bytes", testIndexBytes},
		{"indexes are separate", testIndexSeparation},
		{"scan lists every record", testScan},
		{"scan misses nothing during writes", testScanUnderWrites},
		{"concurrent counters lose no update", testCounters},
		{"one of several concurrent creations succeeds", testCreationRace},
		{"concurrent index moves keep record and index consistent", testIndexRace},
		{"cancelled context", testCancellation},
		{"ping", testPing},
		{"closed store", testClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { _ = s.Close() })
			tt.run(t, s)
		})
	}
	t.Run("random histories agree with the model", func(t *testing.T) { runModel(t, open) })
}

func load(t testing.TB, s store.Store, keys ...string) []store.Record {
	t.Helper()
	records, err := s.Load(context.Background(), keys)
	require.NoError(t, err)
	require.Len(t, records, len(keys))
	return records
}

func load1(t testing.TB, s store.Store, key string) store.Record {
	t.Helper()
	return load(t, s, key)[0]
}

func commit(t testing.TB, s store.Store, changes ...store.Change) []int {
	t.Helper()
	conflicts, err := s.Commit(context.Background(), changes)
	require.NoError(t, err)
	return conflicts
}

// put creates or overwrites records and fails the test on a conflict.
func put(t testing.TB, s store.Store, key string, data []byte, edits ...store.IndexEdit) {
	t.Helper()
	require.Empty(t, commit(t, s, store.Change{Key: key, Version: load1(t, s, key).Version, Data: data, Index: edits}))
}

func scanIndex(t testing.TB, s store.Store, index, from, to string) []store.IndexEntry {
	t.Helper()
	entries, err := s.ScanIndex(context.Background(), index, from, to, store.IndexEntry{}, 1<<20)
	require.NoError(t, err)
	return entries
}

// scanAll reads a whole scan and fails if it does not end.
func scanAll(t require.TestingT, s store.Store, limit int) map[string]store.Record {
	all := map[string]store.Record{}
	cursor := ""
	for range 1_000_000 {
		page, next, err := s.Scan(context.Background(), cursor, limit)
		require.NoError(t, err)
		for _, e := range page {
			all[e.Key] = e.Record
		}
		if next == "" {
			return all
		}
		cursor = next
	}
	require.FailNow(t, "the scan does not end")
	return nil
}

func add(index, value string) store.IndexEdit {
	return store.IndexEdit{Index: index, Value: value}
}

func remove(index, value string) store.IndexEdit {
	return store.IndexEdit{Index: index, Value: value, Remove: true}
}

func entries(valueKeys ...string) []store.IndexEntry {
	var out []store.IndexEntry
	for i := 0; i < len(valueKeys); i += 2 {
		out = append(out, store.IndexEntry{Value: valueKeys[i], Key: valueKeys[i+1]})
	}
	return out
}

func testLoad(t *testing.T, s store.Store) {
	var keys []string
	for i := range 300 {
		keys = append(keys, fmt.Sprintf("customer-%03d", i))
		if i%3 != 0 {
			put(t, s, keys[i], []byte(keys[i]+" data"))
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	keys = append(keys, keys[0], keys[1], keys[2], "customer-", "customer-0000", "") // repeated keys, and near misses
	for i, r := range load(t, s, keys...) {
		var n int
		_, err := fmt.Sscanf(keys[i], "customer-%03d", &n)
		if err != nil || n%3 == 0 || len(keys[i]) != len("customer-000") {
			require.Equal(t, store.Record{}, r, "key %q", keys[i])
			continue
		}
		require.Equal(t, keys[i]+" data", string(r.Data))
		require.Equal(t, store.VersionOf(r.Data), r.Version)
	}
}

func testLoadOwnership(t *testing.T, s store.Store) {
	put(t, s, "a", []byte("aaaa"))
	put(t, s, "b", []byte("bbbb"))
	rs := load(t, s, "a", "b")
	_ = append(rs[0].Data, "overflow"...)
	require.Equal(t, "bbbb", string(rs[1].Data), "appending to one record must not reach the next")
	copy(rs[1].Data, "XXXX")
	require.Equal(t, "bbbb", string(load1(t, s, "b").Data))
}

func testEmptyInputs(t *testing.T, s store.Store) {
	ctx := context.Background()
	require.Empty(t, load(t, s))
	require.Empty(t, commit(t, s))
	got, err := s.ScanIndex(ctx, "nothing", "", "", store.IndexEntry{}, 10)
	require.NoError(t, err)
	require.Empty(t, got)
	require.Empty(t, scanAll(t, s, 10))

	put(t, s, "k", []byte("v"), add("i", "x"))
	got, err = s.ScanIndex(ctx, "i", "", "", store.IndexEntry{}, 0)
	require.NoError(t, err)
	require.Empty(t, got, "a limit of zero")
	got, err = s.ScanIndex(ctx, "i", "x", "x", store.IndexEntry{}, 10)
	require.NoError(t, err)
	require.Empty(t, got, "an empty range")
	got, err = s.ScanIndex(ctx, "i", "z", "a", store.IndexEntry{}, 10)
	require.NoError(t, err)
	require.Empty(t, got, "a reversed range")
	require.Len(t, scanAll(t, s, 0), 1, "a page limit of zero means one")
}

func testCreate(t *testing.T, s store.Store) {
	require.Empty(t, commit(t, s, store.Change{Key: "k", Data: []byte("v")}))
	require.Equal(t, "v", string(load1(t, s, "k").Data))
	require.Equal(t, []int{0}, commit(t, s, store.Change{Key: "k", Data: []byte("w")}), "it exists now")
	require.Equal(t, "v", string(load1(t, s, "k").Data))
	require.Equal(t, []int{0}, commit(t, s, store.Change{Key: "other", Version: 7, Data: []byte("w")}), "it never existed")
	require.Equal(t, store.Record{}, load1(t, s, "other"))
}

func testUpdate(t *testing.T, s store.Store) {
	put(t, s, "k", []byte("one"))
	old := load1(t, s, "k").Version
	require.Empty(t, commit(t, s, store.Change{Key: "k", Version: old, Data: []byte("two")}))
	require.Equal(t, []int{0}, commit(t, s, store.Change{Key: "k", Version: old, Data: []byte("three")}))
	require.Equal(t, "two", string(load1(t, s, "k").Data))
	require.Empty(t, commit(t, s, store.Change{Key: "k", Version: store.VersionOf([]byte("two")), Data: []byte("two")}), "a change to equal data is applied")
}

func testDelete(t *testing.T, s store.Store) {
	put(t, s, "k", []byte("one"))
	v := load1(t, s, "k").Version
	require.Equal(t, []int{0}, commit(t, s, store.Change{Key: "k", Version: v + 1}))
	require.Equal(t, []int{0}, commit(t, s, store.Change{Key: "k"}), "the record is not absent")
	require.Equal(t, "one", string(load1(t, s, "k").Data))
	require.Empty(t, commit(t, s, store.Change{Key: "k", Version: v}))
	require.Equal(t, store.Record{}, load1(t, s, "k"))
	require.Empty(t, scanAll(t, s, 10))
	require.Equal(t, []int{0}, commit(t, s, store.Change{Key: "k", Version: v, Data: []byte("two")}))
	require.Empty(t, commit(t, s, store.Change{Key: "k"}), "deleting what does not exist")
	require.Empty(t, commit(t, s, store.Change{Key: "k", Data: []byte("two")}), "creating it again")
	require.Equal(t, "two", string(load1(t, s, "k").Data))
}

func testVersion(t *testing.T, s store.Store) {
	put(t, s, "a", []byte("same"))
	put(t, s, "b", []byte("same"))
	put(t, s, "c", []byte("other"))
	rs := load(t, s, "a", "b", "c")
	require.Equal(t, rs[0].Version, rs[1].Version)
	require.NotEqual(t, rs[0].Version, rs[2].Version)
	require.Equal(t, store.VersionOf([]byte("same")), rs[0].Version)
}

func testEmptyData(t *testing.T, s store.Store) {
	put(t, s, "k", []byte{})
	r := load1(t, s, "k")
	require.NotNil(t, r.Data)
	require.Empty(t, r.Data)
	require.NotEqual(t, store.Absent, r.Version)
	require.Len(t, scanAll(t, s, 10), 1)
	require.Equal(t, []int{0}, commit(t, s, store.Change{Key: "k", Data: []byte("x")}))
	require.Empty(t, commit(t, s, store.Change{Key: "k", Version: r.Version, Data: []byte("x")}))
}

func testConflicts(t *testing.T, s store.Store) {
	const n = 500
	conflicts := map[int]bool{}
	rng := rand.New(rand.NewPCG(3, 4))
	var changes []store.Change
	for i := range n {
		key := fmt.Sprintf("k%d", i)
		c := store.Change{Key: key, Data: []byte("new"), Index: []store.IndexEdit{add("all", "v")}}
		if i%2 == 0 {
			put(t, s, key, []byte("old"))
			c.Version = store.VersionOf([]byte("old"))
		}
		if rng.IntN(4) == 0 {
			conflicts[i] = true
			c.Version++
		}
		changes = append(changes, c)
	}
	rng.Shuffle(n, func(i, j int) {
		changes[i], changes[j] = changes[j], changes[i]
		conflicts[i], conflicts[j] = conflicts[j], conflicts[i]
	})
	var want []int
	for i := range n {
		if conflicts[i] {
			want = append(want, i)
		}
	}
	require.Equal(t, want, commit(t, s, changes...))
	for i, c := range changes {
		r := load1(t, s, c.Key)
		switch {
		case !conflicts[i]:
			require.Equal(t, "new", string(r.Data))
		case c.Version == 1: // it replaced Absent: the record did not exist
			require.Equal(t, store.Record{}, r)
		default:
			require.Equal(t, "old", string(r.Data))
		}
	}
	require.Len(t, scanIndex(t, s, "all", "", ""), n-len(want))
}

func testRefusedChanges(t *testing.T, s store.Store) {
	ctx := context.Background()
	good := store.Change{Key: "good", Data: []byte("v"), Index: []store.IndexEdit{add("i", "x")}}
	tests := []struct {
		name     string
		changes  []store.Change
		position int
		err      error
	}{
		{"key twice", []store.Change{good, {Key: "a", Data: []byte("1")}, {Key: "b", Data: []byte("1")}, {Key: "a", Data: []byte("2")}}, 3, store.ErrDuplicateKey},
		{"key twice, adjacent", []store.Change{good, good}, 1, store.ErrDuplicateKey},
		{"no key", []store.Change{good, {Data: []byte("1")}}, 1, store.ErrEmptyKey},
	}
	for _, tt := range tests {
		conflicts, err := s.Commit(ctx, tt.changes)
		require.ErrorIs(t, err, tt.err, tt.name)
		var ce *store.ChangeError
		require.ErrorAs(t, err, &ce, tt.name)
		require.Equal(t, tt.position, ce.Position, tt.name)
		require.Empty(t, conflicts, tt.name)
		require.Empty(t, scanAll(t, s, 10), tt.name)
		require.Empty(t, scanIndex(t, s, "i", "", ""), tt.name)
	}
	put(t, s, "good", []byte("still in service"))
}

func testCommitOwnership(t *testing.T, s store.Store) {
	data := []byte("mine")
	edits := []store.IndexEdit{add("i", "x")}
	require.Empty(t, commit(t, s, store.Change{Key: "k", Data: data, Index: edits}))
	copy(data, "XXXX")
	edits[0].Value = "y"
	require.Equal(t, "mine", string(load1(t, s, "k").Data))
	require.Equal(t, entries("x", "k"), scanIndex(t, s, "i", "", ""))
}

// oddStrings contain characters that break escaping, separators, hash tags, patterns
// and encodings.
var oddStrings = []string{
	"\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\x01", "\xff", "\xff\xff", "\xff\x00", "a\x00", "a\x00b", "a", "aa",
	"{", "}", "{}", "{a}", "}{", "a{b}c", ":", "::", "a:b", "*", "?", "[a-z]", "\\", "\\x00", "%", "%00", " ", "\n", "\r\n",
	"(", "+", "-", "[", "\"", "'", "é", "日本", "\xc3\x28", "+inf", "-inf",
	string(bytes.Repeat([]byte{0}, 100)), string(bytes.Repeat([]byte{0xff}, 100)), string(bytes.Repeat([]byte("k"), 2000)),
}

func testAnyBytes(t *testing.T, s store.Store) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	var changes []store.Change
	for i, key := range oddStrings {
		changes = append(changes, store.Change{
			Key: key, Data: append([]byte(key), all...),
			Index: []store.IndexEdit{add(key, oddStrings[len(oddStrings)-1-i])},
		})
	}
	require.Empty(t, commit(t, s, changes...))
	for i, r := range load(t, s, oddStrings...) {
		require.Equal(t, changes[i].Data, r.Data, "key %q", oddStrings[i])
	}
	scanned := scanAll(t, s, 3)
	require.Len(t, scanned, len(oddStrings))
	for i, key := range oddStrings {
		require.Equal(t, changes[i].Data, scanned[key].Data, "key %q", key)
		require.Equal(t, store.VersionOf(changes[i].Data), scanned[key].Version, "key %q", key)
		require.Equal(t, entries(oddStrings[len(oddStrings)-1-i], key), scanIndex(t, s, key, "", ""), "index %q", key)
	}
	for i := range changes {
		changes[i].Version = store.VersionOf(changes[i].Data)
		changes[i].Data = nil
		changes[i].Index[0].Remove = true
	}
	require.Empty(t, commit(t, s, changes...))
	require.Empty(t, scanAll(t, s, 10))
	for _, index := range oddStrings {
		require.Empty(t, scanIndex(t, s, index, "", ""), "index %q", index)
	}
}

func testLargeRecords(t *testing.T, s store.Store) {
	rng := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 5 << 20} {
		data := make([]byte, size)
		_, _ = rng.Read(data)
		key := fmt.Sprint(size)
		put(t, s, key, data)
		r := load1(t, s, key)
		require.True(t, bytes.Equal(data, r.Data), "%d bytes", size)
		data[size-1]++
		require.Empty(t, commit(t, s, store.Change{Key: key, Version: r.Version, Data: data}))
		require.True(t, bytes.Equal(data, load1(t, s, key).Data), "%d bytes, changed", size)
	}
	require.Len(t, scanAll(t, s, 2), 4)
}

func testLargeBatches(t *testing.T, s store.Store) {
	const n = 10_000
	keys := make([]string, n)
	changes := make([]store.Change, n)
	for i := range n {
		keys[i] = fmt.Sprintf("k%d", i)
		changes[i] = store.Change{Key: keys[i], Data: []byte(keys[i]), Index: []store.IndexEdit{add("all", keys[i])}}
	}
	require.Zero(t, len(commit(t, s, changes...)))
	for i, r := range load(t, s, keys...) {
		require.Equal(t, keys[i], string(r.Data))
	}
	require.Len(t, scanIndex(t, s, "all", "", ""), n)
	require.Len(t, commit(t, s, changes...), n, "all of them exist")
}

func testIndexAtomicity(t *testing.T, s store.Store) {
	put(t, s, "k", []byte("one"), add("segment", "a"), add("due", "1"))
	v := load1(t, s, "k").Version
	require.Equal(t, []int{0}, commit(t, s, store.Change{
		Key: "k", Version: v + 1, Data: []byte("two"), Index: []store.IndexEdit{remove("segment", "a"), add("segment", "b"), add("due", "2")},
	}))
	require.Equal(t, entries("a", "k"), scanIndex(t, s, "segment", "", ""))
	require.Equal(t, entries("1", "k"), scanIndex(t, s, "due", "", ""))
	require.Empty(t, commit(t, s, store.Change{
		Key: "k", Version: v, Data: []byte("two"), Index: []store.IndexEdit{remove("segment", "a"), add("segment", "b"), remove("due", "1")},
	}))
	require.Equal(t, entries("b", "k"), scanIndex(t, s, "segment", "", ""))
	require.Empty(t, scanIndex(t, s, "due", "", ""))
	v = load1(t, s, "k").Version
	require.Empty(t, commit(t, s, store.Change{Key: "k", Version: v, Index: []store.IndexEdit{remove("segment", "b")}}))
	require.Empty(t, scanIndex(t, s, "segment", "", ""))
}

func testIndexIdempotence(t *testing.T, s store.Store) {
	put(t, s, "k", []byte("1"), remove("i", "never was"), add("i", "a"), add("i", "a"))
	put(t, s, "k", []byte("2"), add("i", "a"))
	require.Equal(t, entries("a", "k"), scanIndex(t, s, "i", "", ""))
	put(t, s, "k", []byte("3"), remove("i", "a"), remove("i", "a"))
	put(t, s, "k", []byte("4"), remove("i", "a"))
	require.Empty(t, scanIndex(t, s, "i", "", ""))
	put(t, s, "k", []byte("5"), remove("i", "a"), add("i", "a"))
	require.Equal(t, entries("a", "k"), scanIndex(t, s, "i", "", ""), "edits of one change apply in order")
	put(t, s, "k", []byte("6"), add("i", "b"), remove("i", "b"))
	require.Equal(t, entries("a", "k"), scanIndex(t, s, "i", "", ""), "edits of one change apply in order")
}

func testIndexScan(t *testing.T, s store.Store) {
	ctx := context.Background()
	var want []store.IndexEntry
	var changes []store.Change
	for v := range 40 {
		for k := range 5 {
			e := store.IndexEntry{Value: fmt.Sprintf("%03d", v), Key: fmt.Sprintf("k%03d-%d", v, k)}
			want = append(want, e)
			changes = append(changes, store.Change{Key: e.Key, Data: []byte("x"), Index: []store.IndexEdit{add("i", e.Value)}})
		}
	}
	rand.New(rand.NewPCG(5, 6)).Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	require.Empty(t, commit(t, s, changes...))

	require.Equal(t, want, scanIndex(t, s, "i", "", ""))
	require.Equal(t, want[50:100], scanIndex(t, s, "i", "010", "020"), "from included, to excluded")
	require.Equal(t, want[50:100], scanIndex(t, s, "i", "0095", "0195"), "bounds between values")
	require.Equal(t, want[150:], scanIndex(t, s, "i", "030", ""))
	require.Empty(t, scanIndex(t, s, "i", "040", ""))

	for _, limit := range []int{1, 3, 5, 7, 64, 1000} {
		var got []store.IndexEntry
		after := store.IndexEntry{}
		for {
			page, err := s.ScanIndex(ctx, "i", "005", "035", after, limit)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), limit)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			after = page[len(page)-1]
		}
		require.Equal(t, want[25:175], got, "pages of %d", limit)
	}

	page, err := s.ScanIndex(ctx, "i", "", "", store.IndexEntry{Value: "010", Key: "k010-2x"}, 2)
	require.NoError(t, err)
	require.Equal(t, want[53:55], page, "after an entry that does not exist")
	page, err = s.ScanIndex(ctx, "i", "020", "", store.IndexEntry{Value: "010"}, 2)
	require.NoError(t, err)
	require.Equal(t, want[100:102], page, "after an entry before the range")
	page, err = s.ScanIndex(ctx, "i", "", "020", store.IndexEntry{Value: "030"}, 2)
	require.NoError(t, err)
	require.Empty(t, page, "after an entry behind the range")
}

func testIndexCount(t *testing.T, s store.Store) {
	count := func(from, to string) int64 {
		n, err := s.CountIndex(context.Background(), "i", from, to)
		require.NoError(t, err)
		return n
	}
	require.Zero(t, count("", ""), "an unknown index")
	var changes []store.Change
	for i := range 3_000 {
		changes = append(changes, store.Change{Key: fmt.Sprintf("k%d", i), Data: []byte("x"), Index: []store.IndexEdit{add("i", fmt.Sprint(i%3)), add("other", "1")}})
	}
	require.Empty(t, commit(t, s, changes...))
	require.EqualValues(t, 3_000, count("", ""))
	require.EqualValues(t, 1_000, count("1", "2"), "from included, to excluded")
	require.EqualValues(t, 2_000, count("1", ""))
	require.Zero(t, count("2", "1"), "a reversed range")
	put(t, s, "k0", []byte("y"), add("i", "0"))
	require.EqualValues(t, 3_000, count("", ""), "an existing entry is not added again")
	put(t, s, "k0", nil, remove("i", "0"), remove("other", "1"))
	require.EqualValues(t, 2_999, count("", ""))
}

func testLookup(t *testing.T, s store.Store) {
	ctx := context.Background()
	lookup := func(limit int, values ...string) [][]string {
		found, err := s.Lookup(ctx, "i", values, limit)
		require.NoError(t, err)
		return found
	}
	require.Equal(t, [][]string{nil}, lookup(2, "1"), "an unknown index")
	require.Empty(t, lookup(2), "no values")
	var changes []store.Change
	for i := range 3_000 {
		changes = append(changes, store.Change{Key: fmt.Sprintf("k%04d", i), Data: []byte("x"), Index: []store.IndexEdit{
			add("i", fmt.Sprintf("one%d", i)), add("i", fmt.Sprintf("three%d", i/3)), add("i", "all"), add("other", "none")}})
	}
	require.Empty(t, commit(t, s, changes...))
	require.Equal(t, [][]string{{"k0007"}, nil, {"k0000", "k0001"}, {"k0003", "k0004"}, {"k0007"}},
		lookup(2, "one7", "none", "all", "three1", "one7"), "in the order of values, the first keys of each")
	require.Equal(t, [][]string{{"k0003", "k0004", "k0005"}}, lookup(10, "three1"))
	require.Equal(t, [][]string{nil, nil, nil, nil}, lookup(2, "on", "one", "one7\x00", ""), "a prefix of a value is another value")
	require.Equal(t, [][]string{nil}, lookup(0, "one7"))

	// More than one request can hold.
	values := make([]string, 3_000)
	for i := range values {
		values[i] = fmt.Sprintf("one%d", len(values)-1-i)
	}
	for i, keys := range lookup(2, values...) {
		require.Equal(t, []string{fmt.Sprintf("k%04d", len(values)-1-i)}, keys)
	}

	put(t, s, "k0007", []byte("y"), remove("i", "one7"), add("i", "one8"))
	require.Equal(t, [][]string{nil, {"k0007", "k0008"}}, lookup(2, "one7", "one8"))
	put(t, s, "k0008", nil, remove("i", "one8"), remove("i", "three2"), remove("i", "all"), remove("other", "none"))
	require.Equal(t, [][]string{{"k0007"}}, lookup(2, "one8"))
}

func testIndexBytes(t *testing.T, s store.Store) {
	values := append([]string{""}, oddStrings...)
	m := newModel()
	for i, v := range values {
		for _, key := range []string{"a", "a\x00", "\x00", "\xff", "b"} {
			key += fmt.Sprint(i % 3)
			put(t, s, key, []byte("x"), add("i", v))
			m.edit(key, add("i", v))
		}
	}
	require.Equal(t, m.scanIndex("i", "", "", store.IndexEntry{}, 1<<20), scanIndex(t, s, "i", "", ""))
	for _, from := range values {
		for _, to := range values {
			require.Equal(t, m.scanIndex("i", from, to, store.IndexEntry{}, 1<<20), scanIndex(t, s, "i", from, to), "from %q to %q", from, to)
		}
	}
	for _, after := range m.scanIndex("i", "", "", store.IndexEntry{}, 1<<20) {
		got, err := s.ScanIndex(context.Background(), "i", "", "", after, 3)
		require.NoError(t, err)
		require.Equal(t, m.scanIndex("i", "", "", after, 3), got, "after %q", after)
	}
}

func testIndexSeparation(t *testing.T, s store.Store) {
	put(t, s, "k", []byte("x"), add("a", "1"), add("ab", "2"), add("a\x00", "3"), add("", "4"), add("b", "1"))
	require.Equal(t, entries("1", "k"), scanIndex(t, s, "a", "", ""))
	require.Equal(t, entries("2", "k"), scanIndex(t, s, "ab", "", ""))
	require.Equal(t, entries("3", "k"), scanIndex(t, s, "a\x00", "", ""))
	require.Equal(t, entries("4", "k"), scanIndex(t, s, "", "", ""))
	put(t, s, "k", []byte("y"), remove("a", "1"))
	require.Empty(t, scanIndex(t, s, "a", "", ""))
	require.Equal(t, entries("1", "k"), scanIndex(t, s, "b", "", ""))
}

func testScan(t *testing.T, s store.Store) {
	const n = 1_000
	var changes []store.Change
	for i := range n {
		changes = append(changes, store.Change{Key: fmt.Sprintf("k%d", i), Data: []byte(fmt.Sprint(i)), Index: []store.IndexEdit{add("i", "v")}})
	}
	require.Empty(t, commit(t, s, changes...))
	for _, limit := range []int{1, 10, 999, 1000, 5000} {
		all := scanAll(t, s, limit)
		require.Len(t, all, n, "pages of %d", limit)
		for _, c := range changes {
			require.Equal(t, c.Data, all[c.Key].Data)
			require.Equal(t, store.VersionOf(c.Data), all[c.Key].Version)
		}
	}
	_, _, err := s.Scan(context.Background(), "no such cursor", 10)
	require.Error(t, err)
}

func testScanUnderWrites(t *testing.T, s store.Store) {
	const stable = 1_000
	for i := range stable {
		put(t, s, fmt.Sprintf("stable-%d", i), []byte("0"))
	}
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	var written atomic.Int64
	for w := range 2 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				// One record appears and disappears, and one of the stable records
				// changes.
				passing, changing := fmt.Sprintf("passing-%d-%d", w, i), fmt.Sprintf("stable-%d", (i*2+w)%stable)
				write := func(key string, data []byte) {
					retry(t, s, []string{key}, func(key string, r store.Record) store.Change {
						return store.Change{Key: key, Version: r.Version, Data: data}
					})
				}
				write(passing, []byte("x"))
				write(changing, []byte(fmt.Sprint(i)))
				write(passing, nil)
				written.Add(1)
			}
		})
	}
	for range 20 {
		all := scanAll(t, s, 50)
		for i := range stable {
			require.Contains(t, all, fmt.Sprintf("stable-%d", i))
		}
	}
	stop()
	writers.Wait()
	require.Positive(t, written.Load())
	require.Len(t, scanAll(t, s, 50), stable)
}

// retry applies fn to the records of keys until all are committed.
func retry(t testing.TB, s store.Store, keys []string, fn func(key string, r store.Record) store.Change) {
	ctx := context.Background()
	for len(keys) > 0 {
		records, err := s.Load(ctx, keys)
		if err != nil {
			t.Errorf("load: %v", err)
			return
		}
		changes := make([]store.Change, len(keys))
		for i, r := range records {
			changes[i] = fn(keys[i], r)
		}
		conflicts, err := s.Commit(ctx, changes)
		if err != nil {
			t.Errorf("commit: %v", err)
			return
		}
		var again []string
		for _, i := range conflicts {
			again = append(again, keys[i])
		}
		keys = again
	}
}

func testCounters(t *testing.T, s store.Store) {
	const workers, rounds, counters, perRound = 8, 40, 10, 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			for range rounds {
				var keys []string
				for _, i := range rng.Perm(counters)[:perRound] {
					keys = append(keys, fmt.Sprintf("counter-%d", i))
				}
				retry(t, s, keys, func(key string, r store.Record) store.Change {
					var n uint64
					if r.Version != store.Absent {
						n = binary.BigEndian.Uint64(r.Data)
					}
					return store.Change{Key: key, Version: r.Version, Data: binary.BigEndian.AppendUint64(nil, n+1)}
				})
			}
		})
	}
	wg.Wait()
	var sum uint64
	for i := range counters {
		if r := load1(t, s, fmt.Sprintf("counter-%d", i)); r.Version != store.Absent {
			sum += binary.BigEndian.Uint64(r.Data)
		}
	}
	require.EqualValues(t, workers*rounds*perRound, sum)
}

func testCreationRace(t *testing.T, s store.Store) {
	const workers, keys = 8, 50
	var created atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var changes []store.Change
			for k := range keys {
				changes = append(changes, store.Change{Key: fmt.Sprintf("k%d", k), Data: []byte(fmt.Sprint("by ", w))})
			}
			conflicts, err := s.Commit(context.Background(), changes)
			if err != nil {
				t.Errorf("commit: %v", err)
			}
			created.Add(int64(keys - len(conflicts)))
		})
	}
	wg.Wait()
	require.EqualValues(t, keys, created.Load())
}

func testIndexRace(t *testing.T, s store.Store) {
	const workers, rounds, keys = 4, 50, 5
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 8))
			for range rounds {
				retry(t, s, []string{fmt.Sprintf("k%d", rng.IntN(keys))}, func(key string, r store.Record) store.Change {
					// The data of a record is its value in the index.
					c := store.Change{Key: key, Version: r.Version, Data: []byte(fmt.Sprintf("%d", rng.IntN(3)))}
					if r.Version != store.Absent {
						c.Index = append(c.Index, remove("i", string(r.Data)))
					}
					c.Index = append(c.Index, add("i", string(c.Data)))
					return c
				})
			}
		})
	}
	wg.Wait()
	want := newModel()
	for key, r := range scanAll(t, s, 10) {
		want.edit(key, add("i", string(r.Data)))
	}
	require.Equal(t, want.scanIndex("i", "", "", store.IndexEntry{}, 100), scanIndex(t, s, "i", "", ""))
}

func testCancellation(t *testing.T, s store.Store) {
	put(t, s, "k", []byte("v"), add("i", "x"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Load(ctx, []string{"k"})
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Commit(ctx, []store.Change{{Key: "new", Data: []byte("v"), Index: []store.IndexEdit{add("i", "y")}}})
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.ScanIndex(ctx, "i", "", "", store.IndexEntry{}, 10)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.CountIndex(ctx, "i", "", "")
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Lookup(ctx, "i", []string{"x"}, 1)
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = s.Scan(ctx, "", 10)
	require.ErrorIs(t, err, context.Canceled)
	require.Error(t, s.Ping(ctx))

	require.Equal(t, store.Record{}, load1(t, s, "new"), "cancelled before it began")
	require.Equal(t, entries("x", "k"), scanIndex(t, s, "i", "", ""))
}

func testPing(t *testing.T, s store.Store) {
	require.NoError(t, s.Ping(context.Background()))
}

func testClosed(t *testing.T, s store.Store) {
	ctx := context.Background()
	put(t, s, "k", []byte("v"))

	// Calls that run while the store closes either succeed or return ErrClosed.
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				_, err := s.Load(ctx, []string{"k"})
				if err == nil {
					_, err = s.Commit(ctx, []store.Change{{Key: fmt.Sprintf("%d-%d", w, i), Data: []byte("v")}})
				}
				if err == nil {
					_, _, err = s.Scan(ctx, "", 5)
				}
				if err != nil {
					if !errors.Is(err, store.ErrClosed) {
						t.Errorf("want ErrClosed, got %v", err)
					}
					return
				}
			}
		})
	}
	require.NoError(t, s.Close())
	wg.Wait()

	_, err := s.Load(ctx, []string{"k"})
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Load(ctx, nil)
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Commit(ctx, []store.Change{{Key: "k", Data: []byte("v")}})
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Commit(ctx, nil)
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.ScanIndex(ctx, "i", "", "", store.IndexEntry{}, 10)
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.CountIndex(ctx, "i", "", "")
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Lookup(ctx, "i", []string{"x"}, 1)
	require.ErrorIs(t, err, store.ErrClosed)
	_, _, err = s.Scan(ctx, "", 10)
	require.ErrorIs(t, err, store.ErrClosed)
	require.ErrorIs(t, s.Ping(ctx), store.ErrClosed)
	require.ErrorIs(t, s.Close(), store.ErrClosed)
}

// RunConnectionFault tests that no operation of a store turns a failure to connect into
// an empty answer, which callers would report as "no such customer". open returns a new store on an empty server and a function after which
// setting up any connection fails.
func RunConnectionFault(t *testing.T, open func(t *testing.T) (s store.Store, breakConnections func())) {
	ctx := context.Background()
	s, breakConnections := open(t)
	t.Cleanup(func() { _ = s.Close() })
	put(t, s, "k", []byte("v"), add("i", "x"))
	put(t, s, "l", []byte("v"), add("i", "y"))
	version := store.VersionOf([]byte("v"))
	operations := map[string]func() error{
		"load": func() error { _, err := s.Load(ctx, []string{"k", "missing"}); return err },
		"commit": func() error {
			_, err := s.Commit(ctx, []store.Change{{Key: "k", Version: version, Data: []byte("v"), Index: []store.IndexEdit{add("i", "x")}}})
			return err
		},
		"scan index":  func() error { _, err := s.ScanIndex(ctx, "i", "", "", store.IndexEntry{}, 10); return err },
		"count index": func() error { _, err := s.CountIndex(ctx, "i", "", ""); return err },
		"lookup":      func() error { _, err := s.Lookup(ctx, "i", []string{"x", "missing"}, 10); return err },
		"scan":        func() error { _, _, err := s.Scan(ctx, "", 10); return err },
		"ping":        func() error { return s.Ping(ctx) },
	}
	if r, ok := s.(store.ReplicaReader); ok {
		operations["load from a replica"] = func() error { _, err := r.LoadReplica(ctx, []string{"k", "missing"}); return err }
	}
	for name, operation := range operations {
		require.NoError(t, operation(), "%s with connections", name)
	}
	breakConnections()
	for name, operation := range operations {
		require.Error(t, operation(), "%s without connections", name)
	}
}
