package models

import (
	"errors"
	"math"
	"time"
)

// BGNBD is the beta-geometric/NBD model of repeat buying (Fader, Hardie and Lee
// 2005). An active customer buys at random times at the customer's own rate, and
// drops out for good after each repeat purchase with the customer's own
// probability. The rates have a gamma distribution among customers, with shape R
// and rate Alpha; the dropout probabilities have a beta distribution with A and
// B.
type BGNBD struct {
	// Unit is the unit of time of Alpha and of all arguments.
	Unit           time.Duration
	R, Alpha, A, B float64

	From Origin
}

// Kind returns KindBGNBD.
func (*BGNBD) Kind() Kind { return KindBGNBD }

// Origin returns the origin of the parameters.
func (m *BGNBD) Origin() Origin { return m.From }

// Validate returns an error for every parameter out of range.
func (m *BGNBD) Validate() error {
	if err := validUnit(m.Unit); err != nil {
		return err
	}
	return errors.Join(
		shapes.check("r", m.R),
		shapes.check("alpha", m.Alpha),
		shapes.check("a", m.A),
		shapes.check("b", m.B),
	)
}

// LogLikelihood returns the logarithm of the likelihood of one customer's
// history.
func (m *BGNBD) LogLikelihood(h Purchases) float64 {
	h = h.repaired()
	x := float64(h.Repeat)
	s := m.R + x
	ll := lgamma(s) - lgamma(m.R) + m.R*math.Log(m.Alpha) +
		lgamma(m.A+m.B) - lgamma(m.A+m.B+x) + lgamma(m.B+x) - lgamma(m.B)
	alive := -s * math.Log(m.Alpha+h.Age)
	if h.Repeat == 0 {
		return ll + alive
	}
	dropped := math.Log(m.A) - math.Log(m.B+x-1) - s*math.Log(m.Alpha+h.Recency)
	return ll + logSum(alive, dropped)
}

// ProbabilityAlive returns the probability that the customer has not dropped
// out. It is 1 without repeat purchases, because in this model a customer drops
// out only after a repeat purchase.
func (m *BGNBD) ProbabilityAlive(h Purchases) float64 {
	h = h.repaired()
	if h.Repeat == 0 {
		return 1
	}
	x := float64(h.Repeat)
	silence := math.Log1p((h.Age - h.Recency) / (m.Alpha + h.Recency))
	return 1 / (1 + math.Exp(math.Log(m.A/(m.B+x-1))+(m.R+x)*silence))
}

// ExpectedPurchases returns the expected number of purchases within the horizon
// from now, in time units. Age 0 without repeat purchases describes a new
// customer.
func (m *BGNBD) ExpectedPurchases(h Purchases, horizon float64) float64 {
	h = h.repaired()
	return m.ProbabilityAlive(h) * m.expectedAlive(h, between(horizon, maxTime))
}

// expectedAlive returns the expected number of purchases of an active customer.
//
// The published formula is a difference that diverges as A approaches 1, and its
// hypergeometric function needs a special case where the third parameter is not
// positive. The same number is a sum of positive terms: given the history, a
// customer who never drops out would make N purchases, with a negative binomial
// distribution of N, and is still active after k of them with a probability that
// is a ratio of beta functions. Therefore
//
//	E = sum over k = 0, 1, ... of P(N > k) * P(active after k).
func (m *BGNBD) expectedAlive(h Purchases, horizon float64) float64 {
	x := float64(h.Repeat)
	shape, stay := m.R+x, m.B+x
	u := horizon / (m.Alpha + h.Age)
	if u == 0 {
		return 0
	}
	mean := shape * u
	log1u := math.Log1p(u)
	terms := mean + 10*math.Sqrt(mean*(1+u)) + 40*(1+u)
	if terms > maxTerms || shape*log1u > maxExponent {
		return math.Min(expectedByQuadrature(m.A, stay, shape, u), mean)
	}

	z := u / (1 + u)
	equal := math.Exp(-shape * log1u)      // P(N = k)
	greater := -math.Expm1(-shape * log1u) // P(N > k)
	active := 1.0                          // P(active after k)
	sum := 0.0
	for k := 0.0; greater > 0 && k < 2*maxTerms; k++ {
		sum += greater * active
		equal *= (shape + k) / (k + 1) * z
		greater -= equal
		active *= (stay + k) / (m.A + stay + k)
		// A geometric series bounds the remaining terms.
		ratio := math.Max((shape+k+1)/(k+2), 1) * z
		if ratio < 1 && equal*ratio < 1e-16*sum*(1-ratio)*(1-ratio) {
			break
		}
	}
	return math.Min(sum, mean)
}

const (
	// maxTerms bounds the sum in expectedAlive: beyond it quadrature is faster.
	maxTerms = 1500
	// maxExponent prevents underflow of the first term of the sum.
	maxExponent = 600
)

// expectedByQuadrature returns the same number as expectedAlive, as an integral
// over the dropout probability p, which has a beta distribution with a and stay:
//
//	E = E[(1 - (1 + p*u)^-shape) / p].
//
// The variable of integration is y, the logit of p: the density over y has one
// peak and exponential tails. The trapezoidal rule in v with y = peak + c*sinh(v)
// converges exponentially for such functions. Division by the sum of the weights
// replaces the beta function and avoids the cancellation of its terms.
func expectedByQuadrature(a, stay, shape, u float64) float64 {
	const step = 1.0 / 16
	peak := math.Log(a / stay)
	c := math.Min(math.Sqrt(1/a+1/stay), 1.5)
	top := -a*math.Log1p(stay/a) - stay*math.Log1p(a/stay)

	var weights, sum float64
	add := func(v float64) (negligible bool) {
		e := math.Exp(v)
		y := peak + c*(e-1/e)/2
		logWeight := -a*softplus(-y) - stay*softplus(y) - top
		weight := math.Exp(logWeight) * (e + 1/e)
		p := 1 / (1 + math.Exp(-y))
		expected := shape * u // the limit for small p
		if p*u > 1e-300 {
			expected = -math.Expm1(-shape*math.Log1p(p*u)) / p
		}
		weights += weight
		sum += weight * expected
		return logWeight < -45
	}
	add(0)
	for _, side := range [...]float64{-step, step} {
		for i := 1.0; i < 1000 && !add(side*i); i++ {
		}
	}
	return sum / weights
}

// softplus returns log(1 + e^y).
func softplus(y float64) float64 {
	if y > 0 {
		return y + math.Log1p(math.Exp(-y))
	}
	return math.Log1p(math.Exp(y))
}

// logSum returns log(e^a + e^b).
func logSum(a, b float64) float64 {
	high, low := math.Max(a, b), math.Min(a, b)
	return high + math.Log1p(math.Exp(low-high))
}

func lgamma(v float64) float64 {
	l, _ := math.Lgamma(v)
	return l
}
