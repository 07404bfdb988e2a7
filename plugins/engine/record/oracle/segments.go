package oracle

// Segment is a rule in the oracle's form, over the values of features and the
// membership of earlier segments.
type Segment struct {
	Name string
	In   func(features map[string]any, segments map[string]bool) bool
}

// Members returns the segments of a customer with a history as of a time in
// Unix milliseconds.
func Members(segments []Segment, features []Feature, history []Event, asOf int64) map[string]bool {
	values := map[string]any{}
	for _, f := range features {
		values[f.Name] = Evaluate(f, history, asOf)
	}
	in := map[string]bool{}
	for _, s := range segments {
		if s.In(values, in) {
			in[s.Name] = true
		}
	}
	return in
}
