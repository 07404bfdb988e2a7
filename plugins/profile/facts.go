package profile

// Facts returns what a query over a customer reads, as encoding/json decodes
// it, as of a time in Unix milliseconds: an object of features, those at some
// positions of the definition, and of all traits and segments.
func (w *Viewer) Facts(r *Record, asOf int64, features []int) (map[string]any, error) {
	w.chosen = append(w.chosen[:0], features...)
	if err := w.prepare(r, asOf); err != nil {
		return nil, err
	}
	values := make(map[string]any, len(features))
	for _, i := range features {
		values[r.def.Features.Features[i].Name] = w.value(i).result.Any()
	}
	segments := make(map[string]any, len(r.members))
	for _, m := range r.members {
		segments[string(m.name)] = true
	}
	return map[string]any{"features": values, "traits": w.Traits(), "segments": segments}, nil
}
