// Package fit estimates the parameters of the bg_nbd and gamma_gamma models from
// purchase histories, by maximum likelihood.
//
// The search minimises the negative mean log-likelihood over the logarithms of
// the parameters, which keeps them positive, by BFGS with the exact gradient.
// The likelihood can have several local maxima, so the search starts from
// several points and stops when two searches agree on the best maximum. A fit is
// rejected if the gradient at the result is not near zero, or if a parameter is
// more than a factor e^9 from its usual value: then the likelihood has no
// maximum, and the error names the likely cause in the data.
//
// Example:
//
//	var log fit.Transactions
//	log.Add("c1", day, 49.90)                   // for every purchase
//	customers := log.Observed(log.Last(), week) // repeat, recency, age, spend
//	m, err := fit.BGNBD(customers, week, fit.Options{})
package fit

import (
	"fmt"
	"math"
	"strconv"

	"gonum.org/v1/gonum/optimize"
)

// NotFittedError means that the parameters cannot be estimated.
type NotFittedError struct {
	// Reason describes the problem of the data and the correction.
	Reason string
}

func (e *NotFittedError) Error() string { return e.Reason }

func notFitted(format string, args ...any) error {
	return &NotFittedError{Reason: fmt.Sprintf(format, args...)}
}

const (
	// flat is the maximum gradient of the mean log-likelihood at an optimum. The
	// parameters then have more digits than data can determine.
	flat = 1e-7
	// same is the maximum difference between mean log-likelihoods of one optimum.
	same = 1e-10
	// enough is the number of searches from different starts that must reach the
	// same optimum.
	enough = 2
	// digits is the number of significant digits of parameters.
	digits = 8
	// edge is the maximum distance, in powers of e, of a parameter from its usual
	// value. Beyond it the likelihood increases without bound.
	edge = 9
)

// Options configures the estimation.
type Options struct {
	// Penalty is the weight of a regularisation term: the sum of the squared
	// distances of the parameters' logarithms from the usual ones is multiplied
	// by Penalty and subtracted from the mean log-likelihood. Zero, the default,
	// is plain maximum likelihood. With 0.001 there is an estimate even if the
	// likelihood has no maximum, and other estimates change very little.
	Penalty float64
}

// objective returns the negative mean log-likelihood at the given logarithms of
// the parameters, and fills gradient if it is not nil.
type objective func(logs, gradient []float64) float64

// maximize returns the logarithms of the best parameters. It searches from each
// of starts; the first has the usual parameters. isOptimum is false if no search
// reached an optimum.
func maximize(f objective, starts [][]float64, opts Options) (logs []float64, isOptimum bool) {
	f = opts.penalized(f, starts[0])
	problem := optimize.Problem{
		Func: func(x []float64) float64 { return f(x, nil) },
		Grad: func(gradient, x []float64) { f(x, gradient) },
	}
	var best []float64
	bestF, bestSlope := math.Inf(1), math.Inf(1)
	agree := 0 // number of searches that reached the best optimum
	for _, start := range starts {
		settings := &optimize.Settings{
			GradientThreshold: flat / 100,
			MajorIterations:   500,
			Concurrent:        1,
		}
		// The line search can fail near the optimum because of rounding. The
		// gradient decides whether the result is an optimum.
		result, _ := optimize.Minimize(problem, start, settings, &optimize.BFGS{})
		if result == nil || math.IsNaN(result.F) || math.IsInf(result.F, 0) {
			continue
		}
		gradient := make([]float64, len(start))
		f(result.X, gradient)
		slope := 0.0
		for _, g := range gradient {
			slope = math.Max(slope, math.Abs(g))
		}
		if slope <= flat {
			if result.F < bestF-same {
				agree = 0
			}
			if result.F < bestF+same {
				agree++
			}
		}
		// Of two equal results, the one with the smaller gradient is better.
		if result.F < bestF-same || result.F < bestF+same && slope < bestSlope {
			best, bestF, bestSlope = result.X, result.F, slope
		}
		if agree == enough {
			break
		}
	}
	if best == nil {
		return starts[0], false
	}
	return best, bestSlope <= flat
}

// penalized adds the regularisation term to f.
func (o Options) penalized(f objective, usual []float64) objective {
	if o.Penalty == 0 {
		return f
	}
	return func(logs, gradient []float64) float64 {
		v := f(logs, gradient)
		for i := range logs {
			distance := logs[i] - usual[i]
			v += o.Penalty * distance * distance
			if gradient != nil {
				gradient[i] += 2 * o.Penalty * distance
			}
		}
		return v
	}
}

// rounded rounds v to digits significant digits.
func rounded(v float64) float64 {
	v, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

func lgamma(v float64) float64 {
	l, _ := math.Lgamma(v)
	return l
}
