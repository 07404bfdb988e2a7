package models

import (
	"errors"
	"fmt"
	"math"
)

// GammaGamma is the gamma-gamma model of spend (Fader and Hardie 2013). The
// value of a customer's purchases varies around the customer's own mean by a
// gamma distribution with shape P; its scale varies among customers by a gamma
// distribution with shape Q and rate Gamma. Spend is taken to be independent of
// how often a customer buys.
type GammaGamma struct {
	P, Q, Gamma float64

	From Origin
}

var (
	spendShapes = limits{1e-6, 1e6}
	spendScales = limits{1e-6, 1e12}
)

// Kind is gamma_gamma.
func (*GammaGamma) Kind() Kind { return KindGammaGamma }

// Origin tells where the parameters come from.
func (m *GammaGamma) Origin() Origin { return m.From }

// Validate tells the first parameter that is out of its range.
func (m *GammaGamma) Validate() error {
	return errors.Join(
		spendShapes.check("p", m.P),
		checkQ("q", m.Q),
		spendScales.check("gamma", m.Gamma),
	)
}

func checkQ(name string, q float64) error {
	if q > 1+1e-6 && q <= spendShapes.high {
		return nil
	}
	return fmt.Errorf("%s must be a number above 1 and up to %s: at or below 1 the mean spend of all customers is infinite", name, number(spendShapes.high))
}

// LogLikelihood is the logarithm of the likelihood of one customer's mean
// spend, and 0 for customers that say nothing: those without repeat purchases,
// or without spend.
func (m *GammaGamma) LogLikelihood(h Purchases) float64 {
	h = h.repaired()
	if h.Repeat == 0 || h.MeanSpend == 0 {
		return 0
	}
	x := float64(h.Repeat)
	px := m.P * x
	return lgamma(px+m.Q) - lgamma(px) - lgamma(m.Q) +
		m.Q*math.Log(m.Gamma) + (px-1)*math.Log(h.MeanSpend) + px*math.Log(x) -
		(px+m.Q)*math.Log(m.Gamma+x*h.MeanSpend)
}

// MeanSpend is the mean value of a purchase over all customers.
func (m *GammaGamma) MeanSpend() float64 { return m.P * m.Gamma / (m.Q - 1) }

// ExpectedSpend is the expected value of a purchase of the customer: between
// the mean of all customers and the customer's own, the nearer to the latter
// the more purchases there were.
func (m *GammaGamma) ExpectedSpend(h Purchases) float64 {
	h = h.repaired()
	px := m.P * float64(h.Repeat)
	own := px / (px + m.Q - 1)
	return (1-own)*m.MeanSpend() + own*h.MeanSpend
}
