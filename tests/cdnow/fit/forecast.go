package fit

import (
	"errors"
	"fmt"
	"io"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models/fit"
)

// forecast compares expected with actual purchases.
type forecast struct {
	// byWeek contains the repeat purchases of all customers until the end of each
	// week; calibration is the number of weeks that the model was fitted to.
	byWeek      []comparison
	calibration int
	// byFrequency contains the mean number of purchases in the holdout by the number
	// of repeat purchases in the calibration; the last item includes larger numbers.
	byFrequency []comparison
	customers   []int
}

type comparison struct{ expected, actual float64 }

// many is the largest separate frequency; larger ones are counted with it.
const many = 7

func newForecast(log *fit.Transactions, m *models.BGNBD) (*forecast, error) {
	before := log.Observed(calibrationEnd, week)
	after := log.Observed(holdoutEnd, week)
	if len(before) != len(after) {
		return nil, errors.New("some customers first bought in the holdout: the forecast covers earlier customers only")
	}
	start := before[0].First
	for _, c := range before {
		start = min(start, c.First)
	}

	f := &forecast{
		calibration: int(calibrationEnd+1-start) / 7,
		byFrequency: make([]comparison, many+1),
		customers:   make([]int, many+1),
	}
	// Customers with the same first day have the same expectation.
	newcomers := make([]float64, calibrationEnd-start+1)
	for _, c := range before {
		newcomers[c.First-start]++
	}
	for end := start + 6; end <= holdoutEnd; end += 7 {
		var sum comparison
		for day, n := range newcomers {
			sum.expected += n * m.ExpectedPurchases(models.Purchases{}, float64(end-start-fit.Day(day))/7)
		}
		for _, c := range log.Observed(end, week) {
			sum.actual += float64(c.Repeat)
		}
		f.byWeek = append(f.byWeek, sum)
	}

	horizon := float64(holdoutEnd-calibrationEnd) / 7
	for i, c := range before {
		bin := min(c.Repeat, many)
		f.customers[bin]++
		f.byFrequency[bin].expected += m.ExpectedPurchases(c.Purchases, horizon)
		f.byFrequency[bin].actual += float64(after[i].Repeat - c.Repeat)
	}
	for bin, n := range f.customers {
		f.byFrequency[bin].expected /= float64(n)
		f.byFrequency[bin].actual /= float64(n)
	}
	return f, nil
}

// holdout is the number of repeat purchases after the calibration.
func (f *forecast) holdout() comparison {
	from, to := f.byWeek[f.calibration-1], f.byWeek[len(f.byWeek)-1]
	return comparison{to.expected - from.expected, to.actual - from.actual}
}

func (f *forecast) print(out io.Writer) {
	fmt.Fprintf(out, "%-34s %10s %10s %8s\n", "repeat purchases", "forecast", "actual", "error")
	line := func(name string, c comparison) {
		fmt.Fprintf(out, "%-34s %10.0f %10.0f %+7.1f%%\n", name, c.expected, c.actual, 100*(c.expected/c.actual-1))
	}
	last := len(f.byWeek)
	line(fmt.Sprintf("weeks 1 to %d (calibration)", f.calibration), f.byWeek[f.calibration-1])
	line(fmt.Sprintf("weeks %d to %d (holdout)", f.calibration+1, last), f.holdout())
	line(fmt.Sprintf("weeks 1 to %d", last), f.byWeek[last-1])

	fmt.Fprintf(out, "\n%-34s %10s %10s %10s\n", "per customer in the holdout", "customers", "expected", "actual")
	for bin, c := range f.byFrequency {
		fmt.Fprintf(out, "%-34s %10d %10.3f %10.3f\n", frequency(bin)+" repeat purchases before", f.customers[bin], c.expected, c.actual)
	}
}

func frequency(bin int) string {
	if bin == many {
		return fmt.Sprintf("%d+", bin)
	}
	return fmt.Sprint(bin)
}
