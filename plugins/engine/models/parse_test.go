package models

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

func TestLoadShippedForms(t *testing.T) {
	fitted := time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)
	m, err := Load("testdata/bg_nbd.yaml")
	require.NoError(t, err)
	require.Equal(t, &BGNBD{
		Unit: 7 * day, R: 0.243, Alpha: 4.414, A: 0.793, B: 2.426,
		From: Origin{
			Version: "1997-09", FittedAt: fitted, ObservedUntil: time.Date(1997, 9, 30, 0, 0, 0, 0, time.UTC),
			Customers: 2357, LogLikelihood: -9582.4292,
		},
	}, m)

	m, err = Load("testdata/propensity.yaml")
	require.NoError(t, err)
	require.Equal(t, &Propensity{
		Intercept: -2.1,
		Inputs: []Input{
			{Name: "orders_90d", Coefficient: 0.8, Center: 1.4, Scale: 2},
			{Name: "days_since_order", Coefficient: -0.5, Center: 40, Scale: 30, Default: 365},
			{Name: "emails_opened_30d", Coefficient: 0.3, Scale: 1},
		},
		From: Origin{FittedAt: fitted},
	}, m)

	_, err = Load("testdata/none.yaml")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Load("testdata")
	require.EqualError(t, err, "testdata is not a file: name a parameter file")
}

func TestParseErrorsNameTheLineAndTheCorrection(t *testing.T) {
	const fitted = "fitted_at: 2026-01-31T02:00:00Z\n"
	const bg = "model: bg_nbd\n" + fitted + "time_unit: 7d\n"
	const good = "parameters: { r: 0.2, alpha: 4, a: 0.8, b: 2 }\n"
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"empty":        {"", []string{"1: the file is empty: write model: followed by bg_nbd, gamma_gamma or propensity, and its parameters"}},
		"a list":       {"- model: bg_nbd", []string{"1: a parameter file must be a mapping: lines of a key, a colon and a value"}},
		"broken":       {"model: bg_nbd\n  x: [", []string{"2: this is not YAML: mapping values are not allowed in this context"}},
		"two":          {bg + good + "---\n" + bg + good, []string{"5: a parameter file holds one model: move what follows --- into a file of its own"}},
		"no model":     {"\nfitted_at: 2026-01-31T02:00:00Z", []string{"2: model is missing: write model: followed by bg_nbd, gamma_gamma or propensity"}},
		"other model":  {"model: pareto_nbd", []string{"1: model must be bg_nbd, gamma_gamma or propensity"}},
		"nothing else": {"model: bg_nbd", []string{"1: fitted_at is missing: write when the parameters were estimated, such as 2026-01-31T02:00:00Z", "1: time_unit is missing: write the unit of time of the parameters, such as 7d for weeks", "1: parameters is missing: write parameters: with r, alpha, a, b under it"}},
		"one missing":  {bg + "parameters:\n  r: 0.2\n  alpha: 4\n  a: 0.8\n", []string{"5: b is missing: write b: followed by a number"}},
		"one too many": {bg + "parameters:\n  r: 0.2\n  alpha: 4\n  a: 0.8\n  b: 2\n  beta: 3\n", []string{`9: parameters has no "beta": it takes r, alpha, a, b`}},
		"twice":        {bg + good + "customers: 2\ncustomers: 3\n", []string{"6: customers is on line 5 already: remove one of them"}},
		"unknown key":  {bg + good + "loglik: -2\n", []string{`5: bg_nbd has no "loglik": it takes model, version, fitted_at, observed_until, time_unit, parameters, log_likelihood, customers`}},
		"quoted":       {bg + "parameters: { r: '0.2', alpha: 4, a: 0.8, b: 2 }", []string{"4: r must be a number, such as 0.243, without quotes"}},
		"not a number": {bg + "parameters: { r: .nan, alpha: Inf, a: {}, b: null }", []string{"4: r must be a number, such as 0.243, without quotes", "4: alpha must be a number, such as 0.243, without quotes", "4: a must be a number, such as 0.243, without quotes", "4: b must be a number, such as 0.243, without quotes"}},
		"out of range": {bg + "parameters: { r: 0, alpha: -4, a: 1e7, b: 2 }", []string{"4: r must be a number from 0.000001 to 1000000", "4: alpha must be a number from 0.000001 to 1000000", "4: a must be a number from 0.000001 to 1000000"}},
		"unit":         {"model: bg_nbd\n" + fitted + "time_unit: week\n" + good, []string{"3: a time unit is a whole number of days or hours: write 7d for weeks, 1d for days"}},
		"long unit":    {"model: bg_nbd\n" + fitted + "time_unit: 9999d\n" + good, []string{"3: the time unit must be from 1h to 3660d: write 7d for weeks"}},
		"fitted_at":    {"model: bg_nbd\nfitted_at: yesterday\ntime_unit: 7d\n" + good, []string{"2: fitted_at must be a time in RFC 3339, such as 2026-01-31T02:00:00Z"}},
		"details":      {bg + good + "version:\nobserved_until: 30.9.1997\ncustomers: 0\nlog_likelihood: low", []string{"5: version must be a text, such as \"2026-01\"; leave it out if there is none", "6: observed_until must be a date, such as 2026-01-30", "7: customers must be a whole number from 1; leave it out if it is not known", "8: log_likelihood must be a number, such as 0.243, without quotes"}},
		"gamma_gamma":  {"model: gamma_gamma\n" + fitted + "time_unit: 7d\nparameters:\n  p: 6\n  q: 0.9\n  gamma: 15\n", []string{`3: gamma_gamma has no "time_unit": it takes model, version, fitted_at, observed_until, parameters, log_likelihood, customers`, "6: q must be a number above 1 and up to 1000000: at or below 1 the mean spend of all customers is infinite"}},
		"no inputs":    {"model: propensity\n" + fitted + "intercept: 1\n", []string{"1: inputs is missing: write inputs: with a list of name, coefficient, center, scale and default"}},
		"empty inputs": {"model: propensity\n" + fitted + "intercept: 1\ninputs: []\n", []string{"4: inputs must be a list with at least one input, each with name, coefficient, center, scale and default"}},
		"bad inputs": {"model: propensity\n" + fitted + "inputs:\n  - orders\n  - { coefficient: 1, default: 0 }\n  - { name: [], coefficient: 1, default: 0 }\n  - { name: x, scale: 0 }\n  - { name: x, coefficient: 1, default: 0, weight: 2 }\n", []string{
			"1: intercept is missing: write intercept: followed by a number",
			"4: an input must be a mapping: lines of a key, a colon and a value",
			"5: name is missing: write the name of the feature or trait that is the input",
			"6: name must be the name of the feature or trait that is the input",
			"7: coefficient is missing: write coefficient: followed by a number",
			"7: scale must be a number from 0.000000001 to 1000000000000000",
			"7: default is missing: write default: followed by a number",
			`8: an input has no "weight": it takes name, coefficient, center, scale, default`,
			`8: the input "x" is on line 7 already: remove one of them`,
		}},
		"huge": {"# " + strings.Repeat("x", maxFile), []string{"1: the file has 1048578 bytes; a parameter file has at most 1048576"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("models/x.yaml", []byte(test.file))
			require.Error(t, err)
			require.Equal(t, "models/x.yaml:"+strings.Join(test.want, "\nmodels/x.yaml:"), err.Error())
		})
	}
}

func TestLintReturnsProblems(t *testing.T) {
	problems, err := Lint("testdata/bg_nbd.yaml")
	require.NoError(t, err)
	require.Empty(t, problems)

	path := filepath.Join(t.TempDir(), "x.yaml")
	require.NoError(t, os.WriteFile(path, []byte("# a comment\nmodel: x\n"), 0o600))
	problems, err = Lint(path)
	require.NoError(t, err)
	require.Equal(t, []finding.Finding{{File: path, Line: 2, Message: "model must be bg_nbd, gamma_gamma or propensity"}}, problems)

	_, err = Lint("testdata/none.yaml")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func anyOrigin() *rapid.Generator[Origin] {
	return rapid.Custom(func(t *rapid.T) Origin {
		return Origin{
			Version:       rapid.String().Draw(t, "version"),
			FittedAt:      time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "fitted at"), 0).UTC(),
			ObservedUntil: time.Unix(86400*rapid.Int64Range(0, 40_000).Draw(t, "observed until"), 0).UTC(),
			Customers:     rapid.IntRange(0, 1e9).Draw(t, "customers"),
			LogLikelihood: rapid.Float64Range(-1e12, 1e12).Draw(t, "log-likelihood"),
		}
	})
}

func anyModel() *rapid.Generator[Model] {
	return rapid.Custom(func(t *rapid.T) Model {
		from := anyOrigin().Draw(t, "origin")
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			m := *anyBGNBD().Draw(t, "bg_nbd")
			m.From = from
			return &m
		case 1:
			m := *anyGammaGamma().Draw(t, "gamma_gamma")
			m.From = from
			return &m
		}
		m := &Propensity{Intercept: rapid.Float64Range(-1e9, 1e9).Draw(t, "intercept"), From: from}
		names := rapid.SliceOfNDistinct(rapid.StringN(1, 40, -1), 1, 5, rapid.ID).Draw(t, "names")
		for _, name := range names {
			m.Inputs = append(m.Inputs, Input{
				Name:        name,
				Coefficient: rapid.Float64Range(-1e9, 1e9).Draw(t, "coefficient"),
				Center:      rapid.Float64Range(-1e15, 1e15).Draw(t, "center"),
				Scale:       rapid.Float64Range(1e-9, 1e15).Draw(t, "scale"),
				Default:     rapid.Float64Range(-1e15, 1e15).Draw(t, "default"),
			})
		}
		return m
	})
}

func TestEncodeParseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyModel().Draw(t, "model")
		data, err := encode(m)
		require.NoError(t, err)
		parsed, err := parse("x.yaml", data)
		require.NoError(t, err, "%s", data)
		require.Equal(t, m, parsed, "%s", data)
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"testdata/bg_nbd.yaml", "testdata/propensity.yaml"} {
		data, err := os.ReadFile(seed)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte("model: gamma_gamma\nfitted_at: 2026-01-31T02:00:00+02:00\nparameters: &a {p: 1, q: 2, gamma: 1e3}\n"))
	f.Add([]byte("a: &a [*a]\nmodel: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parse("x.yaml", data)
		if err != nil {
			return
		}
		encoded, err := encode(m)
		require.NoError(t, err)
		again, err := parse("x.yaml", encoded)
		require.NoError(t, err, "%s", encoded)
		require.Equal(t, m, again)
	})
}

func TestShippedParametersAreValid(t *testing.T) {
	for _, kind := range []Kind{KindBGNBD, KindGammaGamma, KindPropensity} {
		m, err := Load(filepath.Join("../../../configs/retail/models", string(kind)+".yaml"))
		require.NoError(t, err)
		require.Equal(t, kind, m.Kind())
	}
}
