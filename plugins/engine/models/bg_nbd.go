package models

import (
	"errors"
	"math"
	"time"
)

// BGNBD is the beta-geometric/NBD model of repeat buying (Fader, Hardie and Lee
// 2005). While a customer is alive, purchases come at random at the customer's
// own rate; after each the customer leaves for good with the customer's own
// probability. Rates vary among customers by a gamma distribution with shape R
// and rate Alpha, probabilities of leaving by a beta distribution with A and B.
type BGNBD struct {
	// Unit is the unit of time of Alpha, and of every time the model is asked
	// about.
	Unit           time.Duration
	R, Alpha, A, B float64

	From Origin
}

// Kind is bg_nbd.
func (*BGNBD) Kind() Kind { return KindBGNBD }

// Origin tells where the parameters come from.
func (m *BGNBD) Origin() Origin { return m.From }

// Validate tells the first parameter that is out of its range.
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

// LogLikelihood is the logarithm of the likelihood of one customer's history.
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
	left := math.Log(m.A) - math.Log(m.B+x-1) - s*math.Log(m.Alpha+h.Recency)
	return ll + logSum(alive, left)
}

// Alive is the probability that the customer has not left for good. Customers
// who never came back have not, as the model has it: one leaves after a
// purchase other than the first.
func (m *BGNBD) ProbabilityAlive(h Purchases) float64 {
	h = h.repaired()
	if h.Repeat == 0 {
		return 1
	}
	x := float64(h.Repeat)
	silence := math.Log1p((h.Age - h.Recency) / (m.Alpha + h.Recency))
	return 1 / (1 + math.Exp(math.Log(m.A/(m.B+x-1))+(m.R+x)*silence))
}

// ExpectedPurchases is how many purchases the customer is expected to make
// within the horizon from now, in time units. A customer of Age 0 without
// repeat purchases is one of whom nothing is known yet.
func (m *BGNBD) ExpectedPurchases(h Purchases, horizon float64) float64 {
	h = h.repaired()
	return m.ProbabilityAlive(h) * m.expectedAlive(h, between(horizon, maxTime))
}

// expectedAlive is the number expected of a customer who is alive.
//
// The textbook form is a difference that grows without bound as A approaches 1
// and that has to be patched where the third parameter of its hypergeometric
// function is not positive. Here the same number is a sum of positive terms
// only. Given the history, a customer who did not leave would make N purchases,
// N having a negative binomial distribution, and is still there after k of them
// with a probability that is a ratio of beta functions; so
//
//	E = sum over k = 0, 1, ... of P(N > k) * P(there after k).
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
	chance := math.Exp(-shape * log1u)  // of N = k
	more := -math.Expm1(-shape * log1u) // of N > k
	there := 1.0
	sum := 0.0
	for k := 0.0; more > 0 && k < 2*maxTerms; k++ {
		sum += more * there
		chance *= (shape + k) / (k + 1) * z
		more -= chance
		there *= (stay + k) / (m.A + stay + k)
		// What is left out is less than a geometric series of what is next.
		ratio := math.Max((shape+k+1)/(k+2), 1) * z
		if ratio < 1 && chance*ratio < 1e-16*sum*(1-ratio)*(1-ratio) {
			break
		}
	}
	return math.Min(sum, mean)
}

const (
	// maxTerms bounds the sum in expectedAlive: quadrature takes less time than
	// more terms do.
	maxTerms = 1500
	// maxExponent keeps the first term of the sum a normal number.
	maxExponent = 600
)

// expectedByQuadrature is the same number as an integral over the probability p
// of leaving, which has a beta distribution with a and stay:
//
//	E = E[(1 - (1 + p*u)^-shape) / p].
//
// It is taken over y, the logit of p, where the density has one peak and
// exponential tails, by the trapezoidal rule in v with y = peak + c*sinh(v).
// That rule converges exponentially for such functions. Dividing by the sum of
// the weights spares the beta function, whose terms would cancel.
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

// softplus is log(1 + e^y).
func softplus(y float64) float64 {
	if y > 0 {
		return y + math.Log1p(math.Exp(-y))
	}
	return math.Log1p(math.Exp(y))
}

// logSum is log(e^a + e^b).
func logSum(a, b float64) float64 {
	high, low := math.Max(a, b), math.Min(a, b)
	return high + math.Log1p(math.Exp(low-high))
}

func lgamma(v float64) float64 {
	l, _ := math.Lgamma(v)
	return l
}
