package fit

import (
	"cmp"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/mathext"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// BGNBD estimates the parameters of a models.BGNBD. unit is the time unit of the
// customers' histories.
func BGNBD(customers []Customer, unit time.Duration, opts Options) (*models.BGNBD, error) {
	g := group(customers)
	repeaters, meanAge := 0, 0.0
	for _, c := range customers {
		meanAge += c.Age / float64(len(customers))
		if c.Repeat > 0 {
			repeaters++
		}
	}
	switch {
	case len(customers) == 0:
		return nil, notFitted("there are no customers: bg_nbd needs their purchases")
	case repeaters == 0:
		return nil, notFitted("none of %d customers bought on a second day: bg_nbd needs returning customers; read a longer history, or check that the same customer has the same id in every transaction", len(customers))
	case meanAge == 0:
		return nil, notFitted("all %d customers bought only on the last day of observation: bg_nbd needs a longer history", len(customers))
	}

	// alpha depends on the unit of time, so its usual value is relative to the
	// mean age.
	starts := [][]float64{}
	for _, s := range [][4]float64{{0.25, 0.15, 0.8, 2.5}, {1, 1, 1, 1}, {1, 0.3, 0.5, 5}, {3, 1, 0.2, 10}, {0.1, 0.05, 2, 2}} {
		starts = append(starts, []float64{math.Log(s[0]), math.Log(s[1] * meanAge), math.Log(s[2]), math.Log(s[3])})
	}
	logs, isOptimum := maximize(g.objective, starts, opts)
	usual := []float64{0, math.Log(meanAge), 0, 0}
	for i, name := range []string{"r", "alpha", "a", "b"} {
		if math.Abs(logs[i]-usual[i]) > edge {
			return nil, notFitted("the likelihood of bg_nbd has no maximum for these %d customers, %d of them returning (%s diverges): %s", len(customers), repeaters, name, divergence[name])
		}
	}
	if !isOptimum {
		return nil, notFitted("the search for the maximum of the likelihood of bg_nbd did not converge for these %d customers, %d of them returning: look for a history that is too short for customers to return or to drop out, and for transactions that do not belong to individual customers", len(customers), repeaters)
	}
	m := &models.BGNBD{
		Unit:  unit,
		R:     rounded(math.Exp(logs[0])),
		Alpha: rounded(math.Exp(logs[1])),
		A:     rounded(math.Exp(logs[2])),
		B:     rounded(math.Exp(logs[3])),
		From:  models.Origin{Customers: len(customers)},
	}
	m.From.LogLikelihood = rounded(g.logLikelihood(m.R, m.Alpha, m.A, m.B, nil))
	return m, m.Validate()
}

// divergence has the likely cause and the correction for each parameter of
// bg_nbd without a finite estimate.
var divergence = map[string]string{
	"r":     "all customers buy at the same rate; check that a customer is one person, and a transaction one purchase, or set a penalty",
	"alpha": "all customers buy at the same rate, or very few return; check the ids, read a longer history, or set a penalty",
	"a":     "no customer drops out, or all are equally likely to; read a longer history, or set a penalty",
	"b":     "no customer drops out, or all are equally likely to; read a longer history, or set a penalty",
}

// histories are customers grouped by equal history. With times in whole days
// many customers have the same history.
type histories struct {
	groups []historyGroup
	total  float64
}

type historyGroup struct {
	repeat       int
	recency, age float64
	customers    float64
}

func group(customers []Customer) *histories {
	counts := make(map[historyGroup]float64, len(customers))
	for _, c := range customers {
		key := historyGroup{repeat: c.Repeat, age: c.Age}
		if c.Repeat > 0 {
			key.recency = c.Recency
		}
		counts[key]++
	}
	h := &histories{total: float64(len(customers))}
	for key, n := range counts {
		key.customers = n
		h.groups = append(h.groups, key)
	}
	// Sorted by repeat first, because logLikelihood shares terms between equal
	// values of repeat; the other keys make sums reproducible.
	slices.SortFunc(h.groups, func(a, b historyGroup) int {
		return cmp.Or(cmp.Compare(a.repeat, b.repeat), cmp.Compare(a.recency, b.recency), cmp.Compare(a.age, b.age))
	})
	return h
}

func (h *histories) objective(logs, gradient []float64) float64 {
	r, alpha, a, b := math.Exp(logs[0]), math.Exp(logs[1]), math.Exp(logs[2]), math.Exp(logs[3])
	ll := h.logLikelihood(r, alpha, a, b, gradient)
	for i, v := range []float64{r, alpha, a, b} {
		if gradient != nil {
			gradient[i] *= -v / h.total
		}
	}
	return -ll / h.total
}

// logLikelihood returns the log-likelihood of all customers. If gradient is not
// nil it is filled with the derivatives by r, alpha, a and b.
func (h *histories) logLikelihood(r, alpha, a, b float64, gradient []float64) float64 {
	var (
		sum                float64
		dr, dalpha, da, db float64

		base    = r*math.Log(alpha) - lgamma(r) + lgamma(a+b) - lgamma(b)
		repeat  = -1
		x       float64
		shared  float64 // terms that depend on x only
		logDrop float64 // log(a / (b+x-1))

		baseR, baseA, baseB       float64
		sharedR, sharedA, sharedB float64
	)
	if gradient != nil {
		baseR = math.Log(alpha) - mathext.Digamma(r)
		baseA = mathext.Digamma(a + b)
		baseB = baseA - mathext.Digamma(b)
	}
	for _, g := range h.groups {
		if g.repeat != repeat {
			repeat = g.repeat
			x = float64(repeat)
			shared = base + lgamma(r+x) + lgamma(b+x) - lgamma(a+b+x)
			logDrop = math.Log(a) - math.Log(b+x-1)
			if gradient != nil {
				both := mathext.Digamma(a + b + x)
				sharedR = baseR + mathext.Digamma(r+x)
				sharedA = baseA - both
				sharedB = baseB - both + mathext.Digamma(b+x)
			}
		}
		logAge := math.Log(alpha + g.age)
		alive, dropped := -(r+x)*logAge, math.Inf(-1)
		logRecency := 0.0
		if repeat > 0 {
			logRecency = math.Log(alpha + g.recency)
			dropped = logDrop - (r+x)*logRecency
		}
		high := math.Max(alive, dropped)
		either := high + math.Log1p(math.Exp(math.Min(alive, dropped)-high))
		sum += g.customers * (shared + either)
		if gradient == nil {
			continue
		}
		ifDropped := math.Exp(dropped - either)
		ifAlive := 1 - ifDropped
		dr += g.customers * (sharedR - ifAlive*logAge)
		dalpha += g.customers * (r/alpha - (r+x)*ifAlive/(alpha+g.age))
		da += g.customers * sharedA
		db += g.customers * sharedB
		if repeat > 0 {
			dr -= g.customers * ifDropped * logRecency
			dalpha -= g.customers * (r + x) * ifDropped / (alpha + g.recency)
			da += g.customers * ifDropped / a
			db -= g.customers * ifDropped / (b + x - 1)
		}
	}
	if gradient != nil {
		gradient[0], gradient[1], gradient[2], gradient[3] = dr, dalpha, da, db
	}
	return sum
}
