package expectations

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Partition is a distribution: the weights of values, or of the intervals
// between increasing bins. The weights add up to 1.
type Partition struct {
	Values  []any
	Bins    []float64
	Weights []float64
}

// DefaultTailWeight is the default of Spec.TailWeight in a suite file. Great
// Expectations has 0: a single new value then has an infinite divergence.
const DefaultTailWeight = 0.01

// maxOthers is the maximum number of distinct values outside the expected
// distribution that are counted individually.
const maxOthers = 1 << 10

// DefaultMinRows is the default of Spec.MinRows. The divergence of small samples
// is dominated by chance.
const DefaultMinRows = 100

// divergence computes the Kullback-Leibler divergence of a column's distribution
// P from an expected one Q, in nats, as Great Expectations does:
//
//	sum over classes of P * log(P / Q)
//
// It is 0 for equal distributions. Classes of Q that do not occur add nothing; a
// class of P with Q = 0 makes it infinite.
//
//   - Values: if there are k distinct values outside Q, Q is scaled by 1 -
//     TailWeight, and each of them has the expected weight TailWeight/k.
//   - Bins: Q is scaled by 1 - TailWeight - InternalWeight, the numbers below and
//     above the bins have TailWeight/2 each, and bins of weight 0 share
//     InternalWeight.
//
// Example: Q is web 0.6, app 0.4, and of 100 values 50 are web, 40 app and 10
// till. With TailWeight 0.01 the expected weights are 0.594, 0.396 and 0.01, and
// the divergence is 0.5*log(0.5/0.594) + 0.4*log(0.4/0.396) + 0.1*log(0.1/0.01) =
// 0.148.
type divergence struct {
	counts
	expected []float64 // by class
	observed []int64
	classes  map[string]int   // by value
	others   map[uint64]int64 // number of occurrences of other values, by hash
	rest     int64            // occurrences of values beyond maxOthers
	bins     []float64        // alternatively: classes below, between and above them
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
		d.expected = slices.Clone(p.Weights)
		d.others = map[uint64]int64{}
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
	if !(s.TailWeight >= 0 && s.InternalWeight >= 0 && s.TailWeight+s.InternalWeight < 1) {
		return nil, errors.New("tail_weight_holdout and internal_weight_holdout must be shares from 0 and below 1 together, such as 0.01")
	}
	for i := range d.expected {
		d.expected[i] /= sum
	}
	if d.bins != nil {
		d.reserve(s)
	}
	d.observed = make([]int64, len(d.expected))
	return d, nil
}

// reserve assigns the reserved weights of a distribution of bins.
func (d *divergence) reserve(s *Spec) {
	inner := d.expected[1 : len(d.expected)-1]
	empty := 0
	for i, w := range inner {
		inner[i] = w * (1 - s.TailWeight - s.InternalWeight)
		if w == 0 {
			empty++
		}
	}
	for i, w := range inner {
		if w == 0 {
			inner[i] = s.InternalWeight / float64(empty)
		}
	}
	d.expected[0], d.expected[len(d.expected)-1] = s.TailWeight/2, s.TailWeight/2
}

func (d *divergence) add(v event.Value) {
	if d.classes != nil {
		if !d.count(v) {
			return
		}
		t := text(v)
		h := xxhash.Sum64String(t)
		if class, expected := d.classes[t]; expected {
			d.observed[class]++
		} else if _, known := d.others[h]; known || len(d.others) < maxOthers {
			d.others[h]++
		} else {
			d.rest++
		}
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
	defer d.checkType(r)
	d.result(r)
	r.Success = true
	n := d.elements - d.missing - d.texts
	least := int64(d.spec.MinRows)
	if least == 0 {
		least = DefaultMinRows
	}
	if n < least {
		r.Note = fmt.Sprintf("fewer than %d values are not evaluated", least)
		return
	}
	sum, total := 0.0, 0.0 // total is the sum of the expected weights
	add := func(observed int64, expected float64) {
		total += expected
		if observed > 0 {
			p := float64(observed) / float64(n)
			sum += p * math.Log(p/expected)
		}
	}
	others := len(d.others)
	if d.rest > 0 {
		others++
	}
	scale := 1.0
	if others > 0 {
		scale -= d.spec.TailWeight
	}
	for i, o := range d.observed {
		add(o, d.expected[i]*scale)
	}
	for _, h := range slices.Sorted(maps.Keys(d.others)) {
		add(d.others[h], d.spec.TailWeight/float64(others))
	}
	if d.rest > 0 {
		add(d.rest, d.spec.TailWeight/float64(others))
		r.Note = fmt.Sprintf("values beyond %d unexpected ones are counted as one value", maxOthers)
	}
	sum += math.Log(total)
	if math.IsInf(sum, 0) {
		r.Success = false
		r.Note = "the divergence is infinite: a value occurs that has the expected weight 0; raise tail_weight_holdout or internal_weight_holdout"
		return
	}
	r.Observed = sum
	r.Success = sum <= d.spec.Threshold
}
