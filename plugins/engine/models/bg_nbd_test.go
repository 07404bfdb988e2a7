package models

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mathext"
	"pgregory.net/rapid"
)

// cdnow has the parameters published for the CDNOW sample, in weeks.
var cdnow = &BGNBD{Unit: 7 * day, R: 0.243, Alpha: 4.414, A: 0.793, B: 2.426}

func TestExpectedPurchasesOfThePublishedExample(t *testing.T) {
	// The worked example of the authors' note on implementing the model.
	h := Purchases{Repeat: 2, Recency: 30.43, Age: 38.86}
	require.InDelta(t, 1.226, cdnow.ExpectedPurchases(h, 39), 0.0005)
}

func TestProbabilityAliveIsTheShareOfTheLikelihood(t *testing.T) {
	require.Equal(t, 1.0, cdnow.ProbabilityAlive(Purchases{}))
	require.Equal(t, 1.0, cdnow.ProbabilityAlive(Purchases{Age: 1000}))
	h := Purchases{Repeat: 3, Recency: 20, Age: 38}
	alive := math.Pow(cdnow.Alpha+38, -cdnow.R-3)
	left := cdnow.A / (cdnow.B + 2) * math.Pow(cdnow.Alpha+20, -cdnow.R-3)
	require.InEpsilon(t, alive/(alive+left), cdnow.ProbabilityAlive(h), 1e-12)
	require.Less(t, cdnow.ProbabilityAlive(Purchases{Repeat: 30, Recency: 20, Age: 380}), 1e-20)
}

// textbook is the published conditional expectation, which requires that A is not
// 1 and A+B+x is above 1.
func textbook(m *BGNBD, h Purchases, t float64) float64 {
	x := float64(h.Repeat)
	last := m.A + m.B + x - 1
	f := mathext.Hypergeo(m.R+x, m.B+x, last, t/(m.Alpha+h.Age+t))
	e := last / (m.A - 1) * (1 - math.Pow((m.Alpha+h.Age)/(m.Alpha+h.Age+t), m.R+x)*f)
	if h.Repeat > 0 {
		e /= 1 + m.A/(m.B+x-1)*math.Pow((m.Alpha+h.Age)/(m.Alpha+h.Recency), m.R+x)
	}
	return e
}

func TestExpectationAgreesWithTheTextbookForm(t *testing.T) {
	for x := range 12 {
		for _, age := range []float64{1, 10, 38.86} {
			for _, horizon := range []float64{0.1, 1, 13, 52} {
				h := Purchases{Repeat: x, Recency: age * 0.8, Age: age}
				require.InEpsilon(t, textbook(cdnow, h, horizon), cdnow.ExpectedPurchases(h, horizon), 1e-9, "%+v %v", h, horizon)
			}
		}
	}
}

// integrated computes the expectation from the definition of the model for one
// customer with purchase rate l and dropout probability p, integrated over both
// on a grid. It is independent of the code under test.
func integrated(m *BGNBD, h Purchases, t float64) (expected, alive float64) {
	type node struct{ value, logWeight, logOdds float64 }
	var rates, leaves []node
	const step = 0.125
	for v := -110.0; v < 12; v += step {
		l := math.Exp(v)
		rates = append(rates, node{value: l, logWeight: m.R*v - m.Alpha*l + float64(h.Repeat)*v})
	}
	for y := -110.0; y < 60; y += step {
		p := 1 / (1 + math.Exp(-y))
		logP, logQ := -math.Log1p(math.Exp(-y)), -math.Log1p(math.Exp(y))
		leaves = append(leaves, node{p, m.A*logP + m.B*logQ + float64(h.Repeat)*logQ, y})
	}
	var sumBought, sumAlive, sumAll float64
	for _, l := range rates {
		for _, p := range leaves {
			weight := l.logWeight + p.logWeight
			here := math.Exp(weight - l.value*h.Age)
			sumAlive += here
			sumAll += here
			bought := l.value * t
			if p.value > 1e-280 {
				bought = -math.Expm1(-l.value*p.value*t) / p.value
			}
			sumBought += here * bought
			if h.Repeat > 0 {
				sumAll += math.Exp(weight - l.value*h.Recency + p.logOdds)
			}
		}
	}
	return sumBought / sumAll, sumAlive / sumAll
}

func TestExpectationAgreesWithIntegration(t *testing.T) {
	models := []*BGNBD{
		cdnow,
		{R: 0.3, Alpha: 2, A: 0.3, B: 0.4},   // a + b < 1
		{R: 0.5, Alpha: 10, A: 1, B: 2},      // where the textbook form divides by zero
		{R: 2, Alpha: 5, A: 3, B: 1.5},       // leaves soon
		{R: 1.2, Alpha: 0.4, A: 0.25, B: 12}, // buys often, stays
	}
	for _, m := range models {
		for _, h := range []Purchases{
			{},
			{Age: 20},
			{Repeat: 1, Recency: 0.5, Age: 20},
			{Repeat: 2, Recency: 30.43, Age: 38.86},
			{Repeat: 12, Recency: 30, Age: 31},
		} {
			for _, horizon := range []float64{0.5, 39, 400} {
				t.Run(fmt.Sprint(m.A, h, horizon), func(t *testing.T) {
					expected, alive := integrated(m, h, horizon)
					require.InEpsilon(t, alive, m.ProbabilityAlive(h), 1e-6)
					require.InEpsilon(t, expected, m.ExpectedPurchases(h, horizon), 1e-6)
				})
			}
		}
	}
}

// Simulated customers of the model buy as often as the model expects, given only
// their observed histories.
func TestExpectationMatchesSimulation(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const observed, horizon, customers = 30.0, 20.0, 60_000
	var expected, bought, alive, wereAlive float64
	for range customers {
		rate := gamma(random, cdnow.R*3) / cdnow.Alpha // three times as lively, for less noise
		first, second := gamma(random, cdnow.A), gamma(random, cdnow.B)
		leave := first / (first + second)
		h := Purchases{Age: observed}
		here := true
		for at := random.ExpFloat64() / rate; at < observed+horizon; at += random.ExpFloat64() / rate {
			if at < observed {
				h.Repeat++
				h.Recency = at
			} else {
				bought++
			}
			if random.Float64() < leave {
				here = at > observed
				break
			}
		}
		lively := *cdnow
		lively.R *= 3
		expected += lively.ExpectedPurchases(h, horizon)
		alive += lively.ProbabilityAlive(h)
		if here {
			wereAlive++
		}
	}
	require.InEpsilon(t, bought, expected, 0.02)
	require.InEpsilon(t, wereAlive, alive, 0.01)
}

// gamma draws from the gamma distribution of the shape with rate 1 (Marsaglia
// and Tsang 2000).
func gamma(random *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(random, shape+1) * math.Pow(random.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	for {
		x := random.NormFloat64()
		v := math.Pow(1+x/math.Sqrt(9*d), 3)
		if v > 0 && math.Log(random.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

func TestSumAndQuadratureAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &BGNBD{
			R: decades(-2, 2).Draw(t, "r"), Alpha: 1,
			A: decades(-3, 3).Draw(t, "a"), B: decades(-3, 3).Draw(t, "b"),
		}
		x := rapid.IntRange(0, 100).Draw(t, "x")
		u := decades(-4, 1).Draw(t, "u")
		shape := m.R + float64(x)
		if mean := shape * u; mean+10*math.Sqrt(mean*(1+u))+40*(1+u) > maxTerms || shape*math.Log1p(u) > maxExponent {
			t.Skip("too much for the sum")
		}
		sum := m.expectedAlive(Purchases{Repeat: x}, u)
		quadrature := expectedByQuadrature(m.A, m.B+float64(x), shape, u)
		if math.Abs(sum-quadrature) > 1e-8*sum {
			t.Fatalf("sum %v, quadrature %v", sum, quadrature)
		}
	})
}

// decades draws numbers that are spread evenly over powers of ten.
func decades(from, to float64) *rapid.Generator[float64] {
	return rapid.Map(rapid.Float64Range(from, to), func(v float64) float64 { return math.Pow(10, v) })
}

func anyBGNBD() *rapid.Generator[*BGNBD] {
	return rapid.Custom(func(t *rapid.T) *BGNBD {
		m := &BGNBD{
			Unit: 7 * day,
			R:    decades(-6, 6).Draw(t, "r"), Alpha: decades(-6, 6).Draw(t, "alpha"),
			A: decades(-6, 6).Draw(t, "a"), B: decades(-6, 6).Draw(t, "b"),
		}
		if err := m.Validate(); err != nil {
			// The last bit of a power of ten.
			m = &BGNBD{Unit: time.Hour, R: 1e-6, Alpha: 1e-6, A: 1e-6, B: 1e-6}
		}
		return m
	})
}

// anyPurchases draws histories, from empty to extreme ones.
func anyPurchases() *rapid.Generator[Purchases] {
	return rapid.Custom(func(t *rapid.T) Purchases {
		h := Purchases{
			Repeat: rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(0, 1000), rapid.Just(1_000_000), rapid.Just(math.MaxInt)).Draw(t, "repeat"),
			Age:    rapid.OneOf(rapid.Float64Range(0, 200), decades(-9, 12), rapid.Just(0.0)).Draw(t, "age"),
			MeanSpend: rapid.OneOf(rapid.Float64Range(0, 500), decades(-9, 300),
				rapid.Just(0.0), rapid.Just(math.MaxFloat64)).Draw(t, "mean spend"),
		}
		h.Recency = h.Age * rapid.OneOf(rapid.Float64Range(0, 1), rapid.Just(0.0), rapid.Just(1.0)).Draw(t, "recency")
		return h
	})
}

func anyHorizon() *rapid.Generator[float64] {
	return rapid.OneOf(rapid.Float64Range(0, 200), decades(-9, 12), rapid.SampledFrom([]float64{0, math.MaxFloat64, math.Inf(1)}))
}

// finite fails unless v is a number that is not negative.
func finite(t *rapid.T, what string, v float64) {
	t.Helper()
	if !(v >= 0) || math.IsInf(v, 0) {
		t.Fatalf("%s is %v", what, v)
	}
}

// notAbove fails if low is above high by more than rounding.
func notAbove(t *rapid.T, what string, low, high float64) {
	t.Helper()
	if low > high*(1+1e-8)+1e-290 {
		t.Fatalf("%s: %v > %v", what, low, high)
	}
}

func TestExpectedPurchasesAreMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, h := anyBGNBD().Draw(t, "model"), anyPurchases().Draw(t, "purchases")
		near, far := anyHorizon().Draw(t, "near"), anyHorizon().Draw(t, "far")
		near, far = math.Min(near, far), math.Max(near, far)

		alive, soon, later := m.ProbabilityAlive(h), m.ExpectedPurchases(h, near), m.ExpectedPurchases(h, far)
		finite(t, "alive", alive)
		finite(t, "expected soon", soon)
		finite(t, "expected later", later)
		notAbove(t, "a probability", alive, 1)
		notAbove(t, "more is bought in more time", soon, later)
		if h.Repeat == 0 && alive != 1 {
			t.Fatalf("a customer without repeat purchases is alive with probability %v", alive)
		}
		if m.ExpectedPurchases(h, 0) != 0 {
			t.Fatal("something is bought in no time")
		}
		// The expectation without dropout is an upper bound.
		horizon := math.Min(far, maxTime)
		notAbove(t, "no more than without leaving", later, (m.R+float64(h.Repeat))/(m.Alpha+math.Min(h.Age, maxTime))*horizon*alive)
		// Expectations are concave: half the time brings at least half.
		notAbove(t, "the first half brings no less", m.ExpectedPurchases(h, horizon)/2, m.ExpectedPurchases(h, horizon/2))

		recent := h
		recent.Recency = h.Recency + (h.Age-h.Recency)*rapid.Float64Range(0, 1).Draw(t, "more recent")
		notAbove(t, "a more recent purchase is a better sign", alive, m.ProbabilityAlive(recent))

		older := h
		older.Age = h.Age * rapid.Float64Range(1, 10).Draw(t, "older")
		notAbove(t, "silence is a bad sign", m.ProbabilityAlive(older), alive)
		notAbove(t, "silence is a bad sign for purchases", m.ExpectedPurchases(older, far), later)
	})
}

func TestExpectationIsContinuous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, h := anyBGNBD().Draw(t, "model"), anyPurchases().Draw(t, "purchases")
		horizon := decades(-3, 8).Draw(t, "horizon")
		const little = 1e-7
		here, there := m.ExpectedPurchases(h, horizon), m.ExpectedPurchases(h, horizon*(1+little))
		notAbove(t, "a little more time", here, there)
		notAbove(t, "a little less time", there, here*(1+2*little))

		// Across the pole of the textbook form.
		below, above := *m, *m
		below.A, above.A = 1-little, 1+little
		low, high := above.ExpectedPurchases(h, horizon), below.ExpectedPurchases(h, horizon)
		notAbove(t, "a higher dropout probability means fewer purchases", low, high)
		// The probability of being active can be tiny, and then its logarithm
		// decides: the bound is relative to a logarithm of the drawn values.
		notAbove(t, "a little more easily", high, low*(1+100*little))
	})
}

func TestImpossibleHistoriesBecomeTheNearestPossible(t *testing.T) {
	nan := math.NaN()
	for _, h := range []Purchases{
		{Repeat: -1, Recency: -1, Age: -1, MeanSpend: -1},
		{Repeat: 3, Recency: 50, Age: 40, MeanSpend: nan},
		{Repeat: 3, Recency: nan, Age: nan, MeanSpend: math.Inf(1)},
		{Repeat: 3, Recency: math.Inf(1), Age: math.Inf(1), MeanSpend: math.Inf(-1)},
	} {
		for _, horizon := range []float64{-1, 0, 1, nan, math.Inf(1), math.Inf(-1)} {
			for what, v := range map[string]float64{
				"alive":      cdnow.ProbabilityAlive(h),
				"expected":   cdnow.ExpectedPurchases(h, horizon),
				"likelihood": cdnow.LogLikelihood(h),
				"spend":      cdnowSpend.ExpectedSpend(h),
				"value":      CLV{cdnow, cdnowSpend, 0.002, 0.3}.Value(h, horizon),
			} {
				require.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%s of %+v in %v is %v", what, h, horizon, v)
			}
		}
	}
	require.Equal(t, cdnow.ProbabilityAlive(Purchases{Repeat: 3, Recency: 40, Age: 40}), cdnow.ProbabilityAlive(Purchases{Repeat: 3, Recency: 50, Age: 40}))
}

func TestBGNBDValidation(t *testing.T) {
	require.NoError(t, cdnow.Validate())
	for _, bad := range []float64{0, -1, math.NaN(), math.Inf(1), 1e7} {
		for i := range 4 {
			m := *cdnow
			*[]*float64{&m.R, &m.Alpha, &m.A, &m.B}[i] = bad
			require.ErrorContains(t, m.Validate(), "must be a number from 0.000001 to 1000000")
		}
	}
	m := *cdnow
	m.Unit = time.Minute
	require.EqualError(t, m.Validate(), "the time unit must be from 1h to 3660d: write 7d for weeks")
}

func TestModelsDoNotAllocate(t *testing.T) {
	h := Purchases{Repeat: 4, Recency: 30, Age: 38, MeanSpend: 40}
	clv := CLV{cdnow, cdnowSpend, 0.002, 0.3}
	score := &Propensity{Inputs: []Input{{Name: "orders", Coefficient: 1, Scale: 1}}}
	inputs := func(string) (float64, bool) { return 1, true }
	require.Zero(t, testing.AllocsPerRun(100, func() {
		cdnow.ExpectedPurchases(h, 52)
		cdnow.ExpectedPurchases(h, 1e6)
		cdnow.ProbabilityAlive(h)
		cdnowSpend.ExpectedSpend(h)
		clv.Value(h, 52)
		score.Score(inputs)
	}))
}

func BenchmarkExpectedPurchases(b *testing.B) {
	for _, bench := range []struct {
		name    string
		h       Purchases
		horizon float64
	}{
		{"once", Purchases{Age: 38}, 52},
		{"usual", Purchases{Repeat: 4, Recency: 30, Age: 38}, 52},
		{"heavy", Purchases{Repeat: 200, Recency: 38, Age: 38}, 52},
		{"quadrature", Purchases{Repeat: 5000, Recency: 38, Age: 38}, 52},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				cdnow.ExpectedPurchases(bench.h, bench.horizon)
			}
		})
	}
}

func BenchmarkCLV(b *testing.B) {
	clv := CLV{cdnow, cdnowSpend, 0.002, 0.3}
	h := Purchases{Repeat: 4, Recency: 30, Age: 38, MeanSpend: 40}
	b.ReportAllocs()
	for b.Loop() {
		clv.Value(h, 52)
	}
}
