package record

// Facts returns what a query over a customer reads, as encoding/json decodes
// it, as of a time in Unix milliseconds: an object of features, those at some
// positions of the definition, of all traits, and, if segments are asked for, of
// whether the customer is in each then.
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

// Segments returns whether the customer of a record is in each segment of the
// definition, in order, as of a time in Unix milliseconds. It is valid until the
// next use of the viewer.
func (w *Viewer) Segments(r *Record, asOf int64) ([]bool, error) {
	err := w.computeMembership(r, asOf, w.parametersOf(r.def.Segments))
	return w.membership, err
}
