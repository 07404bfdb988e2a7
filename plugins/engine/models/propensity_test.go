package models

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestScoreStandardisesInputsAndUsesDefaults(t *testing.T) {
	loaded, err := Load("testdata/propensity.yaml")
	require.NoError(t, err)
	m := loaded.(*Propensity)
	score := func(values map[string]float64) float64 {
		return m.Score(func(name string) (float64, bool) {
			v, ok := values[name]
			return v, ok
		})
	}
	logistic := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }

	require.InEpsilon(t, logistic(-2.1+0.8*(3-1.4)/2-0.5*(10-40)/30.0+0.3*4),
		score(map[string]float64{"orders_90d": 3, "days_since_order": 10, "emails_opened_30d": 4}), 1e-12)
	missing := logistic(-2.1 + 0.8*(0-1.4)/2 - 0.5*(365-40)/30.0)
	require.InEpsilon(t, missing, score(nil), 1e-12)
	require.InEpsilon(t, missing, score(map[string]float64{
		"orders_90d": math.NaN(), "days_since_order": math.Inf(1), "emails_opened_30d": math.Inf(-1),
	}), 1e-12, "what is no number is missing")
}

func TestScoreIsAProbabilityForEveryInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, ok := anyModel().Filter(func(m Model) bool { return m.Kind() == KindPropensity }).Draw(t, "model").(*Propensity)
		if !ok || m.Validate() != nil {
			t.Fatal("not a valid propensity")
		}
		value := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.MaxFloat64, -math.MaxFloat64, math.Inf(1), math.NaN()})).Draw(t, "value")
		score := m.Score(func(string) (float64, bool) { return value, true })
		finite(t, "score", score)
		notAbove(t, "a probability", score, 1)
	})
}

func TestPropensityValidation(t *testing.T) {
	in := Input{Name: "x", Coefficient: 1, Scale: 1}
	require.NoError(t, (&Propensity{Inputs: []Input{in}}).Validate())
	require.EqualError(t, (&Propensity{}).Validate(), "a propensity needs at least one input")
	require.EqualError(t, (&Propensity{Inputs: []Input{in, in}}).Validate(), `input "x" occurs twice: remove one of them`)
	in.Scale = 0
	require.EqualError(t, (&Propensity{Inputs: []Input{in}}).Validate(), `input "x": scale must be a number from 0.000000001 to 1000000000000000`)
	require.ErrorContains(t, (&Propensity{Inputs: []Input{{Scale: 1}}}).Validate(), "needs a name")
	require.ErrorContains(t, (&Propensity{Intercept: math.NaN()}).Validate(), "intercept must be a number")
}
