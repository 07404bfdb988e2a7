package models

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// cdnowSpend has the parameters published for the CDNOW sample, in dollars.
var cdnowSpend = &GammaGamma{P: 6.25, Q: 3.74, Gamma: 15.44}

func TestExpectedSpendLiesBetweenTheGlobalAndTheOwnMean(t *testing.T) {
	require.InEpsilon(t, 6.25*15.44/2.74, cdnowSpend.MeanSpend(), 1e-12)
	require.InEpsilon(t, 6.25*15.44/2.74, cdnowSpend.ExpectedSpend(Purchases{}), 1e-12)
	// A customer with two repeat purchases of 22.35 on average.
	require.InEpsilon(t, 6.25*(15.44+2*22.35)/(2*6.25+2.74), cdnowSpend.ExpectedSpend(Purchases{Repeat: 2, MeanSpend: 22.35}), 1e-12)
}

func TestExpectedSpendAgreesWithIntegration(t *testing.T) {
	// Given the scale v, the mean of x purchases has a gamma distribution with
	// shape p*x and rate v*x, and the customer's mean is p/v.
	m := cdnowSpend
	for _, h := range []Purchases{{Repeat: 1, MeanSpend: 5}, {Repeat: 3, MeanSpend: 40}, {Repeat: 30, MeanSpend: 300}} {
		x := float64(h.Repeat)
		var sum, weights float64
		top := (m.P*x + m.Q) * (math.Log((m.P*x+m.Q)/(m.Gamma+x*h.MeanSpend)) - 1)
		for y := -40.0; y < 10; y += 1e-3 {
			v := math.Exp(y)
			weight := math.Exp(m.Q*y - m.Gamma*v + m.P*x*y - v*x*h.MeanSpend - top)
			weights += weight
			sum += weight * m.P / v
		}
		require.InEpsilon(t, sum/weights, m.ExpectedSpend(h), 1e-9)
		// The likelihood is the sum of the weights, up to constants.
		likelihood := math.Log(weights*1e-3) + top + m.Q*math.Log(m.Gamma) - lgamma(m.Q) +
			m.P*x*math.Log(x) + (m.P*x-1)*math.Log(h.MeanSpend) - lgamma(m.P*x)
		require.InDelta(t, likelihood, m.LogLikelihood(h), 1e-9)
	}
	require.Zero(t, m.LogLikelihood(Purchases{}))
	require.Zero(t, m.LogLikelihood(Purchases{Repeat: 2}))
}

func anyGammaGamma() *rapid.Generator[*GammaGamma] {
	return rapid.Custom(func(t *rapid.T) *GammaGamma {
		return &GammaGamma{
			P:     decades(-5.9, 5.9).Draw(t, "p"),
			Q:     1 + decades(-5.5, 5.9).Draw(t, "q-1"),
			Gamma: decades(-5.9, 11.9).Draw(t, "gamma"),
		}
	})
}

func TestExpectedSpendIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, h := anyGammaGamma().Draw(t, "model"), anyPurchases().Draw(t, "purchases")
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		spend := m.ExpectedSpend(h)
		finite(t, "spend", spend)
		own := math.Min(h.MeanSpend, maxSpend)
		if h.Repeat == 0 {
			own = m.MeanSpend()
		}
		notAbove(t, "above both", spend, math.Max(own, m.MeanSpend()))
		notAbove(t, "below both", math.Min(own, m.MeanSpend()), spend)

		more := h
		more.MeanSpend *= rapid.Float64Range(1, 10).Draw(t, "more")
		notAbove(t, "who spent more will", spend, m.ExpectedSpend(more))
	})
}

func TestGammaGammaValidation(t *testing.T) {
	require.NoError(t, cdnowSpend.Validate())
	require.ErrorContains(t, (&GammaGamma{P: 1, Q: 1, Gamma: 1}).Validate(), "q must be a number above 1 and up to 1000000")
	require.ErrorContains(t, (&GammaGamma{P: 0, Q: 2, Gamma: 1}).Validate(), "p must be a number from")
	require.ErrorContains(t, (&GammaGamma{P: 1, Q: 2, Gamma: math.Inf(1)}).Validate(), "gamma must be a number from")
}
