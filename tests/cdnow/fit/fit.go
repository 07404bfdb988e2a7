// Package fit fits the models of purchases and spend to the CDNOW sample, a
// public log of purchases, and compares the parameters with the published ones
// and the forecast with the purchases that followed.
package fit

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models/fit"
)

const week = 7 * 24 * time.Hour

// The sample is observed from the day of its first purchase. The models are fitted to
// the first half of that time.
var (
	calibrationEnd = fit.DayOf(time.Date(1997, 9, 30, 0, 0, 0, 0, time.UTC))
	holdoutEnd     = fit.DayOf(time.Date(1998, 6, 30, 0, 0, 0, 0, time.UTC))
)

// Run runs the comparison with the given flags and file.
func Run(args []string) error {
	flag := flag.NewFlagSet("fit", flag.ContinueOnError)
	plot := flag.String("plot", "", "SVG file to write the forecast and the actual purchases to")
	models := flag.String("models", "", "folder to write the parameter files to")
	if err := flag.Parse(args); err != nil {
		return err
	}
	if flag.NArg() != 1 {
		return errors.New("name the file with the CDNOW sample: lines of customer id, sample id, date as YYYYMMDD, quantity and dollars")
	}
	return run(flag.Arg(0), *plot, *models, os.Stdout)
}

// errDiffers reports parameters that differ from the published ones.
var errDiffers = errors.New("the parameters are not the published ones: is this the CDNOW sample?")

func run(path, plot, models string, out io.Writer) error {
	log, err := readLog(path)
	if err != nil {
		return err
	}
	customers := log.Observed(calibrationEnd, week)
	started := time.Now()
	bg, err := fit.BGNBD(customers, week, fit.Options{})
	if err != nil {
		return err
	}
	spend, err := fit.GammaGamma(customers, fit.Options{})
	if err != nil {
		return err
	}
	took := time.Since(started)

	fmt.Fprintf(out, "%d transactions of %d customers; observed until %s, in weeks\n",
		log.Count(), len(customers), calibrationEnd.Time().Format(time.DateOnly))
	differ := printParameters(out, bg, spend)
	fmt.Fprintf(out, "fitted in %v\n\n", took.Round(time.Millisecond))

	forecast, err := newForecast(log, bg)
	if err != nil {
		return err
	}
	forecast.print(out)
	if plot != "" {
		if err := os.WriteFile(plot, forecast.svg(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(out, "\nwrote %s\n", plot)
	}
	if models != "" {
		if err := save(models, bg, spend); err != nil {
			return err
		}
		fmt.Fprintf(out, "\nwrote the parameter files to %s\n", models)
	}
	if differ {
		return errDiffers
	}
	return nil
}

func save(dir string, bg *models.BGNBD, spend *models.GammaGamma) error {
	now := time.Now().UTC().Truncate(time.Second)
	for _, from := range []*models.Origin{&bg.From, &spend.From} {
		from.FittedAt, from.ObservedUntil = now, calibrationEnd.Time()
	}
	return errors.Join(
		models.Save(filepath.Join(dir, string(bg.Kind())+".yaml"), bg),
		models.Save(filepath.Join(dir, string(spend.Kind())+".yaml"), spend),
	)
}

// published are the estimates of the literature: bg_nbd by Fader, Hardie and Lee
// (2005); gamma_gamma by Fader and Hardie (2013), without a likelihood.
var published = map[string]string{
	"bg_nbd r":              "0.243",
	"bg_nbd alpha":          "4.414",
	"bg_nbd a":              "0.793",
	"bg_nbd b":              "2.426",
	"bg_nbd log-likelihood": "-9582.4",
	"gamma_gamma p":         "6.25",
	"gamma_gamma q":         "3.74",
	"gamma_gamma gamma":     "15.44",
}

// printParameters reports whether a parameter differs from the published one, to
// the published digits.
func printParameters(out io.Writer, bg *models.BGNBD, spend *models.GammaGamma) (differ bool) {
	fmt.Fprintf(out, "\n%-28s %14s  %s\n", "", "fitted", "published")
	line := func(name string, v float64, decimals int) {
		want, known := published[name]
		verdict := ""
		if known {
			verdict = want
			if got := strconv.FormatFloat(v, 'f', decimals, 64); got != want {
				verdict += "  DIFFERS"
				differ = true
			}
		}
		fmt.Fprintf(out, "%-28s %14.5f  %s\n", name, v, verdict)
	}
	line("bg_nbd r", bg.R, 3)
	line("bg_nbd alpha", bg.Alpha, 3)
	line("bg_nbd a", bg.A, 3)
	line("bg_nbd b", bg.B, 3)
	line("bg_nbd log-likelihood", bg.From.LogLikelihood, 1)
	fmt.Fprintf(out, "%-28s %14d\n", "bg_nbd customers", bg.From.Customers)
	line("gamma_gamma p", spend.P, 2)
	line("gamma_gamma q", spend.Q, 2)
	line("gamma_gamma gamma", spend.Gamma, 2)
	line("gamma_gamma log-likelihood", spend.From.LogLikelihood, 4)
	fmt.Fprintf(out, "%-28s %14d\n", "gamma_gamma customers", spend.From.Customers)
	return differ
}
