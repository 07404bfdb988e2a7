package expectations

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Partition is a distribution: the weights of values, or of the intervals
// between increasing bins. The weights add up to 1.
type Partition struct {
	Values  []any
	Bins    []float64
	Weights []float64
}

// tailWeight is the share of the expected distribution that is reserved for other
// values and for numbers outside the bins. Without it a single new value would
// have an infinite divergence.
const tailWeight = 0.01

// DefaultMinRows is the default of Spec.MinRows. The divergence of small samples
// is dominated by chance.
const DefaultMinRows = 100

// divergence computes the Kullback-Leibler divergence of a column's distribution
// from an expected one, in nats. It is 0 for equal distributions.
type divergence struct {
	counts
	expected []float64 // by class
	observed []int64
	classes  map[string]int // by value; the last class is for other values
	bins     []float64      // alternatively: classes below, between and above them
}

func newDivergence(s *Spec) (check, error) {
	p := &s.Partition
	if (len(p.Values) == 0) == (len(p.Bins) == 0) {
		return nil, errors.New("partition_object needs either values or bins, and weights; connect-personalize suggest-suite writes one from data")
	}
	if s.Threshold <= 0 {
		return nil, errors.New("it needs threshold, such as 0.1")
	}
	d := &divergence{counts: counts{spec: s}}
	if len(p.Values) > 0 {
		if len(p.Weights) != len(p.Values) {
			return nil, errors.New("partition_object needs as many weights as values")
		}
		d.classes = map[string]int{}
		for i, v := range p.Values {
			t, err := textOf(v)
			if err != nil {
				return nil, err
			}
			if _, duplicate := d.classes[t]; duplicate {
				return nil, errors.New("partition_object has a value twice")
			}
			d.classes[t] = i
		}
		d.expected = append(slices.Clone(p.Weights), 0)
	} else {
		if len(p.Bins) < 2 || len(p.Weights) != len(p.Bins)-1 {
			return nil, errors.New("partition_object needs one weight fewer than bins, and at least two bins")
		}
		for i := 1; i < len(p.Bins); i++ {
			if p.Bins[i] <= p.Bins[i-1] {
				return nil, errors.New("the bins of partition_object must rise")
			}
		}
		d.bins = p.Bins
		d.expected = append(append([]float64{0}, p.Weights...), 0)
	}
	sum := 0.0
	for _, w := range p.Weights {
		if w < 0 {
			return nil, errors.New("the weights of partition_object must not be negative")
		}
		sum += w
	}
	if math.Abs(sum-1) > 0.01 {
		return nil, fmt.Errorf("the weights of partition_object must add up to 1, and they add up to %.3f", sum)
	}
	// The tail weight is divided equally among all classes.
	for i := range d.expected {
		d.expected[i] = d.expected[i]/sum*(1-tailWeight) + tailWeight/float64(len(d.expected))
	}
	d.observed = make([]int64, len(d.expected))
	return d, nil
}

func (d *divergence) add(v event.Value) {
	if d.classes != nil {
		if !d.count(v) {
			return
		}
		class, known := d.classes[text(v)]
		if !known {
			class = len(d.expected) - 1
		}
		d.observed[class]++
		return
	}
	x, ok := d.number(v)
	if !ok {
		return
	}
	// An interval includes its lower edge, and the last one its upper edge too.
	class, exact := slices.BinarySearch(d.bins, x)
	if exact && class < len(d.bins)-1 {
		class++
	}
	d.observed[class]++
}

func (d *divergence) evaluate(r *Result, _ time.Time) {
	d.result(r)
	r.Success = true
	n := d.elements - d.missing
	least := int64(d.spec.MinRows)
	if least == 0 {
		least = DefaultMinRows
	}
	if n < least {
		r.Note = fmt.Sprintf("fewer than %d values are not evaluated", least)
		return
	}
	sum := 0.0
	for i, o := range d.observed {
		if o > 0 {
			p := float64(o) / float64(n)
			sum += p * math.Log(p/d.expected[i])
		}
	}
	r.Observed = sum
	r.Success = sum < d.spec.Threshold
}
