package customers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/cache"
)

// UnknownIdentifierError is returned for an identifier that is not declared.
type UnknownIdentifierError struct {
	Name string
	// Declared are those that are.
	Declared []string
}

func (e *UnknownIdentifierError) Error() string {
	if len(e.Declared) == 0 {
		return "customers are found by their ids alone: the definition of the profiles has no identifiers"
	}
	return fmt.Sprintf("there is no identifier %q%s; there are %s", e.Name, spelling.Hint(e.Name, e.Declared), strings.Join(e.Declared, ", "))
}

// ErrAmbiguous is the result of a read by a value that several customers have.
var ErrAmbiguous = errors.New("several customers have this value")

// Identifiers returns the names of the traits that customers are found by, in
// order.
func (p *Service) Identifiers() []string { return p.def.Identifiers.Names() }

func (p *Service) identifier(name string) (*record.Identifier, error) {
	if i := p.def.Identifiers.Lookup(name); i != nil {
		return i, nil
	}
	return nil, &UnknownIdentifierError{name, p.Identifiers()}
}

// sought is a value of an identifier, and who has it.
type sought struct {
	entry record.Entry // as the record of whoever has it has
	key   string       // empty for nobody
	err   error        // ErrAmbiguous
}

// seek finds out who has each of values. What is found may change before it is
// read: whoever reads a record makes sure that it has the entry.
func (p *Service) seek(ctx context.Context, by *record.Identifier, values []string) ([]sought, error) {
	all := make([]sought, len(values))
	known := make([]string, 0, len(values))
	at := make([]int, 0, len(values))
	for i, value := range values {
		all[i].entry = record.Entry{Index: by.Index(), Value: by.Normalise(value)}
		if all[i].entry.Value != "" {
			known, at = append(known, all[i].entry.Value), append(at, i)
		}
	}
	if len(known) == 0 {
		return all, nil
	}
	found, err := p.store.Lookup(ctx, by.Index(), known, 2)
	if err != nil {
		return nil, err
	}
	for n, keys := range found {
		switch s := &all[at[n]]; len(keys) {
		case 0:
		case 1:
			s.key = keys[0]
		default:
			s.err = ErrAmbiguous
		}
	}
	return all, nil
}

// seekAttempts is how often a value is looked up whose customer turns out to
// have another by then.
const seekAttempts = 3

// readBy reads the profiles of those who have values of an identifier, in order
// of the values.
func (p *Service) readBy(ctx context.Context, load cache.Loader, by *record.Identifier, values []string, asOf int64, sel *record.Selection) ([]Result, error) {
	results := make([]Result, len(values))
	left := make([]int, len(values)) // which to read
	for i := range left {
		left[i] = i
	}
	for range seekAttempts {
		wanted := make([]string, len(left))
		for n, i := range left {
			wanted[n] = values[i]
		}
		all, err := p.seek(ctx, by, wanted)
		if err != nil {
			return nil, err
		}
		var keys []string
		var of []int // positions in left
		for n := range all {
			if results[left[n]].Err = all[n].err; all[n].key != "" {
				keys, of = append(keys, all[n].key), append(of, n)
			}
		}
		if len(keys) == 0 {
			return results, nil
		}
		records, err := load(ctx, keys)
		if err != nil {
			return nil, err
		}
		stale := make([]bool, len(keys))
		p.each(len(keys), func(rd *reader, n int) {
			result := &results[left[of[n]]]
			if stale[n] = records[n].Version == store.Absent; stale[n] {
				return
			}
			if result.Err = rd.rec.Decode(p.def, keys[n], records[n].Data); result.Err != nil {
				return
			}
			if stale[n] = !rd.rec.HasEntry(all[of[n]].entry); stale[n] {
				return
			}
			rd.room()
			p.show(rd, result, keys[n], asOf, sel)
			rd.used(result.JSON)
		})
		var again []int
		for n, i := range of {
			if stale[n] {
				again = append(again, left[i])
			}
		}
		if left = again; len(left) == 0 {
			break
		}
		// What was read of memory or of a replica may be older than the index.
		load = p.store.Load
	}
	return results, nil
}

// candidates are the keys of the record that a question is about, in order of
// preference, and the entry that it has to have, if any. There are none for a
// value that nobody has.
func (p *Service) candidates(ctx context.Context, id, by string) (keys []string, entry *record.Entry, err error) {
	if by == "" {
		return []string{string(record.User) + id, string(record.Anonymous) + id}, nil, nil
	}
	i, err := p.identifier(by)
	if err != nil {
		return nil, nil, err
	}
	all, err := p.seek(ctx, i, []string{id})
	switch {
	case err != nil:
		return nil, nil, err
	case all[0].err != nil:
		return nil, nil, all[0].err
	case all[0].key == "":
		return nil, nil, nil
	}
	return []string{all[0].key}, &all[0].entry, nil
}

// one decodes the record that a question is about into rec, and returns its key,
// empty if there is no record. A tombstone is a record.
func (p *Service) one(ctx context.Context, rec *record.Record, id, by string) (key string, err error) {
	for range seekAttempts {
		keys, entry, err := p.candidates(ctx, id, by)
		if err != nil || len(keys) == 0 {
			return "", err
		}
		for range longestChain {
			records, err := p.store.Load(ctx, keys)
			if err != nil {
				return "", err
			}
			at := slices.IndexFunc(records, func(r store.Record) bool { return r.Version != store.Absent })
			if at < 0 {
				key = ""
				break
			}
			key = keys[at]
			if err := rec.Decode(p.def, key, records[at].Data); err != nil {
				return key, err
			}
			if link := rec.Link(); link != "" {
				keys, key = []string{link}, ""
				continue
			}
			break
		}
		if entry == nil || key != "" && rec.HasEntry(*entry) {
			return key, nil
		}
	}
	return "", nil
}
