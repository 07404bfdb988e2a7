package models

import (
	"errors"
	"fmt"
	"math"
)

// Propensity is a logistic score: the probability of something, from inputs
// that are features or traits of a customer.
type Propensity struct {
	Intercept float64
	Inputs    []Input

	From Origin
}

// Input is one input of a Propensity.
type Input struct {
	// Name is what the score asks its caller for.
	Name        string
	Coefficient float64
	// Center is subtracted from the input, and Scale divides the difference,
	// before the coefficient multiplies it.
	Center, Scale float64
	// Default takes the place of an input that is missing or not a number.
	Default float64
}

var (
	coefficients = limits{-1e9, 1e9}
	centers      = limits{-1e15, 1e15}
	scales       = limits{1e-9, 1e15}
)

// maxStandard bounds a centred and scaled input, so that one out of all
// proportion cannot make a sum that is no number.
const maxStandard = 1e90

// Kind is propensity.
func (*Propensity) Kind() Kind { return KindPropensity }

// Origin tells where the parameters come from.
func (m *Propensity) Origin() Origin { return m.From }

// Validate tells the first parameter that is out of its range.
func (m *Propensity) Validate() error {
	if err := coefficients.check("intercept", m.Intercept); err != nil {
		return err
	}
	if len(m.Inputs) == 0 {
		return errors.New("a propensity needs at least one input")
	}
	seen := make(map[string]struct{}, len(m.Inputs))
	for _, in := range m.Inputs {
		if _, double := seen[in.Name]; double {
			return fmt.Errorf("input %q is there twice", in.Name)
		}
		seen[in.Name] = struct{}{}
		if err := in.validate(); err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return nil
}

func (in *Input) validate() error {
	if in.Name == "" {
		return errors.New("needs a name, that of a feature")
	}
	return errors.Join(
		coefficients.check("coefficient", in.Coefficient),
		centers.check("center", in.Center),
		scales.check("scale", in.Scale),
		centers.check("default", in.Default),
	)
}

// Score is the probability, from 0 to 1. It asks inputs for the value of each
// input by name; false says that there is none.
func (m *Propensity) Score(inputs func(name string) (float64, bool)) float64 {
	logit := m.Intercept
	for i := range m.Inputs {
		in := &m.Inputs[i]
		v, ok := inputs(in.Name)
		if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
			v = in.Default
		}
		standard := (v - in.Center) / in.Scale
		logit += in.Coefficient * math.Max(-maxStandard, math.Min(maxStandard, standard))
	}
	if logit < 0 {
		e := math.Exp(logit)
		return e / (1 + e)
	}
	return 1 / (1 + math.Exp(-logit))
}
