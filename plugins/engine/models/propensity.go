package models

import (
	"errors"
	"fmt"
	"math"
)

// Propensity is a logistic score: the probability of an outcome, from features
// or traits of a customer.
type Propensity struct {
	Intercept float64
	Inputs    []Input

	From Origin
}

// Input is one input of a Propensity.
type Input struct {
	// Name is the name of the feature or trait.
	Name        string
	Coefficient float64
	// The standardised input is (value - Center) / Scale.
	Center, Scale float64
	// Default replaces an input that is missing or not a number.
	Default float64
}

var (
	coefficients = limits{-1e9, 1e9}
	centers      = limits{-1e15, 1e15}
	scales       = limits{1e-9, 1e15}
)

// maxStandard bounds a standardised input, so that the sum stays finite.
const maxStandard = 1e90

// Kind returns KindPropensity.
func (*Propensity) Kind() Kind { return KindPropensity }

// Origin returns the origin of the parameters.
func (m *Propensity) Origin() Origin { return m.From }

// Validate returns an error if an input is missing, duplicate or out of range.
func (m *Propensity) Validate() error {
	if err := coefficients.check("intercept", m.Intercept); err != nil {
		return err
	}
	if len(m.Inputs) == 0 {
		return errors.New("a propensity needs at least one input")
	}
	seen := make(map[string]struct{}, len(m.Inputs))
	for _, in := range m.Inputs {
		if _, duplicate := seen[in.Name]; duplicate {
			return fmt.Errorf("input %q occurs twice: remove one of them", in.Name)
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
		return errors.New("needs a name, the name of a feature or trait")
	}
	return errors.Join(
		coefficients.check("coefficient", in.Coefficient),
		centers.check("center", in.Center),
		scales.check("scale", in.Scale),
		centers.check("default", in.Default),
	)
}

// Score returns the probability, from 0 to 1. It calls inputs with the name of
// each input; false means that the input is missing.
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
