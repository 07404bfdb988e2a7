package record

import (
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Rendering is a profile as JSON together with its changes over time. Until an
// event leaves a window, or a future event begins to count, only as_of and the
// values that depend on time alone change. The profile of every moment until
// then can therefore be written without the record.
//
// There is none for customers with folded events, and none if a feature is a
// query or is derived from a value that changes continuously.
type Rendering struct {
	json        []byte
	from, until int64 // valid for from <= asOf < until
	asOfOffset  int
	moving      []moving // ordered by begin
	updatedAt   int64

	unstable bool // set during Render: the profile has no rendering
}

// moving is a continuously changing value: its place in the JSON, and its
// motion.
type moving struct {
	begin, end int
	motion     features.Trajectory
}

// timeLength is the length of a time in a profile.
const timeLength = len("2026-01-31T08:30:00.000Z")

// Render returns the rendering of the whole profile from a moment on, nil if
// there is none.
func (w *Viewer) Render(r *Record, id string, asOf int64) (*Rendering, error) {
	if r.folded != never {
		return nil, nil
	}
	v := &Rendering{from: asOf, until: features.Forever, updatedAt: r.updatedAt}
	w.rendering = v
	json, err := w.AppendJSON(make([]byte, 0, 1024), r, id, asOf, &Everything)
	w.rendering = nil
	// A year with more than four digits makes as_of longer.
	if err != nil || v.unstable || v.until <= asOf || len(json) < v.asOfOffset+timeLength || json[v.asOfOffset+timeLength] != '"' {
		return nil, err
	}
	v.json = append(make([]byte, 0, len(json)), json...)
	return v, nil
}

// Size returns the approximate memory use in bytes.
func (v *Rendering) Size() int { return len(v.json) + 80*len(v.moving) + 120 }

// UpdatedAt returns the latest receivedAt of the record, 0 for none.
func (v *Rendering) UpdatedAt() int64 { return v.updatedAt }

// AppendJSON appends the profile as of a moment and reports whether the
// rendering is valid then; if not, it appends nothing.
func (v *Rendering) AppendJSON(dst []byte, asOf int64) ([]byte, bool) {
	if asOf < v.from || asOf >= v.until || asOf >= endOfTime {
		return dst, false
	}
	at := 0
	for i := range v.moving {
		m := &v.moving[i]
		dst = append(dst, v.json[at:m.begin]...)
		dst = features.AppendJSON(dst, m.motion.At(asOf))
		at = m.end
	}
	dst = append(dst, v.json[at:v.asOfOffset]...)
	dst = event.AppendTime(dst, asOf)
	return append(dst, v.json[v.asOfOffset+timeLength:]...), true
}

// endOfTime is the start of the year 10000, which has five digits.
const endOfTime = 253402300800000
