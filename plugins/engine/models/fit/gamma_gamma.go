package fit

import (
	"math"

	"gonum.org/v1/gonum/mathext"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// GammaGamma estimates the parameters of a models.GammaGamma from the customers
// with repeat purchases of a positive amount.
func GammaGamma(customers []Customer, opts Options) (*models.GammaGamma, error) {
	var s spenders
	mean, least, most := 0.0, math.Inf(1), 0.0
	for _, c := range customers {
		if c.Repeat > 0 && c.MeanSpend > 0 {
			s = append(s, spender{x: float64(c.Repeat), mean: c.MeanSpend})
			mean += c.MeanSpend
			least, most = math.Min(least, c.MeanSpend), math.Max(most, c.MeanSpend)
		}
	}
	if len(s) == 0 {
		return nil, notFitted("none of %d customers has repeat purchases with an amount: gamma_gamma needs them", len(customers))
	}
	if least == most {
		return nil, notFitted("all %d returning customers have the same mean spend: gamma_gamma needs amounts that vary", len(s))
	}
	mean /= float64(len(s))
	for i := range s {
		// gamma depends on the currency, so its usual value is relative to the
		// mean spend.
		s[i].mean /= mean
		s[i].logMean, s[i].logX = math.Log(s[i].mean), math.Log(s[i].x)
	}

	starts := [][]float64{}
	for _, start := range [][2]float64{{5, 4}, {1, 2}, {1, 10}, {20, 3}, {0.5, 1.5}} {
		p, q := start[0], start[1]
		starts = append(starts, []float64{math.Log(p), math.Log(q), math.Log((q - 1) / p)})
	}
	logs, isOptimum := maximize(s.objective, starts, opts)
	for i, name := range []string{"p", "q", "gamma"} {
		if math.Abs(logs[i]) > edge {
			return nil, notFitted("the likelihood of gamma_gamma has no maximum for these %d returning customers (%s diverges): %s", len(s), name, spendDivergence)
		}
	}
	if !isOptimum {
		return nil, notFitted("the search for the maximum of the likelihood of gamma_gamma did not converge for these %d returning customers: %s", len(s), spendDivergence)
	}
	if q := math.Exp(logs[1]); q <= 1 {
		return nil, notFitted("the estimate of gamma_gamma has q = %.3g, for which the mean spend of all customers is infinite: look for amounts in the wrong unit or currency, and for resellers among the customers", q)
	}
	m := &models.GammaGamma{
		P:     rounded(math.Exp(logs[0])),
		Q:     rounded(math.Exp(logs[1])),
		Gamma: rounded(math.Exp(logs[2]) * mean),
		From:  models.Origin{Customers: len(s)},
	}
	// The density of amounts, not of amounts relative to the mean spend.
	units := float64(len(s)) * math.Log(mean)
	m.From.LogLikelihood = rounded(s.logLikelihood(m.P, m.Q, m.Gamma/mean, nil) - units)
	return m, m.Validate()
}

const spendDivergence = "either all customers spend alike, or the purchases of one customer are unrelated; look for amounts in the wrong unit or currency, and for a single price of all products; or set a penalty"

type spender struct{ x, mean, logX, logMean float64 }

type spenders []spender

func (s spenders) objective(logs, gradient []float64) float64 {
	p, q, gamma := math.Exp(logs[0]), math.Exp(logs[1]), math.Exp(logs[2])
	ll := s.logLikelihood(p, q, gamma, gradient)
	n := float64(len(s))
	if gradient != nil {
		for i, v := range []float64{p, q, gamma} {
			gradient[i] *= -v / n
		}
	}
	return -ll / n
}

// logLikelihood returns the log-likelihood of all customers. If gradient is not
// nil it is filled with the derivatives by p, q and gamma.
func (s spenders) logLikelihood(p, q, gamma float64, gradient []float64) float64 {
	logGamma := math.Log(gamma)
	base := q*logGamma - lgamma(q)
	var sum, dp, dq, dgamma, digammaQ float64
	if gradient != nil {
		digammaQ = mathext.Digamma(q)
	}
	for _, c := range s {
		px := p * c.x
		logTotal := math.Log(gamma + c.x*c.mean)
		sum += base + lgamma(px+q) - lgamma(px) + (px-1)*c.logMean + px*c.logX - (px+q)*logTotal
		if gradient == nil {
			continue
		}
		both := mathext.Digamma(px + q)
		dp += c.x * (both - mathext.Digamma(px) + c.logMean + c.logX - logTotal)
		dq += both - digammaQ + logGamma - logTotal
		dgamma += q/gamma - (px+q)/(gamma+c.x*c.mean)
	}
	if gradient != nil {
		gradient[0], gradient[1], gradient[2] = dp, dq, dgamma
	}
	return sum
}
