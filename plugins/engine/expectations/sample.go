package expectations

import (
	"fmt"
	"math"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch"
)

const (
	// exactValues is the number of values that are stored before they are replaced
	// by a sketch.
	exactValues = 10_000
	// accuracy is the relative error of the sketch's quantiles.
	accuracy = 0.01
	// maxBins bounds the sketch; beyond it the values nearest to zero lose
	// accuracy.
	maxBins = 2048
)

// sample computes quantiles of a set of numbers: exact for up to exactValues
// values, within accuracy for more.
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
		// These constant arguments are valid.
		s.sketch, _ = ddsketch.LogCollapsingLowestDenseDDSketch(accuracy, maxBins)
		for _, v := range s.values {
			_ = s.sketch.Add(v)
		}
		s.values = nil
	}
	// Values outside the range of the sketch are ignored; no amount is that large.
	_ = s.sketch.Add(x)
}

func (s *sample) note() string {
	if s.sketch == nil {
		return ""
	}
	return fmt.Sprintf("quantiles of more than %d values are within %g%%", exactValues, 100*accuracy)
}

// nearest returns the value at the position of a quantile, rounded to the nearest
// one and to an even one in the middle, as Great Expectations does with pandas.
func (s *sample) nearest(q float64) (float64, bool) {
	if s.sketch != nil || len(s.values) == 0 {
		return s.quantile(q)
	}
	n := float64(len(s.values) - 1)
	return s.quantile(math.RoundToEven(q*n) / max(n, 1))
}

// quantile returns a quantile, interpolated between the two nearest values.
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
	position := q * float64(len(s.values)-1)
	low := int(math.Floor(position))
	high := min(low+1, len(s.values)-1)
	return s.values[low] + (position-float64(low))*(s.values[high]-s.values[low]), true
}
