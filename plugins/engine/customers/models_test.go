package customers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
)

func dollars(id, day string, total float64) []byte {
	return fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":%q,"userId":"u1","timestamp":"%sT10:00:00Z","properties":{"total":%v}}`, id, day, total)
}

func TestPurchaseModels(t *testing.T) {
	folder := t.TempDir()
	save := func(name string, m models.Model) string {
		path := filepath.Join(folder, name)
		require.NoError(t, models.Save(path, m))
		return path
	}
	from := models.Origin{FittedAt: time.Date(1997, 10, 1, 0, 0, 0, 0, time.UTC)}
	week := 7 * 24 * time.Hour
	bg := &models.BGNBD{Unit: week, R: 0.243, Alpha: 4.414, A: 0.793, B: 2.426, From: from}
	gg := &models.GammaGamma{P: 6.25, Q: 3.74, Gamma: 15.44, From: from}
	propensity := &models.Propensity{Intercept: -1, Inputs: []models.Input{
		{Name: "orders", Coefficient: 0.5, Center: 1, Scale: 2},
		{Name: "nothing", Coefficient: 3, Center: 0, Scale: 1, Default: 0.25},
	}, From: from}
	definition := fmt.Sprintf(`
events: { keep: %%d }
features:
  - { name: orders, count: { events: [Order Completed] } }
  - { name: nothing, max: { events: [Order Completed], of: properties.absent } }
  - { name: expected, bg_nbd: { events: [Order Completed], parameters: %[1]s, horizon: 39w } }
  - { name: alive, bg_nbd: { events: [Order Completed], parameters: %[1]s, give: probability_alive } }
  - { name: spend, gamma_gamma: { events: [Order Completed], of: properties.total, parameters: %[2]s } }
  - { name: value, clv: { events: [Order Completed], of: properties.total, purchases: %[1]s, spend: %[2]s, horizon: 52w, discount: 0.1, margin: 0.5 } }
  - { name: likely, propensity: { parameters: %[3]s } }
`, save("bg.yaml", bg), save("gg.yaml", gg), save("propensity.yaml", propensity))

	// Days 0, 14, 14 (the same day) and 70; asked about on day 272.
	history := [][]byte{dollars("m1", "1997-01-01", 30), dollars("m2", "1997-01-15", 10), dollars("m3", "1997-01-15", 5.5), dollars("m4", "1997-03-12", 40)}
	asked := models.Purchases{Repeat: 2, Recency: 10, Age: 272.0 / 7, MeanSpend: 55.5 / 2}
	asOf := time.Date(1997, 9, 30, 23, 0, 0, 0, time.UTC)
	clv := models.CLV{Purchases: bg, Spend: gg, Discount: models.DiscountPerUnit(0.1, week), Margin: 0.5}

	for _, keep := range []int{512, 16} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			p := open(t, fmt.Sprintf(definition, keep))
			apply(t, p, history...)
			if keep == 16 {
				// Other events push the orders out of the log.
				for i := range 100 {
					apply(t, p, fmt.Appendf(nil, `{"type":"identify","messageId":"x%d","userId":"u1","timestamp":"1997-04-01T10:00:%02dZ"}`, i, i%60))
				}
			}
			results, err := p.Read(context.Background(), []string{"u1"}, Query{AsOf: asOf})
			require.NoError(t, err)
			var v view
			require.NoError(t, json.Unmarshal(results[0].JSON, &v))
			require.InDelta(t, bg.ExpectedPurchases(asked, 39), v.Features["expected"], 1e-12)
			require.InDelta(t, bg.ProbabilityAlive(asked), v.Features["alive"], 1e-12)
			require.InDelta(t, gg.ExpectedSpend(asked), v.Features["spend"], 1e-12)
			require.InDelta(t, clv.Value(asked, 52), v.Features["value"], 1e-12)
			require.InDelta(t, propensity.Score(func(name string) (float64, bool) { return 4, name == "orders" }), v.Features["likely"], 1e-12)
		})
	}

	p := open(t, fmt.Sprintf(definition, 512))
	apply(t, p, []byte(`{"type":"identify","messageId":"x","userId":"u1","timestamp":"1997-04-01T10:00:00Z"}`))
	v, _ := read(t, p, "u1")
	for _, name := range []string{"expected", "alive", "spend", "value"} {
		require.Nil(t, v.Features[name], name)
	}

	require.NoError(t, os.WriteFile(filepath.Join(folder, "bg.yaml"), []byte("model: bg_nbd\n"), 0o600))
	lints, err := profiledefinition.Lint(writeDefinition(t, fmt.Sprintf(definition, 512)))
	require.NoError(t, err)
	require.NotEmpty(t, lints)
	require.Equal(t, 6, lints[0].Line)
	require.Contains(t, lints[0].Message, "bg.yaml")
}
