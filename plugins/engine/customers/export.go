package customers

import (
	"context"
	"errors"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// Export returns all stored data of a customer as the JSON of the result, for a
// data subject access request. id is an id or, with by, the value of an
// identifier.
func (p *Service) Export(ctx context.Context, id, by string) (Result, error) {
	var rec record.Record
	key, err := p.find(ctx, &rec, id, by)
	switch {
	case unreadable(err):
		return Result{Err: err}, nil
	case err != nil || key == "":
		return Result{}, err
	}
	result := Result{ID: record.KeyID(key), Anonymous: key[0] == record.Anonymous, Erased: rec.Erased()}
	if result.Erased {
		return result, nil
	}
	result.JSON, result.Err = rec.AppendExport(nil, key)
	result.Found = result.Err == nil
	return result, nil
}

// unreadable reports whether err is about the requested customer and not about
// the store.
func unreadable(err error) bool {
	return errors.Is(err, record.ErrCorrupt) || errors.Is(err, record.ErrVersion) || errors.Is(err, ErrAmbiguous)
}
