package models

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// naiveCLV is the documented sum.
func naiveCLV(c CLV, h Purchases, horizon float64) float64 {
	sum, before := 0.0, 0.0
	for i := 1; float64(i) < horizon+1; i++ {
		by := c.Purchases.ExpectedPurchases(h, math.Min(float64(i), horizon))
		sum += (by - before) / math.Pow(1+c.Discount, float64(i))
		before = by
	}
	return c.Margin * c.Spend.ExpectedSpend(h) * sum
}

func TestCLVIsTheDiscountedSum(t *testing.T) {
	h := Purchases{Repeat: 4, Recency: 30, Age: 38, MeanSpend: 40}
	for _, c := range []CLV{
		{cdnow, cdnowSpend, 0, 1},
		{cdnow, cdnowSpend, 0.002, 0.3},
		{cdnow, cdnowSpend, 1, 0.3},
	} {
		require.NoError(t, c.Validate())
		for _, horizon := range []float64{0, 0.4, 1, 1.5, 52, 519.9, 520} {
			require.InDelta(t, naiveCLV(c, h, horizon), c.Value(h, horizon), 1e-9, "%v", horizon)
		}
	}
	// Without a discount it is the margin on the expected spend.
	undiscounted := CLV{cdnow, cdnowSpend, 0, 1}
	require.InEpsilon(t, cdnow.ExpectedPurchases(h, 52)*cdnowSpend.ExpectedSpend(h), undiscounted.Value(h, 52), 1e-12)
	// Wider periods for a horizon beyond 520 units change little.
	require.InEpsilon(t, naiveCLV(CLV{cdnow, cdnowSpend, 0.001, 1}, h, 1040), CLV{cdnow, cdnowSpend, 0.001, 1}.Value(h, 1040), 0.002)
}

func TestCLVIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyPurchases().Draw(t, "purchases")
		c := CLV{
			Purchases: anyBGNBD().Draw(t, "bg_nbd"),
			Spend:     anyGammaGamma().Draw(t, "gamma_gamma"),
			Discount:  rapid.OneOf(decades(-6, 0), rapid.Just(0.0)).Draw(t, "discount"),
			Margin:    rapid.Float64Range(0.001, 1).Draw(t, "margin"),
		}
		horizon := rapid.OneOf(rapid.Float64Range(0, 20), rapid.SampledFrom([]float64{520, 521, 1e9, math.Inf(1)})).Draw(t, "horizon")
		value := c.Value(h, horizon)
		finite(t, "value", value)

		worth := c.Spend.ExpectedSpend(h) * c.Purchases.ExpectedPurchases(h, horizon)
		notAbove(t, "no more than is spent", value, c.Margin*worth)

		dearer := c
		dearer.Discount = math.Min(1, 2*c.Discount)
		notAbove(t, "a higher discount", dearer.Value(h, horizon), value)
		richer := c
		richer.Margin = 1
		notAbove(t, "a higher margin", value, richer.Value(h, horizon))
		if horizon < 500 {
			notAbove(t, "a longer horizon", value, c.Value(h, horizon+1))
		}
	})
}

func TestDiscountPerUnit(t *testing.T) {
	weekly := DiscountPerUnit(0.1, 7*day)
	require.InEpsilon(t, 1.1, math.Pow(1+weekly, 365.25/7), 1e-12)
	require.Zero(t, DiscountPerUnit(0, 7*day))
}

func TestCLVValidation(t *testing.T) {
	require.EqualError(t, CLV{Spend: cdnowSpend}.Validate(), "clv needs the parameters of a bg_nbd model")
	require.EqualError(t, CLV{Purchases: cdnow}.Validate(), "clv needs the parameters of a gamma_gamma model")
	require.EqualError(t, CLV{cdnow, cdnowSpend, -1, 1}.Validate(), "the discount rate must be a number from 0 to 1 for one time unit of 7d")
	require.EqualError(t, CLV{cdnow, cdnowSpend, math.NaN(), 1}.Validate(), "the discount rate must be a number from 0 to 1 for one time unit of 7d")
	require.EqualError(t, CLV{cdnow, cdnowSpend, 0.1, 30}.Validate(), "the margin must be a share above 0 and up to 1, such as 0.3")
}
