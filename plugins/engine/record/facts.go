package record

// QueryDocument returns the input of a query about a customer as of a time in
// Unix milliseconds, in the types of encoding/json: the features at the given
// positions, all traits, and, if requested, the membership of each segment.
func (w *Viewer) QueryDocument(r *Record, asOf int64, features []int, segments bool) (map[string]any, error) {
	w.chosen = append(w.chosen[:0], features...)
	set := r.def.Segments
	segments = segments && set != nil
	if segments {
		w.chosen = append(w.chosen, set.Features...)
	}
	if err := w.prepare(r, asOf); err != nil {
		return nil, err
	}
	in := map[string]any{}
	if segments {
		if err := w.applyRules(r, w.parametersOf(set)); err != nil {
			return nil, err
		}
		for i := range w.membership {
			in[set.Segments[i].Name] = w.membership[i]
		}
	}
	values := make(map[string]any, len(features))
	for _, i := range features {
		values[r.def.Features.Features[i].Name] = w.value(i).result.Any()
	}
	return map[string]any{"features": values, "traits": w.Traits(), "segments": in}, nil
}

// Segments returns the membership of each segment of the definition, in order,
// as of a time in Unix milliseconds. The result is valid until the next use of
// the viewer.
func (w *Viewer) Segments(r *Record, asOf int64) ([]bool, error) {
	err := w.computeMembership(r, asOf, w.parametersOf(r.def.Segments))
	return w.membership, err
}
