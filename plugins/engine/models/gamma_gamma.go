package models

import (
	"errors"
	"fmt"
	"math"
)

// GammaGamma is the gamma-gamma model of spend (Fader and Hardie 2013). The
// amounts of a customer's purchases have a gamma distribution with shape P around
// the customer's own mean; its rate has a gamma distribution among customers,
// with shape Q and rate Gamma. The model assumes that spend is independent of
// the purchase frequency.
type GammaGamma struct {
	P, Q, Gamma float64

	From Origin
}

var (
	spendShapes = limits{1e-6, 1e6}
	spendScales = limits{1e-6, 1e12}
)

// Kind returns KindGammaGamma.
func (*GammaGamma) Kind() Kind { return KindGammaGamma }

// Origin returns the origin of the parameters.
func (m *GammaGamma) Origin() Origin { return m.From }

// Validate returns an error for every parameter out of range.
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

// LogLikelihood returns the logarithm of the likelihood of one customer's mean
// spend; 0 for customers without repeat purchases or without spend, which carry
// no information.
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

// MeanSpend returns the mean value of a purchase over all customers.
func (m *GammaGamma) MeanSpend() float64 { return m.P * m.Gamma / (m.Q - 1) }

// ExpectedSpend returns the expected value of a purchase of the customer. It
// lies between the mean of all customers and the customer's own mean, and closer
// to the latter the more repeat purchases there are.
func (m *GammaGamma) ExpectedSpend(h Purchases) float64 {
	h = h.repaired()
	px := m.P * float64(h.Repeat)
	own := px / (px + m.Q - 1)
	return (1-own)*m.MeanSpend() + own*h.MeanSpend
}
