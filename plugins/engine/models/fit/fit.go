// Package fit estimates the parameters of the models of purchases and spend
// from customers' histories, by maximum likelihood.
package fit

import (
	"fmt"
	"math"
	"strconv"

	"gonum.org/v1/gonum/optimize"
)

// NotFittedError is why no parameters could be estimated.
type NotFittedError struct {
	// Reason is what is wrong with the histories, and what to do about it.
	Reason string
}

func (e *NotFittedError) Error() string { return e.Reason }

func notFitted(format string, args ...any) error {
	return &NotFittedError{Reason: fmt.Sprintf(format, args...)}
}

const (
	// flat is the most that the mean log-likelihood may still change by a small
	// relative change of a parameter at the optimum. Parameters are then known
	// to more digits than data ever determine.
	flat = 1e-7
	// same is how far apart two mean log-likelihoods of the same top can be.
	same = 1e-10
	// enough searches from different starts that come to the same top make the
	// others needless.
	enough = 2
	// digits is how many of them are kept.
	digits = 8
	// edge is how far, in powers of e, a parameter may be from that of a usual
	// customer base. Beyond it the likelihood goes on rising for ever.
	edge = 9
)

// Options change how parameters are estimated.
type Options struct {
	// Penalty keeps parameters that the data say little about near those of a
	// usual customer base. It multiplies the sum of the squared distances of
	// their logarithms, which is then subtracted from the mean log-likelihood.
	// Zero, the default, gives the estimates of maximum likelihood; with 0.001
	// there are estimates where the likelihood has no maximum, hardly different
	// from those where it has one.
	Penalty float64
}

// objective is the negative mean log-likelihood at the given logarithms of the
// parameters; if gradient is not nil it is filled.
type objective func(logs, gradient []float64) float64

// maximize finds the best parameters, given as logarithms, starting the search
// from each of starts, the first of which is the usual one. It tells whether
// they are the top of a hill; if not, they are where the search was given up.
func maximize(f objective, starts [][]float64, opts Options) (logs []float64, top bool) {
	f = opts.penalized(f, starts[0])
	problem := optimize.Problem{
		Func: func(x []float64) float64 { return f(x, nil) },
		Grad: func(gradient, x []float64) { f(x, gradient) },
	}
	var best []float64
	bestF, bestSlope := math.Inf(1), math.Inf(1)
	agree := 0 // how many searches came to the top of the hill that is the best
	for _, start := range starts {
		settings := &optimize.Settings{
			GradientThreshold: flat / 100,
			MajorIterations:   500,
			Concurrent:        1,
		}
		// An error of the line search near the optimum, where rounding decides,
		// is no failure: the gradient there tells.
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
		// Of two that are as good as each other, the flatter is nearer the top.
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

// penalized takes the penalty for the distance from usual off f.
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

// rounded keeps the digits of v that mean something.
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
