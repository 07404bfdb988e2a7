package models

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// CLV is the expected discounted value of a customer, from a model of purchases
// and a model of spend.
type CLV struct {
	Purchases *BGNBD
	Spend     *GammaGamma
	// Discount is the discount rate per time unit of Purchases, such as 0.002
	// per week; see DiscountPerUnit.
	Discount float64
	// Margin is the profit margin as a share of spend, from 0 to 1.
	Margin float64
}

// maxPeriods bounds the work of one CLV: ten years of weeks.
const maxPeriods = 520

// Validate returns an error if a model is missing or a parameter is out of range.
func (c CLV) Validate() error {
	switch {
	case c.Purchases == nil:
		return errors.New("clv needs the parameters of a bg_nbd model")
	case c.Spend == nil:
		return errors.New("clv needs the parameters of a gamma_gamma model")
	case !(c.Discount >= 0 && c.Discount <= 1):
		return fmt.Errorf("the discount rate must be a number from 0 to 1 for one time unit of %s", FormatUnit(c.Purchases.Unit))
	case !(c.Margin > 0 && c.Margin <= 1):
		return errors.New("the margin must be a share above 0 and up to 1, such as 0.3")
	}
	return errors.Join(c.Purchases.Validate(), c.Spend.Validate())
}

// Value returns the margin on the expected spend within the horizon from now, in
// time units. Each purchase is discounted from the end of its time unit:
//
//	Margin * E[spend] * sum over i of (E[purchases by i] - E[purchases by i-1]) / (1+Discount)^i
//
// The horizon may end inside the last time unit. A horizon of more than 520 time
// units is divided into 520 equal periods instead.
func (c CLV) Value(h Purchases, horizon float64) float64 {
	h = h.repaired()
	horizon = between(horizon, maxTime)
	if horizon == 0 {
		return 0
	}
	var purchases float64
	if c.Discount == 0 {
		purchases = c.Purchases.expectedAlive(h, horizon)
	} else {
		length := math.Max(1, horizon/maxPeriods)
		force := math.Log1p(c.Discount)
		before := 0.0
		for i := 1; ; i++ {
			end := float64(i) * length
			by := c.Purchases.expectedAlive(h, math.Min(end, horizon))
			purchases += (by - before) * math.Exp(-force*end)
			before = by
			// The tolerance prevents an empty period caused by rounding.
			if end >= horizon*(1-1e-12) {
				break
			}
		}
	}
	return c.Margin * c.Spend.ExpectedSpend(h) * c.Purchases.ProbabilityAlive(h) * math.Max(purchases, 0)
}

// DiscountPerUnit converts an annual discount rate, such as 0.1, to the rate per
// time unit.
func DiscountPerUnit(annual float64, unit time.Duration) float64 {
	const year = 365.25 * 24 * float64(time.Hour)
	return math.Expm1(math.Log1p(annual) * float64(unit) / year)
}
