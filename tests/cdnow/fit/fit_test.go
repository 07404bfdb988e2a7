package fit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// sample is the CDNOW sample, which is not part of this repository. The environment
// variable CDNOW contains its path.
func sample(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("CDNOW"); path != "" {
		return path
	}
	const beside = "../../../../shared/data/CDNOW_sample.txt"
	if _, err := os.Stat(beside); errors.Is(err, os.ErrNotExist) {
		t.Skip("the CDNOW sample is not here: set CDNOW to its path")
	}
	return beside
}

func TestParametersEqualThePublished(t *testing.T) {
	path := sample(t)
	dir := t.TempDir()
	plot := filepath.Join(dir, "plot.svg")
	var out bytes.Buffer
	require.NoError(t, run(path, plot, dir, &out), out.String())
	for _, want := range []string{
		"6919 transactions of 2357 customers",
		"-9582.42920",
		"gamma_gamma customers                   946",
	} {
		require.Contains(t, out.String(), want)
	}
	require.NotContains(t, out.String(), "DIFFERS")

	loaded, err := models.Load(filepath.Join(dir, "bg_nbd.yaml"))
	require.NoError(t, err)
	bg := loaded.(*models.BGNBD)
	for _, p := range []struct {
		fitted    float64
		decimals  int
		published string
	}{
		{bg.R, 3, "0.243"}, {bg.Alpha, 3, "4.414"}, {bg.A, 3, "0.793"}, {bg.B, 3, "2.426"},
		{bg.From.LogLikelihood, 1, "-9582.4"},
	} {
		require.Equal(t, p.published, strconv.FormatFloat(p.fitted, 'f', p.decimals, 64))
	}
	loaded, err = models.Load(filepath.Join(dir, "gamma_gamma.yaml"))
	require.NoError(t, err)
	spend := loaded.(*models.GammaGamma)
	require.Equal(t, 946, spend.From.Customers)
	for _, p := range []struct {
		fitted    float64
		published string
	}{{spend.P, "6.25"}, {spend.Q, "3.74"}, {spend.Gamma, "15.44"}} {
		require.Equal(t, p.published, strconv.FormatFloat(p.fitted, 'f', 2, 64))
	}

	// The shipped parameters equal the fitted ones.
	loaded, err = models.Load("../../../configs/retail/models/bg_nbd.yaml")
	require.NoError(t, err)
	shipped := loaded.(*models.BGNBD)
	require.InEpsilon(t, bg.R, shipped.R, 1e-6)
	require.InEpsilon(t, bg.Alpha, shipped.Alpha, 1e-6)
	require.InEpsilon(t, bg.A, shipped.A, 1e-6)
	require.InEpsilon(t, bg.B, shipped.B, 1e-6)
	loaded, err = models.Load("../../../configs/retail/models/gamma_gamma.yaml")
	require.NoError(t, err)
	shippedSpend := loaded.(*models.GammaGamma)
	require.InEpsilon(t, spend.P, shippedSpend.P, 1e-6)
	require.InEpsilon(t, spend.Q, shippedSpend.Q, 1e-6)
	require.InEpsilon(t, spend.Gamma, shippedSpend.Gamma, 1e-6)

	// The plot in the documentation equals this one, except for the rounding of
	// the last digit of a coordinate.
	number := regexp.MustCompile(`-?\d+\.\d`)
	got, err := os.ReadFile(plot)
	require.NoError(t, err)
	want, err := os.ReadFile("../../../docs/cdnow_forecast.svg")
	require.NoError(t, err)
	require.Equal(t, number.ReplaceAllString(string(want), "#"), number.ReplaceAllString(string(got), "#"), "docs/cdnow_forecast.svg is out of date; run: go run ./tests/cdnow fit -plot docs/cdnow_forecast.svg FILE")
	places := number.FindAllString(string(got), -1)
	for i, place := range number.FindAllString(string(want), -1) {
		w, err := strconv.ParseFloat(place, 64)
		require.NoError(t, err)
		g, err := strconv.ParseFloat(places[i], 64)
		require.NoError(t, err)
		require.InDelta(t, w, g, 0.11)
	}
}

func TestOtherLogFails(t *testing.T) {
	raw, err := os.ReadFile(sample(t))
	require.NoError(t, err)
	lines := strings.SplitAfter(string(raw), "\n")
	part := filepath.Join(t.TempDir(), "part.txt")
	require.NoError(t, os.WriteFile(part, []byte(strings.Join(lines[:len(lines)/2], "")), 0o600))
	var out bytes.Buffer
	require.ErrorIs(t, run(part, "", "", &out), errDiffers)
	require.Contains(t, out.String(), "DIFFERS")
}

func TestMalformedLineIsRejected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.txt")
	for text, want := range map[string]string{
		"1 1 19970101 1":          path + ":1: 4 columns; write customer id",
		"1 1 1997 1 2.50":         path + ":1: the third column is not a date",
		"1 1 19970101 1 1,50":     path + ":1: the fifth column is not a number",
		"1 1 19970101 1 1.50\n\n": path + ":2: 0 columns",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.ErrorContains(t, run(path, "", "", &bytes.Buffer{}), want)
	}
	require.ErrorIs(t, run("none.txt", "", "", &bytes.Buffer{}), os.ErrNotExist)
}
