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

// UnknownIdentifierError is the error for an identifier that is not declared.
type UnknownIdentifierError struct {
	Name string
	// Declared are the declared identifiers.
	Declared []string
}

func (e *UnknownIdentifierError) Error() string {
	if len(e.Declared) == 0 {
		return "customers can be read by id only: the profile definition has no identifiers"
	}
	return fmt.Sprintf("there is no identifier %q%s; there are %s", e.Name, spelling.Hint(e.Name, e.Declared), strings.Join(e.Declared, ", "))
}

// ErrAmbiguous is the result of a read by a value that several customers share.
var ErrAmbiguous = errors.New("several customers have this value")

// Identifiers returns the names of the declared identifiers, in order.
func (p *Service) Identifiers() []string { return p.def.Identifiers.Names() }

func (p *Service) identifier(name string) (*record.Identifier, error) {
	if i := p.def.Identifiers.Lookup(name); i != nil {
		return i, nil
	}
	return nil, &UnknownIdentifierError{name, p.Identifiers()}
}

// lookup is a value of an identifier and the customer that has it.
type lookup struct {
	entry record.Entry // the index entry that the customer's record has
	key   string       // empty if no customer has the value
	err   error        // ErrAmbiguous
}

// lookup finds the customers that have values of an identifier. An index entry may
// be removed before the record is read, so the caller must check that the record
// has the entry.
func (p *Service) lookup(ctx context.Context, by *record.Identifier, values []string) ([]lookup, error) {
	all := make([]lookup, len(values))
	normalised := make([]string, 0, len(values))
	positions := make([]int, 0, len(values))
	for i, value := range values {
		all[i].entry = record.Entry{Index: by.Index(), Value: by.Normalise(value)}
		if all[i].entry.Value != "" {
			normalised, positions = append(normalised, all[i].entry.Value), append(positions, i)
		}
	}
	if len(normalised) == 0 {
		return all, nil
	}
	found, err := p.store.Lookup(ctx, by.Index(), normalised, 2)
	if err != nil {
		return nil, err
	}
	for n, keys := range found {
		switch l := &all[positions[n]]; len(keys) {
		case 0:
		case 1:
			l.key = keys[0]
		default:
			l.err = ErrAmbiguous
		}
	}
	return all, nil
}

// lookupAttempts is the number of lookups of a value while records that are found
// no longer have it.
const lookupAttempts = 3

// readBy reads the profiles of the customers that have values of an identifier, in
// the order of the values.
func (p *Service) readBy(ctx context.Context, load cache.Loader, by *record.Identifier, values []string, asOf int64, sel *record.Selection) ([]Result, error) {
	results := make([]Result, len(values))
	left := make([]int, len(values)) // positions to read
	for i := range left {
		left[i] = i
	}
	for range lookupAttempts {
		wanted := make([]string, len(left))
		for n, i := range left {
			wanted[n] = values[i]
		}
		all, err := p.lookup(ctx, by, wanted)
		if err != nil {
			return nil, err
		}
		var keys []string
		var positions []int // of keys in left
		for n := range all {
			if results[left[n]].Err = all[n].err; all[n].key != "" {
				keys, positions = append(keys, all[n].key), append(positions, n)
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
			result := &results[left[positions[n]]]
			if stale[n] = records[n].Version == store.Absent; stale[n] {
				return
			}
			if result.Err = rd.rec.Decode(p.def, keys[n], records[n].Data); result.Err != nil {
				return
			}
			if stale[n] = !rd.rec.HasEntry(all[positions[n]].entry); stale[n] {
				return
			}
			rd.reserve()
			p.render(rd, result, keys[n], asOf, sel)
			rd.advance(result.JSON)
		})
		var again []int
		for n, i := range positions {
			if stale[n] {
				again = append(again, left[i])
			}
		}
		if left = again; len(left) == 0 {
			break
		}
		// A record from a cache or a replica may be older than the index.
		load = p.store.Load
	}
	return results, nil
}

// candidates returns the keys that an id may stand for, in order of preference.
// With an identifier, it returns the key that has the value, if any, and the index
// entry that its record must have.
func (p *Service) candidates(ctx context.Context, id, by string) (keys []string, entry *record.Entry, err error) {
	if by == "" {
		return []string{string(record.User) + id, string(record.Anonymous) + id}, nil, nil
	}
	i, err := p.identifier(by)
	if err != nil {
		return nil, nil, err
	}
	all, err := p.lookup(ctx, i, []string{id})
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

// find decodes the record of an id, or with by of the value of an identifier, into
// rec, and returns its key. The key is empty if there is no record; a tombstone is
// a record.
func (p *Service) find(ctx context.Context, rec *record.Record, id, by string) (key string, err error) {
	for range lookupAttempts {
		keys, entry, err := p.candidates(ctx, id, by)
		if err != nil || len(keys) == 0 {
			return "", err
		}
		for range longestChain {
			records, err := p.store.Load(ctx, keys)
			if err != nil {
				return "", err
			}
			found := slices.IndexFunc(records, func(r store.Record) bool { return r.Version != store.Absent })
			if found < 0 {
				key = ""
				break
			}
			key = keys[found]
			if err := rec.Decode(p.def, key, records[found].Data); err != nil {
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
