package record

import (
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Rendering is the profile that a record gives, along with what time does to
// it: until an event falls out of a window, or another counts that lies ahead,
// all that changes is as_of and the values that follow from the time alone. So
// the profile of every moment until then is known without looking at the record.
//
// There is none for customers with folded events, and none where a feature is a
// query or follows from one that moves.
type Rendering struct {
	json        []byte
	from, until int64 // it holds for from <= asOf < until
	asOfOffset  int
	moving      []moving // in order
	updatedAt   int64

	unstable bool // while it is made: it will not do
}

// moving is a value that moves: where in the JSON it is written and how it does.
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
	// Years of more digits make as_of longer.
	if err != nil || v.unstable || v.until <= asOf || len(json) < v.asOfOffset+timeLength || json[v.asOfOffset+timeLength] != '"' {
		return nil, err
	}
	v.json = append(make([]byte, 0, len(json)), json...)
	return v, nil
}

// Size is about how many bytes the rendering takes.
func (v *Rendering) Size() int { return len(v.json) + 80*len(v.moving) + 120 }

// UpdatedAt returns the latest receivedAt of the record, 0 for none.
func (v *Rendering) UpdatedAt() int64 { return v.updatedAt }

// AppendJSON appends the profile as of a moment, and tells whether the
// rendering holds then; if it does not, nothing is appended.
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

// endOfTime is the beginning of the year 10000, whose times are longer.
const endOfTime = 253402300800000
