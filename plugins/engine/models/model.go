// Package models holds the predictive models of customers: what they are, what
// they say of one customer, and the parameter files they are read from.
//
// BGNBD tells how many purchases to expect and whether a customer is still one,
// GammaGamma how much a purchase will be worth, CLV puts the two together, and
// Propensity is a logistic score over any features. Parameters come from files
// that a fitting pipeline writes (see the package fit) and that a File follows.
//
// Models are immutable once made and safe for concurrent use. Asking one does
// not allocate, and for whatever it is asked the answer is a finite number.
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
	// Kind is the name of the model.
	Kind() Kind
	// Origin tells where the parameters come from.
	Origin() Origin
	// Validate tells the first parameter that is out of its range.
	Validate() error
}

// Origin tells where parameters come from.
type Origin struct {
	// Version is a name that somebody gave the parameters, empty if nobody did.
	Version string
	// FittedAt is when they were estimated.
	FittedAt time.Time
	// ObservedUntil is the last day of the purchases they were estimated from,
	// zero if unknown.
	ObservedUntil time.Time
	// Customers is how many customers they were estimated from, zero if unknown.
	Customers int
	// LogLikelihood is that of the parameters, zero if unknown.
	LogLikelihood float64
}

// Purchases is what the models need to know of a customer's history. The first
// purchase made the customer one, and is not among those counted; purchases of
// one day are one purchase.
//
// What cannot be is taken for the nearest that can: a Recency beyond the Age
// for the Age, and negative numbers, or those that are none, for zero.
type Purchases struct {
	// Repeat is the number of purchases after the first.
	Repeat int
	// Recency is the time from the first purchase to the last, and Age that from
	// the first to now, in time units of the model.
	Recency, Age float64
	// MeanSpend is the mean value of the Repeat purchases.
	MeanSpend float64
}

const (
	// maxTime bounds ages and horizons: with it a product of times and shape
	// parameters stays a finite number.
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

// between brings v into the range from 0 to top, and makes 0 of what is not a
// number.
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

// shapes is the range of parameters that have no unit. Beyond it customers are
// all alike or all different, and the data cannot have said so.
var shapes = limits{1e-6, 1e6}
