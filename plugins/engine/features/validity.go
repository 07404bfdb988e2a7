package features

import (
	"math"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Validity describes how the value of a feature of events changes with time
// while no event arrives. A cache uses it to serve a value without evaluating
// the feature again.
//
// Example: a count in 30d with its oldest order at day 5 is constant until day
// 35; time_since_last grows linearly and has no end; a decayed sum halves with
// every half-life until a value leaves its window.
type Validity struct {
	// Until is the earliest time, in Unix milliseconds, at which the value may
	// differ from Trajectory.
	Until int64
	// Trajectory is the value as a function of time until then.
	Trajectory Trajectory
	// Known is false if the validity cannot be determined.
	Known bool
}

// Forever is later than every time.
const Forever = math.MaxInt64

// Trajectory is a value that depends only on the time. The zero Trajectory is
// constant.
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

// Varies reports whether the value changes with time.
func (m Trajectory) Varies() bool { return m.varies }

// At returns the value at a time in Unix milliseconds. The trajectory must vary.
func (m Trajectory) At(asOf int64) event.Value { return number(m.number(asOf)) }

func (m Trajectory) number(asOf int64) float64 {
	if m.elapsed {
		return float64(asOf-m.since) / m.unit
	}
	return m.sum * halved(asOf-m.since, m.halfLife)
}

// Validity returns the validity of the value that Evaluate returned last, for
// the same feature, state and moment.
func (e *Evaluator) Validity(f *Feature, state *State, m Moment) Validity {
	if !state.Tiles.Empty() || e.trajectory.varies && f.GroupPath != "" {
		return Validity{}
	}
	o := Validity{Until: Forever, Trajectory: e.trajectory, Known: true}
	window := f.Window.Milliseconds()
	all := state.Occurrences
	counted := within(all, window, m.AsOf)
	// The value changes when the first future occurrence starts to count, and
	// when the oldest counted one leaves the window.
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

// DependsOnInputsOnly reports whether a derived feature is constant while its
// inputs are. An expression may use the current time or a random number.
func (f *Feature) DependsOnInputsOnly() bool { return f.Kind != Expression }
