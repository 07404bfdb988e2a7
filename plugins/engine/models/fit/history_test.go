package fit

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

func TestDayOfUsesTheLocationOfTheTime(t *testing.T) {
	require.Equal(t, Day(0), DayOf(time.Unix(0, 0).UTC()))
	require.Equal(t, Day(-1), DayOf(time.Unix(-1, 0).UTC()))
	// The calendar day of the time's own location.
	east := time.FixedZone("", 10*3600)
	require.Equal(t, Day(1), DayOf(time.Date(1970, 1, 2, 5, 0, 0, 0, east)))
	day := DayOf(time.Date(1997, 9, 30, 23, 59, 59, 0, time.UTC))
	require.Equal(t, "1997-09-30", day.Time().Format(time.DateOnly))
}

func TestObservedCountsRepeatDaysAndSpend(t *testing.T) {
	var log Transactions
	require.Empty(t, log.Observed(100, week))
	log.Add("b", 10, 5)
	log.Add("a", 31, 4) // with the next, one purchase of 10
	log.Add("a", 31, 6)
	log.Add("a", 10, 100)
	log.Add("a", 10, 1)
	log.Add("a", 24, 20)
	log.Add("a", 53, 1000)
	log.Add("c", 53, 1)
	require.Equal(t, 8, log.Count())
	require.Equal(t, 6, log.CountUntil(52))
	require.Equal(t, 3, log.Customers())
	require.Equal(t, Day(53), log.Last())

	require.Equal(t, []Customer{
		{ID: "a", First: 10, Purchases: models.Purchases{Repeat: 2, Recency: 3, Age: 6, MeanSpend: 15}},
		{ID: "b", First: 10, Purchases: models.Purchases{Age: 6}},
	}, log.Observed(52, week))
	require.Equal(t, []Customer{
		{ID: "a", First: 10, Purchases: models.Purchases{Repeat: 0, Age: 0}},
		{ID: "b", First: 10},
	}, log.Observed(10, week))
	require.Empty(t, log.Observed(9, week))
}

func TestObservedDoesNotDependOnTheOrder(t *testing.T) {
	type purchase struct {
		customer string
		day      Day
		amount   float64
	}
	rapid.Check(t, func(t *rapid.T) {
		purchases := rapid.SliceOf(rapid.Custom(func(t *rapid.T) purchase {
			return purchase{
				customer: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "customer"),
				day:      Day(rapid.IntRange(-5, 30).Draw(t, "day")),
				amount:   rapid.Float64Range(0, 1000).Draw(t, "amount"),
			}
		})).Draw(t, "purchases")
		until := Day(rapid.IntRange(-6, 31).Draw(t, "until"))

		observe := func(purchases []purchase) []Customer {
			var log Transactions
			for _, p := range purchases {
				log.Add(p.customer, p.day, p.amount)
			}
			return log.Observed(until, 24*time.Hour)
		}
		got := observe(purchases)
		require.Equal(t, got, observe(rapid.Permutation(purchases).Draw(t, "shuffled")))

		for _, c := range got {
			days := map[Day]float64{}
			for _, p := range purchases {
				if p.customer == c.ID && p.day <= until {
					days[p.day] += p.amount
				}
			}
			sorted := make([]Day, 0, len(days))
			for day := range days {
				sorted = append(sorted, day)
			}
			slices.Sort(sorted)
			require.Equal(t, sorted[0], c.First)
			require.Equal(t, len(sorted)-1, c.Repeat)
			require.Equal(t, float64(sorted[len(sorted)-1]-sorted[0]), c.Recency)
			require.Equal(t, float64(until-sorted[0]), c.Age)
			total := 0.0
			for _, day := range sorted[1:] {
				total += days[day]
			}
			require.InDelta(t, total, c.MeanSpend*float64(c.Repeat), 1e-6)
		}
	})
}
