package features

import (
	"slices"
	"strconv"
	"time"
)

// CountedOccurrences returns the stored occurrences that count for a feature of
// events at a moment, sorted by time; folded reports whether tiles count too.
// Evaluate counts the same.
func (f *Feature) CountedOccurrences(state *State, m Moment) (recent []Occurrence, folded bool) {
	window := f.Window.Milliseconds()
	for _, tile := range state.Tiles.list {
		folded = folded || tile.within(window, m.AsOf)
	}
	return within(state.Occurrences, window, m.AsOf), folded
}

// ValuePaths returns the paths of the values that the feature reads of an event,
// in the order of an occurrence: the value, then the group.
func (f *Feature) ValuePaths() []string {
	var paths []string
	for _, path := range []string{f.ValuePath, f.GroupPath} {
		if path != "" && path != timestampPath {
			paths = append(paths, path)
		}
	}
	if len(paths) > 0 && f.ValuePath != "" {
		paths[0] += f.Amount.description()
	}
	if len(f.Weights) > 0 {
		paths = append(paths, "weights")
	}
	return paths
}

// EventsOf returns the event names that all of the given series select; empty
// means any event.
func (d *Definition) EventsOf(series []int) []string {
	var names []string
	for n, i := range series {
		if i >= len(d.Series) || len(d.Series[i].Events) == 0 {
			continue
		}
		if n == 0 || names == nil {
			names = slices.Clone(d.Series[i].Events)
			continue
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(d.Series[i].Events, name) })
	}
	return names
}

// SeriesOf returns the series that selected an event, from its extract.
func SeriesOf(extract []byte) []int {
	set, _, err := readBits(nil, extract)
	if err != nil {
		return nil
	}
	var list []int
	for i := range set.all() {
		list = append(list, i)
	}
	return list
}

// FormatSpan formats a time span as in a definition, such as 30d.
func FormatSpan(d time.Duration) string {
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if d >= unit.length && d%unit.length == 0 {
			return strconv.FormatInt(int64(d/unit.length), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}
