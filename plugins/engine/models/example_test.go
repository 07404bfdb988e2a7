package models_test

import (
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

func Example() {
	purchases, err := models.Open[models.BGNBD]("../../../configs/retail/models/bg_nbd.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	spend, err := models.Open[models.GammaGamma]("../../../configs/retail/models/gamma_gamma.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}

	// Five purchases: the last 30 weeks after the first, which was 38 weeks ago.
	h := models.Purchases{Repeat: 4, Recency: 30, Age: 38, MeanSpend: 40}
	value := models.CLV{
		Purchases: purchases.Current(),
		Spend:     spend.Current(),
		Discount:  models.DiscountPerUnit(0.1, purchases.Current().Unit),
		Margin:    0.3,
	}
	fmt.Printf("still a customer: %.2f\n", purchases.Current().ProbabilityAlive(h))
	fmt.Printf("purchases in a year: %.2f\n", purchases.Current().ExpectedPurchases(h, 52))
	fmt.Printf("dollars each: %.2f\n", spend.Current().ExpectedSpend(h))
	fmt.Printf("worth in dollars: %.2f\n", value.Value(h, 52))
	// Output:
	// still a customer: 0.74
	// purchases in a year: 2.94
	// dollars each: 39.52
	// worth in dollars: 33.40
}
