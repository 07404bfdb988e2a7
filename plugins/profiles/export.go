package profiles

import (
	"context"

	"github.com/connect-personalize/connect-personalize/plugins/profile"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Export returns everything held of the customer that an id stands for, as the
// JSON of the result.
func (p *Profiles) Export(ctx context.Context, id string) (Result, error) {
	keys := []string{string(rune(profile.User)) + id, string(rune(profile.Anonymous)) + id}
	var rec profile.Record
	for range longestChain {
		records, err := p.store.Load(ctx, keys)
		if err != nil {
			return Result{}, err
		}
		at := 0
		for at < len(keys)-1 && records[at].Version == store.Absent {
			at++
		}
		key := keys[at]
		if records[at].Version == store.Absent {
			return Result{}, nil
		}
		if err := rec.Decode(p.def, key, records[at].Data); err != nil {
			return Result{Err: err}, nil
		}
		if link := rec.Link(); link != "" {
			keys = []string{link}
			continue
		}
		result := Result{ID: profile.KeyID(key), Anonymous: key[0] == profile.Anonymous, Erased: rec.Erased()}
		if result.Erased {
			return result, nil
		}
		result.JSON, result.Err = rec.AppendExport(nil, key)
		result.Found = result.Err == nil
		return result, nil
	}
	return Result{}, nil
}
