package fit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/diff/fd"
	"gonum.org/v1/gonum/stat/distuv"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

const week = 7 * 24 * time.Hour

// simulate draws customers from the models, each observed for up to weeks weeks.
func simulate(seed uint64, n int, m models.BGNBD, spend models.GammaGamma, weeks float64) []Customer {
	source := rand.NewPCG(seed, 7)
	random := rand.New(source)
	rates := distuv.Gamma{Alpha: m.R, Beta: m.Alpha, Src: source}
	leaves := distuv.Beta{Alpha: m.A, Beta: m.B, Src: source}
	scales := distuv.Gamma{Alpha: spend.Q, Beta: spend.Gamma, Src: source}
	customers := make([]Customer, n)
	for i := range customers {
		c := &customers[i]
		c.Age = weeks * (0.7 + 0.3*random.Float64())
		rate, leave, scale := rates.Rand(), leaves.Rand(), scales.Rand()
		for t := random.ExpFloat64() / rate; t < c.Age; t += random.ExpFloat64() / rate {
			c.Repeat++
			c.Recency = t
			if random.Float64() < leave {
				break
			}
		}
		if c.Repeat > 0 {
			c.MeanSpend = distuv.Gamma{Alpha: spend.P * float64(c.Repeat), Beta: scale * float64(c.Repeat), Src: source}.Rand()
		}
	}
	return customers
}

func TestFitRecoversTheParametersOfSimulatedCustomers(t *testing.T) {
	for i, truth := range []struct {
		bg    models.BGNBD
		spend models.GammaGamma
	}{
		{models.BGNBD{R: 0.243, Alpha: 4.414, A: 0.793, B: 2.426}, models.GammaGamma{P: 6.25, Q: 3.74, Gamma: 15.44}},
		{models.BGNBD{R: 1.5, Alpha: 6, A: 1.2, B: 3}, models.GammaGamma{P: 2, Q: 5, Gamma: 200}},
		{models.BGNBD{R: 0.8, Alpha: 20, A: 0.3, B: 0.8}, models.GammaGamma{P: 20, Q: 2.5, Gamma: 3}},
		{models.BGNBD{R: 3, Alpha: 2, A: 0.5, B: 10}, models.GammaGamma{P: 0.7, Q: 8, Gamma: 90_000}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			customers := simulate(uint64(i), 20_000, truth.bg, truth.spend, 52)
			bg, err := BGNBD(customers, week, Options{})
			require.NoError(t, err)
			require.Equal(t, len(customers), bg.From.Customers)
			for _, p := range [][2]float64{{truth.bg.R, bg.R}, {truth.bg.Alpha, bg.Alpha}, {truth.bg.A, bg.A}, {truth.bg.B, bg.B}} {
				require.InEpsilon(t, p[0], p[1], 0.25, "%+v", bg)
			}
			// The fit has the maximum likelihood; the truth is hardly worse.
			var atTruth, atFit float64
			for _, c := range customers {
				atTruth += truth.bg.LogLikelihood(c.Purchases)
				atFit += bg.LogLikelihood(c.Purchases)
			}
			require.InEpsilon(t, atFit, bg.From.LogLikelihood, 1e-7)
			require.LessOrEqual(t, atTruth, atFit+1e-3)
			require.Less(t, atFit-atTruth, 15.0, "twice the difference is chi-squared with 4 degrees of freedom")

			spend, err := GammaGamma(customers, Options{})
			require.NoError(t, err)
			require.InEpsilon(t, truth.spend.P, spend.P, 0.25, "%+v", spend)
			require.InEpsilon(t, truth.spend.Q, spend.Q, 0.25, "%+v", spend)
			atTruth, atFit = 0, 0
			for _, c := range customers {
				atTruth += truth.spend.LogLikelihood(c.Purchases)
				atFit += spend.LogLikelihood(c.Purchases)
			}
			require.InEpsilon(t, atFit, spend.From.LogLikelihood, 1e-7)
			require.LessOrEqual(t, atTruth, atFit+1e-3)
			require.Less(t, atFit-atTruth, 15.0)
		})
	}
}

func TestGradientsMatchFiniteDifferences(t *testing.T) {
	customers := simulate(3, 500, models.BGNBD{R: 0.5, Alpha: 4, A: 0.8, B: 2}, models.GammaGamma{P: 6, Q: 4, Gamma: 15}, 40)
	var s spenders
	for _, c := range customers {
		if c.Repeat > 0 {
			s = append(s, spender{float64(c.Repeat), c.MeanSpend, math.Log(float64(c.Repeat)), math.Log(c.MeanSpend)})
		}
	}
	central := &fd.Settings{Formula: fd.Central}
	rapid.Check(t, func(t *rapid.T) {
		logs := rapid.SliceOfN(rapid.Float64Range(-3, 3), 4, 4).Draw(t, "logs")
		for name, f := range map[string]objective{"bg_nbd": group(customers).objective, "gamma_gamma": s.objective} {
			x := logs[:4]
			if name == "gamma_gamma" {
				x = logs[:3]
			}
			got := make([]float64, len(x))
			f(x, got)
			want := fd.Gradient(nil, func(x []float64) float64 { return f(x, nil) }, x, central)
			for i := range x {
				if math.Abs(got[i]-want[i]) > 1e-5*(1+math.Abs(want[i])) {
					t.Fatalf("%s: gradient %v, differences %v", name, got, want)
				}
			}
		}
	})
}

func TestEqualHistoriesAreGrouped(t *testing.T) {
	m := models.BGNBD{R: 0.5, Alpha: 4, A: 0.8, B: 2}
	customers := simulate(4, 800, m, models.GammaGamma{P: 6, Q: 4, Gamma: 15}, 20)
	for i := range customers {
		customers[i].Age = math.Ceil(customers[i].Age)
		customers[i].Recency = math.Floor(customers[i].Recency)
	}
	g := group(customers)
	require.Less(t, len(g.groups), len(customers)/3)
	var want float64
	for _, c := range customers {
		want += m.LogLikelihood(c.Purchases)
	}
	require.InEpsilon(t, want, g.logLikelihood(m.R, m.Alpha, m.A, m.B, nil), 1e-12)
}

func TestFitIsInvariantToUnitsAndOrder(t *testing.T) {
	customers := simulate(5, 3000, models.BGNBD{R: 0.5, Alpha: 4, A: 0.8, B: 2}, models.GammaGamma{P: 6, Q: 4, Gamma: 15}, 40)
	bg, err := BGNBD(customers, week, Options{})
	require.NoError(t, err)
	spend, err := GammaGamma(customers, Options{})
	require.NoError(t, err)

	shuffled := slices.Clone(customers)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	again, err := BGNBD(shuffled, week, Options{})
	require.NoError(t, err)
	require.InDelta(t, bg.R, again.R, 1e-7)
	require.Equal(t, bg.From.LogLikelihood, again.From.LogLikelihood)

	for i := range customers {
		customers[i].Age *= 7
		customers[i].Recency *= 7
		customers[i].MeanSpend *= 130
	}
	daily, err := BGNBD(customers, 24*time.Hour, Options{})
	require.NoError(t, err)
	require.InEpsilon(t, bg.R, daily.R, 1e-5)
	require.InEpsilon(t, 7*bg.Alpha, daily.Alpha, 1e-5)
	require.InEpsilon(t, bg.A, daily.A, 1e-5)
	require.InEpsilon(t, bg.B, daily.B, 1e-5)
	other, err := GammaGamma(customers, Options{})
	require.NoError(t, err)
	require.InEpsilon(t, spend.P, other.P, 1e-5)
	require.InEpsilon(t, spend.Q, other.Q, 1e-5)
	require.InEpsilon(t, 130*spend.Gamma, other.Gamma, 1e-5)
}

func TestFitErrorsNameTheCause(t *testing.T) {
	var once, alike, now []Customer
	for i := range 300 {
		once = append(once, Customer{Purchases: models.Purchases{Age: float64(i)}})
		alike = append(alike, Customer{Purchases: models.Purchases{Repeat: 5, Recency: 35, Age: 40, MeanSpend: 10}})
		now = append(now, Customer{})
	}
	stay := simulate(6, 3000, models.BGNBD{R: 2, Alpha: 4, A: 1e-6, B: 1}, models.GammaGamma{P: 6, Q: 4, Gamma: 15}, 40)
	equal := slices.Clone(stay)
	resellers := simulate(6, 3000, models.BGNBD{R: 2, Alpha: 4, A: 0.5, B: 1}, models.GammaGamma{P: 6, Q: 0.8, Gamma: 15}, 40)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range stay {
		equal[i].MeanSpend = 10 * math.Exp(0.1*random.NormFloat64()/math.Sqrt(float64(max(1, equal[i].Repeat))))
	}
	for name, test := range map[string]struct {
		fit  func() error
		want string
	}{
		"no customers":     {bg(nil), "there are no customers"},
		"none returns":     {bg(once), "none of 300 customers bought on a second day"},
		"all are new":      {bg(now), "none of 300 customers bought on a second day"},
		"all are the same": {bg(alike), "has no maximum"},
		"none drops out":   {bg(stay), "no customer drops out"},
		"no spend":         {spend(once), "none of 300 customers has repeat purchases with an amount"},
		"the same spend":   {spend(alike), "all 300 returning customers have the same mean spend"},
		"one common spend": {spend(equal), "gamma_gamma has no maximum"},
		"infinite spend":   {spend(resellers), "the mean spend of all customers is infinite"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.fit()
			var reason *NotFittedError
			require.ErrorAs(t, err, &reason)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestPenaltyGivesAnEstimateWithoutAMaximum(t *testing.T) {
	truth := models.BGNBD{R: 2, Alpha: 4, A: 1e-6, B: 1}
	stay := simulate(6, 3000, truth, models.GammaGamma{P: 6, Q: 4, Gamma: 15}, 40)
	m, err := BGNBD(stay, week, Options{Penalty: 0.001})
	require.NoError(t, err)
	h := models.Purchases{Repeat: 20, Recency: 39, Age: 40}
	require.InEpsilon(t, truth.ExpectedPurchases(h, 20), m.ExpectedPurchases(h, 20), 0.1)

	// Where there is a maximum, little changes.
	leave := simulate(5, 3000, models.BGNBD{R: 0.5, Alpha: 4, A: 0.8, B: 2}, models.GammaGamma{P: 6, Q: 4, Gamma: 15}, 40)
	free, err := BGNBD(leave, week, Options{})
	require.NoError(t, err)
	m, err = BGNBD(leave, week, Options{Penalty: 0.001})
	require.NoError(t, err)
	require.Less(t, m.From.LogLikelihood, free.From.LogLikelihood)
	require.InEpsilon(t, free.ExpectedPurchases(h, 20), m.ExpectedPurchases(h, 20), 0.02)
	spend, err := GammaGamma(leave, Options{Penalty: 0.001})
	require.NoError(t, err)
	require.InEpsilon(t, 6*15/3.0, spend.MeanSpend(), 0.05)
}

func bg(customers []Customer) func() error {
	return func() error { _, err := BGNBD(customers, week, Options{}); return err }
}

func spend(customers []Customer) func() error {
	return func() error { _, err := GammaGamma(customers, Options{}); return err }
}

func BenchmarkBGNBD(b *testing.B) {
	customers := simulate(8, 20_000, models.BGNBD{R: 0.243, Alpha: 4.414, A: 0.793, B: 2.426}, models.GammaGamma{P: 6, Q: 4, Gamma: 15}, 40)
	for i := range customers {
		customers[i].Age = math.Ceil(7*customers[i].Age) / 7
		customers[i].Recency = math.Ceil(7*customers[i].Recency) / 7
	}
	for b.Loop() {
		if _, err := BGNBD(customers, week, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
