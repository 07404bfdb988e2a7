// Package models evaluates predictive models of customer behaviour, and parses
// and writes their parameter files.
//
// BGNBD predicts the number of purchases and the probability that a customer is
// still active, GammaGamma the value of a purchase, CLV combines the two, and
// Propensity is a logistic score over any features. Parameters come from files
// that a fitting pipeline writes (see package fit). File reloads such a file
// when it changes.
//
// Example: a customer bought on days 0, 14 and 35, and today is day 70. In weeks
// the history is Repeat 2, Recency 5, Age 10. With the parameters of the CDNOW
// sample in configs/retail/models,
//
//	m.ProbabilityAlive(h)      // the probability of a further purchase at all
//	m.ExpectedPurchases(h, 52) // purchases in the next year
//	s.ExpectedSpend(h)         // amount of each
//
// Models are immutable and safe for concurrent use. Evaluation does not
// allocate, and returns a finite number for every input.
package models

import (
	"fmt"
	"math"
	"time"
)

// Kind names a model in a parameter file.
type Kind string

// The kinds of model that have a parameter file.
const (
	KindBGNBD      Kind = "bg_nbd"
	KindGammaGamma Kind = "gamma_gamma"
	KindPropensity Kind = "propensity"
)

// Model is what a parameter file holds: a *BGNBD, *GammaGamma or *Propensity.
type Model interface {
	// Kind returns the name of the model.
	Kind() Kind
	// Origin returns the origin of the parameters.
	Origin() Origin
	// Validate returns an error for parameters out of range.
	Validate() error
}

// Origin describes the data and the time of an estimation.
type Origin struct {
	// Version is an optional name of the parameters.
	Version string
	// FittedAt is the time of the estimation.
	FittedAt time.Time
	// ObservedUntil is the last day of the purchases that were used, zero if
	// unknown.
	ObservedUntil time.Time
	// Customers is the number of customers that were used, zero if unknown.
	Customers int
	// LogLikelihood of the parameters, zero if unknown.
	LogLikelihood float64
}

// Purchases summarises a customer's purchase history. The first purchase is not
// counted as a repeat purchase; purchases of one day are one purchase.
//
// Impossible histories are replaced by the nearest possible one: a Recency
// greater than Age becomes Age, negative numbers and NaN become zero.
type Purchases struct {
	// Repeat is the number of purchases after the first.
	Repeat int
	// Recency is the time from the first purchase to the last, Age the time from
	// the first to now, in time units of the model.
	Recency, Age float64
	// MeanSpend is the mean value of the Repeat purchases.
	MeanSpend float64
}

const (
	// maxTime bounds ages and horizons, so that products of times and shape
	// parameters are finite.
	maxTime = 1e9
	// maxSpend bounds the value of a purchase.
	maxSpend = 1e15
)

func (h Purchases) repaired() Purchases {
	h.Repeat = max(h.Repeat, 0)
	h.Age = between(h.Age, maxTime)
	h.Recency = between(h.Recency, h.Age)
	h.MeanSpend = between(h.MeanSpend, maxSpend)
	return h
}

// between clamps v to the range from 0 to top; NaN becomes 0.
func between(v, top float64) float64 {
	if !(v > 0) {
		return 0
	}
	return math.Min(v, top)
}

// limits is the range of a parameter.
type limits struct{ low, high float64 }

func (l limits) check(name string, v float64) error {
	if v >= l.low && v <= l.high {
		return nil
	}
	return fmt.Errorf("%s must be a number from %s to %s", name, number(l.low), number(l.high))
}

// shapes is the range of parameters without a unit. Values outside mean that
// customers are identical or unrelated, which data cannot show.
var shapes = limits{1e-6, 1e6}
