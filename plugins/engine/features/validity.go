package features

import (
	"math"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Validity tells what becomes of the value of a feature of events as time goes
// by and no event arrives.
type Validity struct {
	// Until is the first moment, in Unix milliseconds, from which the value may
	// be another than Trajectory says.
	Until int64
	// Trajectory is how it varies until then.
	Trajectory Trajectory
	// Known is false for values nothing can be said of.
	Known bool
}

// Forever is after every moment.
const Forever = math.MaxInt64

// Trajectory is a value that follows from the time alone. The zero Trajectory stands
// still.
type Trajectory struct {
	// elapsed divides the time since by unit; otherwise sum has halved since by
	// halfLife.
	elapsed  bool
	since    int64
	unit     float64
	sum      float64
	halfLife int64
	varies   bool
}

// Varies tells whether the value differs from moment to moment.
func (m Trajectory) Varies() bool { return m.varies }

// At returns the value at a moment.
func (m Trajectory) At(asOf int64) event.Value {
	if m.elapsed {
		return number(float64(asOf-m.since) / m.unit)
	}
	return number(m.sum * halved(asOf-m.since, m.halfLife))
}

// Validity returns what becomes of the value that Evaluate has just returned for
// the same feature, state and moment.
func (e *Evaluator) Validity(f *Feature, state *State, m Moment) Validity {
	if !state.Tiles.Empty() || e.trajectory.varies && f.GroupPath != "" {
		return Validity{}
	}
	o := Validity{Until: Forever, Trajectory: e.trajectory, Known: true}
	window := f.Window.Milliseconds()
	all := state.Occurrences
	counted := within(all, window, m.AsOf)
	// The next to be counted is the first that lies ahead, the next to fall out
	// of the window the oldest.
	if n := len(all); n > 0 && all[n-1].Time > m.AsOf {
		o.Until = all[len(within(all, 0, m.AsOf))].Time
	}
	if len(counted) > 0 && window > 0 {
		o.Until = min(o.Until, counted[0].Time+window)
	}
	if f.Kind == Purchases {
		o.Until = min(o.Until, (floorDiv(m.AsOf, millisPerDay)+1)*millisPerDay)
	}
	return o
}

// Lasting tells whether a derived feature stays what it is while those it is
// computed from do. A query may ask for the time, or for a random number.
func (f *Feature) DependsOnInputsOnly() bool { return f.Kind != Expression }
