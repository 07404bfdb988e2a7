package shop_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
)

// The shipped tracking plan accepts every valid event, rejects every invalid one,
// and does not know the unknown ones.
func TestShippedPlanMatchesFaultLabels(t *testing.T) {
	plan, err := trackingplan.Load("../../../configs/retail/plan.yaml")
	require.NoError(t, err)
	s, err := shop.New(shop.Settings{
		Seed: 11, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Customers: 300, DailyEvents: 20,
		Invalid: 0.2, Late: 0.05, Duplicated: 0.05, MaxLateness: time.Hour,
	})
	require.NoError(t, err)

	var parser event.Parser
	faults := map[shop.Fault]int{}
	for range 30_000 {
		e := s.Next()
		faults[e.Fault]++
		result := plan.Check(e.Data)
		switch {
		case e.Fault.Invalid():
			require.Equal(t, trackingplan.Rejected, result.Status, "%s: %s", e.Fault, e.Data)
			require.NotEmpty(t, result.Violations)
			continue
		case e.Fault == shop.UnknownEvent:
			require.True(t, result.Unplanned, "%s", e.Data)
		default:
			require.False(t, result.Unplanned, "%s", e.Data)
		}
		require.Empty(t, result.Violations, "%s", e.Data)
		_, err := parser.Parse(e.Data)
		require.NoError(t, err)
	}
	require.Len(t, faults, 17)
}
