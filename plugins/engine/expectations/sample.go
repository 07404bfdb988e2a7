package expectations

import (
	"fmt"
	"math"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch"
)

const (
	// exactValues are kept one by one before a sketch takes over.
	exactValues = 10_000
	// accuracy is the relative error of a sketch's quantiles.
	accuracy = 0.01
	// maxBins bounds a sketch: beyond, the values nearest to zero lose accuracy.
	maxBins = 2048
)

// sample answers quantiles: exactly for few values, within accuracy for many.
type sample struct {
	values []float64
	sorted bool
	sketch *ddsketch.DDSketch
}

func (s *sample) add(x float64) {
	if s.sketch == nil && len(s.values) < exactValues {
		s.values = append(s.values, x)
		s.sorted = false
		return
	}
	if s.sketch == nil {
		// The arguments are constants that are fine.
		s.sketch, _ = ddsketch.LogCollapsingLowestDenseDDSketch(accuracy, maxBins)
		for _, v := range s.values {
			_ = s.sketch.Add(v)
		}
		s.values = nil
	}
	// What is beyond the range of the sketch is beyond that of any money.
	_ = s.sketch.Add(x)
}

func (s *sample) note() string {
	if s.sketch == nil {
		return ""
	}
	return fmt.Sprintf("quantiles of more than %d values are within %g%%", exactValues, 100*accuracy)
}

// quantile interpolates between the two values around it.
func (s *sample) quantile(q float64) (float64, bool) {
	if s.sketch != nil {
		x, err := s.sketch.GetValueAtQuantile(q)
		return x, err == nil
	}
	if len(s.values) == 0 {
		return 0, false
	}
	if !s.sorted {
		slices.Sort(s.values)
		s.sorted = true
	}
	at := q * float64(len(s.values)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(s.values)-1)
	return s.values[low] + (at-float64(low))*(s.values[high]-s.values[low]), true
}
