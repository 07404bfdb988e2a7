package features

import (
	"slices"
	"strconv"
	"time"
)

// Counted tells which occurrences of its series count for a feature of events
// at a moment, in order of time, and whether events that are no longer kept one
// by one count as well. It is what Evaluate goes by.
func (f *Feature) CountedOccurrences(state *State, m Moment) (recent []Occurrence, folded bool) {
	window := f.Window.Milliseconds()
	for _, tile := range state.Tiles.list {
		folded = folded || tile.within(window, m.AsOf)
	}
	return within(state.Occurrences, window, m.AsOf), folded
}

// Reads names the values the feature reads of an event, in the order in which
// an occurrence has them: the path of the value, and that to split by.
func (f *Feature) ValuePaths() []string {
	var paths []string
	for _, path := range []string{f.ValuePath, f.GroupPath} {
		if path != "" && path != timestampPath {
			paths = append(paths, path)
		}
	}
	if len(f.Weights) > 0 {
		paths = append(paths, "weights")
	}
	return paths
}

// EventsOf names the events that belong to every one of some series, none if
// that may be any event.
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

// SeriesOf lists the series that an event, by what was extracted of it, belongs
// to.
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

// Span writes a time span as definitions do, such as 30d.
func FormatSpan(d time.Duration) string {
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if d >= unit.of && d%unit.of == 0 {
			return strconv.FormatInt(int64(d/unit.of), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}
