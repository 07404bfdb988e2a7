package fit

import (
	"cmp"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/mathext"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// BGNBD estimates the parameters of a model.BGNBD from customers observed in
// time units of the given length.
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
		return nil, notFitted("none of %d customers bought on a second day: bg_nbd needs customers who came back; read a longer history, or check that the same customer has the same id in every transaction", len(customers))
	case meanAge == 0:
		return nil, notFitted("all of %d customers bought on the last day of observation only: bg_nbd needs a longer history", len(customers))
	}

	// The likelihood of alpha depends on the unit of time; that of alpha in
	// mean ages does not.
	starts := [][]float64{}
	for _, s := range [][4]float64{{0.25, 0.15, 0.8, 2.5}, {1, 1, 1, 1}, {1, 0.3, 0.5, 5}, {3, 1, 0.2, 10}, {0.1, 0.05, 2, 2}} {
		starts = append(starts, []float64{math.Log(s[0]), math.Log(s[1] * meanAge), math.Log(s[2]), math.Log(s[3])})
	}
	logs, top := maximize(g.objective, starts, opts)
	usual := []float64{0, math.Log(meanAge), 0, 0}
	for i, name := range []string{"r", "alpha", "a", "b"} {
		if math.Abs(logs[i]-usual[i]) > edge {
			return nil, notFitted("the likelihood of bg_nbd has no maximum for these %d customers, %d of whom came back (%s runs off): %s", len(customers), repeaters, name, runaway[name])
		}
	}
	if !top {
		return nil, notFitted("the search for the maximum of the likelihood of bg_nbd did not end for these %d customers, %d of whom came back: look for a history too short for customers to come back or to leave, and for transactions that are not those of individual customers", len(customers), repeaters)
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

// runaway says what it means that a parameter of bg_nbd has no best value.
var runaway = map[string]string{
	"r":     "customers all buy at the same rate; check that a customer is one person, and a transaction one purchase, or set a penalty",
	"alpha": "customers all buy at the same rate, or hardly any came back; check the ids, read a longer history, or set a penalty",
	"a":     "no customer seems to leave, or all are equally likely to; read a longer history, or set a penalty",
	"b":     "no customer seems to leave, or all are equally likely to; read a longer history, or set a penalty",
}

// histories are customers with their like counted once: where times are whole
// days, many are.
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
	// By repeat first, so that logLikelihood computes what depends on nothing
	// else once; the rest makes sums come out the same every time.
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

// logLikelihood is that of all customers. If gradient is not nil it is filled
// with the derivatives by r, alpha, a and b.
func (h *histories) logLikelihood(r, alpha, a, b float64, gradient []float64) float64 {
	var (
		sum                float64
		dr, dalpha, da, db float64

		base    = r*math.Log(alpha) - lgamma(r) + lgamma(a+b) - lgamma(b)
		repeat  = -1
		x       float64
		shared  float64 // what customers with the same x have in common
		logLeft float64 // log(a / (b+x-1))

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
			logLeft = math.Log(a) - math.Log(b+x-1)
			if gradient != nil {
				both := mathext.Digamma(a + b + x)
				sharedR = baseR + mathext.Digamma(r+x)
				sharedA = baseA - both
				sharedB = baseB - both + mathext.Digamma(b+x)
			}
		}
		logAge := math.Log(alpha + g.age)
		alive, left := -(r+x)*logAge, math.Inf(-1)
		logRecency := 0.0
		if repeat > 0 {
			logRecency = math.Log(alpha + g.recency)
			left = logLeft - (r+x)*logRecency
		}
		high := math.Max(alive, left)
		either := high + math.Log1p(math.Exp(math.Min(alive, left)-high))
		sum += g.customers * (shared + either)
		if gradient == nil {
			continue
		}
		ifLeft := math.Exp(left - either)
		ifAlive := 1 - ifLeft
		dr += g.customers * (sharedR - ifAlive*logAge)
		dalpha += g.customers * (r/alpha - (r+x)*ifAlive/(alpha+g.age))
		da += g.customers * sharedA
		db += g.customers * sharedB
		if repeat > 0 {
			dr -= g.customers * ifLeft * logRecency
			dalpha -= g.customers * (r + x) * ifLeft / (alpha + g.recency)
			da += g.customers * ifLeft / a
			db -= g.customers * ifLeft / (b + x - 1)
		}
	}
	if gradient != nil {
		gradient[0], gradient[1], gradient[2], gradient[3] = dr, dalpha, da, db
	}
	return sum
}
