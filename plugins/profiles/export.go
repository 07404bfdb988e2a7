package profiles

import (
	"context"
	"errors"

	"github.com/connect-personalize/connect-personalize/plugins/profile"
)

// Export returns everything held of the customer that an id, or with by the
// value of an identifier, stands for, as the JSON of the result.
func (p *Profiles) Export(ctx context.Context, id, by string) (Result, error) {
	var rec profile.Record
	key, err := p.one(ctx, &rec, id, by)
	switch {
	case unreadable(err):
		return Result{Err: err}, nil
	case err != nil || key == "":
		return Result{}, err
	}
	result := Result{ID: profile.KeyID(key), Anonymous: key[0] == profile.Anonymous, Erased: rec.Erased()}
	if result.Erased {
		return result, nil
	}
	result.JSON, result.Err = rec.AppendExport(nil, key)
	result.Found = result.Err == nil
	return result, nil
}

// unreadable tells an error of what was asked for from one of the store.
func unreadable(err error) bool {
	return errors.Is(err, profile.ErrCorrupt) || errors.Is(err, profile.ErrVersion) || errors.Is(err, ErrAmbiguous)
}
