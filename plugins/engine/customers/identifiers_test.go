package customers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

const identified = shop + `
identifiers:
  - { name: phone, trait: phone }
  - { name: email, trait: email, match: ignore_case }
`

// by reads one customer by a value of an identifier.
func by(t require.TestingT, r interface {
	Read(context.Context, []string, Query) ([]Result, error)
}, identifier, value string) Result {
	results, err := r.Read(context.Background(), []string{value}, Query{By: identifier})
	require.NoError(t, err)
	return results[0]
}

func traitsOf(message, ids, at, traits string) []byte {
	return fmt.Appendf(nil, `{"type":"identify","messageId":%q,%s,"timestamp":%q,"receivedAt":%q,"traits":%s}`, message, ids, at, at, traits)
}

func erasedAs(kind, message, ids, at string) []byte {
	return fmt.Appendf(nil, `{"type":%q,"messageId":%q,%s,"timestamp":%q,"receivedAt":%q}`, kind, message, ids, at, at)
}

func TestReadByIdentifier(t *testing.T) {
	p := open(t, identified)
	found := func(identifier, value, id string) {
		t.Helper()
		r := by(t, p, identifier, value)
		require.NoError(t, r.Err)
		require.Equal(t, id != "", r.Found, "%s %q", identifier, value)
		require.Equal(t, id, r.ID)
	}
	apply(t, p,
		traitsOf("m1", `"userId":"u1"`, "2026-01-01T00:00:01Z", `{"email":" Ada@Example.COM ","phone":4930123456}`),
		traitsOf("m2", `"userId":"u2"`, "2026-01-01T00:00:01Z", `{"email":"ÅSA@example.com","phone":"+49 30 1"}`),
		traitsOf("m3", `"anonymousId":"u1"`, "2026-01-01T00:00:01Z", `{"email":"somebody@example.com"}`),
	)
	for _, written := range []string{"ada@example.com", "ADA@EXAMPLE.com", "\tada@example.com\n"} {
		found("email", written, "u1")
	}
	found("email", "åsa@Example.com", "u2")
	found("phone", "4930123456", "u1")
	found("phone", "+49 30 1", "u2")
	found("phone", "+49 30 1 ", "")
	r := by(t, p, "email", "somebody@example.com")
	require.Equal(t, "u1", r.ID)
	require.True(t, r.Anonymous, "not the known customer with the same id")
	for _, nobody := range []string{"", " ", "u1", "example.com", "ada@example.co", "\xff", strings.Repeat("x", 5000)} {
		found("email", nobody, "")
	}

	// A value that changes is found where it is, and what is older changes nothing.
	apply(t, p, traitsOf("m4", `"userId":"u1"`, "2026-01-01T00:00:03Z", `{"email":"lovelace@example.com"}`),
		traitsOf("m5", `"userId":"u1"`, "2026-01-01T00:00:02Z", `{"email":"late@example.com"}`))
	found("email", "lovelace@example.com", "u1")
	found("email", "ada@example.com", "")
	found("email", "late@example.com", "")
	apply(t, p, traitsOf("m6", `"userId":"u1"`, "2026-01-01T00:00:04Z", `{"email":null,"phone":true}`))
	found("email", "lovelace@example.com", "")
	found("phone", "true", "")

	// Values that are too long or invalid match no customer.
	long := strings.Repeat("é", 128)
	apply(t, p, traitsOf("m7", `"userId":"u1"`, "2026-01-01T00:00:05Z", `{"phone":"`+long+`"}`))
	found("phone", long, "u1")
	apply(t, p, traitsOf("m8", `"userId":"u1"`, "2026-01-01T00:00:06Z", `{"phone":"`+long+`x"}`))
	found("phone", long, "")
	found("phone", long+"x", "")

	_, err := p.Read(context.Background(), []string{"x"}, Query{By: "fax"})
	var unknown *UnknownIdentifierError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, []string{"email", "phone"}, unknown.Declared)
	_, err = open(t, shop).Read(context.Background(), []string{"x"}, Query{By: "email"})
	require.ErrorContains(t, err, "no identifiers")
}

// TestSharedIdentifierIsAmbiguous returns no customer for a value that several customers share,
// until only one has it.
func TestSharedIdentifierIsAmbiguous(t *testing.T) {
	p := open(t, identified)
	ctx := context.Background()
	apply(t, p,
		traitsOf("m1", `"userId":"u1"`, "2026-01-01T00:00:01Z", `{"email":"home@example.com"}`),
		traitsOf("m2", `"userId":"u2"`, "2026-01-01T00:00:01Z", `{"email":"Home@example.com"}`),
		traitsOf("m3", `"anonymousId":"a3"`, "2026-01-01T00:00:01Z", `{"email":"home@example.com"}`),
		traitsOf("m4", `"userId":"u4"`, "2026-01-01T00:00:01Z", `{"email":"other@example.com"}`),
	)
	results, err := p.Read(ctx, []string{"home@example.com", "other@example.com", "nobody@example.com", "other@example.com"}, Query{By: "email"})
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, ErrAmbiguous)
	require.False(t, results[0].Found)
	require.Empty(t, results[0].JSON)
	require.Equal(t, []string{"", "u4", "", "u4"}, []string{results[0].ID, results[1].ID, results[2].ID, results[3].ID})
	export, err := p.Export(ctx, "home@example.com", "email")
	require.NoError(t, err)
	require.ErrorIs(t, export.Err, ErrAmbiguous)
	_, err = p.Explain(ctx, "home@example.com", "email", time.Time{})
	require.ErrorIs(t, err, ErrAmbiguous)

	// A merge makes two of them one, and an erasure leaves one.
	apply(t, p, identify("m5", "u2", "a3", "2026-01-01T00:00:02Z", "web", `{}`))
	require.ErrorIs(t, by(t, p, "email", "home@example.com").Err, ErrAmbiguous)
	apply(t, p, erasedAs("erase", "m6", `"userId":"u1"`, "2026-01-01T00:00:03Z"))
	r := by(t, p, "email", "home@example.com")
	require.NoError(t, r.Err)
	require.Equal(t, "u2", r.ID)
	export, err = p.Export(ctx, "HOME@example.com", "email")
	require.NoError(t, err)
	require.Contains(t, string(export.JSON), `"identifiers":[{"name":"email","value":"home@example.com"}]`)
	text, err := p.Explain(ctx, "HOME@example.com", "email", time.Time{})
	require.NoError(t, err)
	require.Contains(t, string(text), `"id":"u2"`)
	apply(t, p, erasedAs("erase", "m7", `"userId":"u2"`, "2026-01-01T00:00:03Z"))
	require.False(t, by(t, p, "email", "home@example.com").Found)
	text, err = p.Explain(ctx, "home@example.com", "email", time.Time{})
	require.NoError(t, err)
	require.Nil(t, text)
}

// recomputed is what the indexes of identifiers must have, from all records.
func recomputed(t require.TestingT, p *Service, ids record.Identifiers) map[string]string {
	want := map[string]string{}
	var cursor string
	for {
		page, next, err := p.store.Scan(context.Background(), cursor, 100)
		require.NoError(t, err)
		for _, e := range page {
			var rec record.Record
			if !isCustomer(e.Key) {
				continue
			}
			require.NoError(t, rec.Decode(p.def, e.Key, e.Data))
			if rec.Link() != "" || rec.Erased() {
				continue
			}
			export, err := rec.AppendExport(nil, e.Key)
			require.NoError(t, err)
			var known struct {
				Traits []struct {
					Name  string
					Value any
				}
			}
			require.NoError(t, json.Unmarshal(export, &known))
			for _, trait := range known.Traits {
				for i := range ids {
					if ids[i].Trait != trait.Name {
						continue
					}
					switch v := trait.Value.(type) {
					case string:
						if ids[i].IgnoreCase {
							v = strings.ToLower(strings.TrimSpace(v))
						}
						if v != "" && len(v) <= 256 {
							want[fmt.Sprintf("%s %q %s", ids[i].Name, v, e.Key)] = ids[i].Name
						}
					case float64:
						want[fmt.Sprintf("%s %q %s", ids[i].Name, fmt.Sprint(v), e.Key)] = ids[i].Name
					}
				}
			}
		}
		if cursor = next; next == "" {
			return want
		}
	}
}

// indexed is what they have.
func indexed(t require.TestingT, p *Service, names ...string) map[string]string {
	got := map[string]string{}
	for _, name := range names {
		entries, err := p.store.ScanIndex(context.Background(), record.IdentifierIndex+name, "", "", store.IndexEntry{}, 1<<20)
		require.NoError(t, err)
		for _, e := range entries {
			got[fmt.Sprintf("%s %q %s", name, e.Value, e.Key)] = name
		}
	}
	return got
}

// customersOf returns the records of customers, without the reserved records, which a
// process can write at any time.
func customersOf(t require.TestingT, s store.Store) []store.Entry {
	entries, _, err := s.Scan(context.Background(), "", 100)
	require.NoError(t, err)
	return slices.DeleteFunc(entries, func(e store.Entry) bool { return !isCustomer(e.Key) })
}

var identifierSets = []string{
	"",
	"identifiers: [ { name: email, trait: email, match: ignore_case }, { name: phone, trait: phone } ]",
	"identifiers: [ { name: mail, trait: email, match: ignore_case }, { name: phone, trait: phone, match: ignore_case } ]",
	"identifiers: [ { name: email, trait: phone } ]",
	"identifiers: [ { name: email, trait: email }, { name: address, trait: email, match: ignore_case } ]",
}

// TestIdentifierIndexEqualsRecords compares the index with the records after random traits,
// merges, erasures, readmissions and definition changes.
func TestIdentifierIndexEqualsRecords(t *testing.T) {
	var definitions []*definition.Definition
	for _, text := range identifierSets {
		def, err := profiledefinition.Read(writeDefinition(t, shop+text))
		require.NoError(t, err)
		definitions = append(definitions, def)
	}
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
		require.NoError(t, err)
		defer func() { _ = s.Close() }()
		use := func(n int) *Service {
			p := New(definitions[n], s, Options{})
			t.Cleanup(p.unfollow)
			return p
		}
		p := use(1)
		sweep := func() {
			sw := sweeper{p: p, interval: time.Minute}
			require.NoError(t, sw.sweepIfDue(ctx))
		}
		sweep()
		var said [][]byte
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			who := rapid.SampledFrom([]string{`"userId":"u1"`, `"userId":"u2"`, `"anonymousId":"a1"`, `"anonymousId":"a2"`, `"userId":"u1","anonymousId":"a1"`, `"userId":"u2","anonymousId":"a2"`}).Draw(t, "who")
			when := fmt.Sprintf("2026-01-01T00:00:%02dZ", rapid.IntRange(0, 30).Draw(t, "at"))
			message := fmt.Sprintf("m%d", i)
			switch kind := rapid.IntRange(0, 11).Draw(t, "what"); {
			case kind < 7:
				value := rapid.SampledFrom([]string{`"Jo@example.com"`, `" jo@EXAMPLE.com"`, `"ÖZ@example.com"`, `7`, `null`, `""`, `" "`, `true`, `{"a":1}`, `"` + strings.Repeat("L", 300) + `"`})
				said = append(said, traitsOf(message, who, when, fmt.Sprintf(`{"email":%s,"phone":%s}`, value.Draw(t, "email"), value.Draw(t, "phone"))))
			case kind == 7:
				said = append(said, erasedAs("erase", message, who, when))
			case kind == 8:
				said = append(said, erasedAs("readmit", message, who, when))
			case kind == 9:
				p = use(rapid.IntRange(0, len(definitions)-1).Draw(t, "definition"))
				sweep()
				continue
			default:
				if len(said) == 0 {
					continue
				}
				said = append(said, rapid.SampledFrom(said).Draw(t, "again"))
			}
			_, err := p.Update(ctx, said[len(said)-1:])
			require.NoError(t, err)
			require.Equal(t, recomputed(t, p, p.def.Identifiers), indexed(t, p, "address", "email", "mail", "phone"))
		}
		// Repeating all events eventually changes no byte. The first repetitions
		// may change records, because events that were rejected before a
		// readmission are applied after it.
		for rounds := 0; ; rounds++ {
			require.LessOrEqual(t, rounds, len(said), "it comes to rest")
			before := customersOf(t, s)
			_, err = p.Update(ctx, slices.Clone(said))
			require.NoError(t, err)
			after := customersOf(t, s)
			require.Equal(t, recomputed(t, p, p.def.Identifiers), indexed(t, p, "address", "email", "mail", "phone"))
			if slices.EqualFunc(before, after, func(a, b store.Entry) bool { return a.Key == b.Key && a.Version == b.Version }) {
				break
			}
		}

		// A lookup returns the only customer with the value, or none.
		for i := range p.def.Identifiers {
			have := map[string][]string{}
			entries, err := p.store.ScanIndex(ctx, p.def.Identifiers[i].Index(), "", "", store.IndexEntry{}, 100)
			require.NoError(t, err)
			for _, e := range entries {
				have[e.Value] = append(have[e.Value], record.KeyID(e.Key))
			}
			for value, ids := range have {
				r := by(t, p, p.def.Identifiers[i].Name, value)
				if len(ids) == 1 {
					require.Equal(t, ids[0], r.ID)
					require.True(t, r.Found)
				} else {
					require.ErrorIs(t, r.Err, ErrAmbiguous)
				}
			}
		}
	})
}

// TestIdentifierIndexWithConcurrentWriters moves values between customers with two
// writers; concurrent reads never return a customer without the value.
func TestIdentifierIndexWithConcurrentWriters(t *testing.T) {
	p := open(t, identified)
	c := p.Cached(CacheOptions{MaxBytes: 1 << 20})
	ctx := context.Background()
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for _, r := range []interface {
		Read(context.Context, []string, Query) ([]Result, error)
	}{p, c} {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				results, err := r.Read(ctx, []string{"e0@example.com", "E1@example.com", "e2@example.com"}, Query{By: "email"})
				if err != nil {
					t.Error(err)
					return
				}
				for i, r := range results {
					if r.Found && !strings.Contains(string(r.JSON), fmt.Sprintf(`"email":"E%d@example.com"`, i)) {
						t.Errorf("e%d@example.com gave %s", i, r.JSON)
					}
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for i := range 150 {
				e := traitsOf(fmt.Sprintf("m%d-%d", w, i), fmt.Sprintf(`"userId":"u%d","anonymousId":"a%d"`, i%3, i%7),
					time.UnixMilli(1767225600000+int64(i)).UTC().Format(time.RFC3339Nano), fmt.Sprintf(`{"email":"E%d@example.com"}`, (i+w)%4))
				if _, err := p.Update(ctx, [][]byte{e}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	require.Equal(t, recomputed(t, p, p.def.Identifiers), indexed(t, p, "email", "phone"))
	require.NotEmpty(t, indexed(t, p, "email"))
	require.NoError(t, c.Close(ctx))
}

// TestIdentifiersAreAddedToLiveStore declares identifiers for existing records: writes and sweeps
// add entries, and sweeps remove those that are undeclared or expired.
func TestIdentifiersAreAddedToLiveStore(t *testing.T) {
	ctx := context.Background()
	old := open(t, shop)
	for i := range 700 {
		apply(t, old, traitsOf(fmt.Sprintf("m%d", i), fmt.Sprintf(`"userId":"u%d"`, i), "2026-01-01T00:00:01Z", fmt.Sprintf(`{"email":"E%d@example.com"}`, i)))
	}
	require.Empty(t, indexed(t, old, "email"))
	reopen := func(definition string) *Service {
		def, err := profiledefinition.Read(writeDefinition(t, definition))
		require.NoError(t, err)
		p := New(def, old.backing, Options{})
		t.Cleanup(p.unfollow)
		return p
	}
	p := reopen(identified)
	require.False(t, by(t, p, "email", "e1@example.com").Found)
	apply(t, p, order("o1", `"userId":"u1"`, 5))
	require.Equal(t, "u1", by(t, p, "email", "e1@example.com").ID)
	require.False(t, by(t, p, "email", "e2@example.com").Found)

	left := record.Entry{Index: "id/email", Value: "expired@example.com"}
	_, err := p.backing.Commit(ctx, []store.Change{{Key: "ugone", Index: []store.IndexEdit{{Index: left.Index, Value: left.Value}}}})
	require.NoError(t, err)
	sweep(t, p)
	require.Len(t, indexed(t, p, "email"), 700)
	require.Equal(t, recomputed(t, p, p.def.Identifiers), indexed(t, p, "email"))
	require.Equal(t, "u699", by(t, p, "email", "e699@example.com").ID)

	renamed := reopen(shop + "\nidentifiers: [ { name: mail, trait: email } ]")
	sweep(t, renamed)
	require.Empty(t, indexed(t, renamed, "email"))
	require.Equal(t, "u7", by(t, renamed, "mail", "E7@example.com").ID)
	none := reopen(shop)
	sweep(t, none)
	require.Empty(t, indexed(t, none, "email", "mail", "phone"))
	page, _, err := none.store.Scan(ctx, "", 1000)
	require.NoError(t, err)
	for _, e := range page {
		var rec record.Record
		if isCustomer(e.Key) {
			require.NoError(t, rec.Decode(none.def, e.Key, e.Data))
			rec.VisitIdentifiers(func(name, _ string) { t.Errorf("%s still has %s", e.Key, name) })
		}
	}
}

// staleStore answers its first loads with records of before.
type staleStore struct {
	store.Store
	records []store.Record
}

func (s *staleStore) Load(ctx context.Context, keys []string) ([]store.Record, error) {
	if len(s.records) > 0 && len(keys) == len(s.records) {
		old := s.records
		s.records = nil
		return old, nil
	}
	return s.Store.Load(ctx, keys)
}

// TestReadByStaleEntryFindsNothing has index entries without a matching record.
func TestReadByStaleEntryFindsNothing(t *testing.T) {
	p := open(t, identified)
	ctx := context.Background()
	apply(t, p, traitsOf("m1", `"userId":"u1"`, "2026-01-01T00:00:01Z", `{"email":"old@example.com"}`))
	before, err := p.store.Load(ctx, []string{"uu1"})
	require.NoError(t, err)
	apply(t, p, traitsOf("m2", `"userId":"u1"`, "2026-01-01T00:00:02Z", `{"email":"new@example.com"}`))

	// The replica lags behind, so the read goes to the primary.
	p.reads = (&staleStore{p.store, before}).Load
	r := by(t, p, "email", "new@example.com")
	require.Equal(t, "u1", r.ID)
	require.Contains(t, string(r.JSON), "new@example.com")

	// A read by a stale entry that stays finds no customer.
	_, err = p.backing.Commit(ctx, []store.Change{{Key: "uu2", Data: append([]byte{1}, "not a record"...), Index: []store.IndexEdit{{Index: "id/email", Value: "broken@example.com"}}},
		{Key: "ugone", Index: []store.IndexEdit{{Index: "id/email", Value: "gone@example.com"}}}})
	require.NoError(t, err)
	require.ErrorIs(t, by(t, p, "email", "broken@example.com").Err, record.ErrCorrupt)
	require.Equal(t, Result{}, by(t, p, "email", "gone@example.com"))
	export, err := p.Export(ctx, "gone@example.com", "email")
	require.NoError(t, err)
	require.Equal(t, Result{}, export)
	apply(t, p, traitsOf("m3", `"userId":"u3"`, "2026-01-01T00:00:02Z", `{"email":"third@example.com"}`))
	stored, err := p.store.Load(ctx, []string{"uu3"})
	require.NoError(t, err)
	_, err = p.backing.Commit(ctx, []store.Change{{Key: "uu3", Version: stored[0].Version, Data: stored[0].Data, Index: []store.IndexEdit{{Index: "id/email", Value: "first@example.com"}}}})
	require.NoError(t, err)
	require.Equal(t, Result{}, by(t, p, "email", "first@example.com"))
}

// TestCachedReadByIdentifier serves a cached record only for the current value.
func TestCachedReadByIdentifier(t *testing.T) {
	p := open(t, identified)
	c := p.Cached(CacheOptions{MaxBytes: 1 << 20})
	ctx := context.Background()
	apply(t, p, traitsOf("m1", `"userId":"u1"`, "2026-01-01T00:00:01Z", `{"email":"a@example.com"}`))
	for range 3 {
		require.Equal(t, "u1", by(t, c, "email", "A@example.com").ID)
	}
	_, ok := c.ReadCached(nil, "a@example.com", Query{By: "email"})
	require.False(t, ok, "identifiers are resolved by the store")
	apply(t, p, traitsOf("m2", `"userId":"u1"`, "2026-01-01T00:00:02Z", `{"email":"b@example.com"}`), traitsOf("m3", `"userId":"u2"`, "2026-01-01T00:00:02Z", `{"email":"a@example.com"}`))
	require.Equal(t, "u2", by(t, c, "email", "a@example.com").ID)
	require.Equal(t, "u1", by(t, c, "email", "b@example.com").ID)
	apply(t, p, erasedAs("erase", "m4", `"userId":"u2"`, "2026-01-01T00:00:03Z"))
	require.False(t, by(t, c, "email", "a@example.com").Found)
	_, err := c.Read(ctx, []string{"x"}, Query{By: "fax"})
	require.ErrorContains(t, err, `no identifier "fax"`)
	require.NoError(t, c.Close(ctx))
}

// TestRecordsWithoutIdentifiersAreUnchanged compares encoded records with and without
// declared identifiers.
func TestRecordsWithoutIdentifiersAreUnchanged(t *testing.T) {
	events := [][]byte{traitsOf("m1", `"userId":"u1"`, "2026-01-01T00:00:01Z", `{"email":"a@example.com"}`), order("m2", `"userId":"u2"`, 5)}
	plain, with := open(t, shop), open(t, identified)
	apply(t, plain, events...)
	apply(t, with, events...)
	keys := []string{"uu1", "uu2"}
	a, err := plain.store.Load(context.Background(), keys)
	require.NoError(t, err)
	b, err := with.store.Load(context.Background(), keys)
	require.NoError(t, err)
	require.Equal(t, len(a[0].Data)+2+len("\x05email\x0da@example.com"), len(b[0].Data), "a tag, a length, and the value")
	require.Equal(t, a[1], b[1], "a record without a value has no section")
}
