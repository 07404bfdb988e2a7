package profiledefinition

import (
	"fmt"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// The kinds of feature that models of repeat buying give, and their fields.
const (
	kindBGNBD      features.Kind = "bg_nbd"
	kindGammaGamma features.Kind = "gamma_gamma"
	kindCLV        features.Kind = "clv"

	fieldParameters = "parameters"
	fieldGive       = "give"
	fieldHorizon    = "horizon"
	fieldPurchases  = "purchases"
	fieldSpend      = "spend"
	fieldDiscount   = "discount"
	fieldMargin     = "margin"

	giveExpected = "expected_purchases"
	giveAlive    = "probability_alive"
)

func modelFields() []*service.ConfigField {
	parameters := func(field, what string) *service.ConfigField {
		return service.NewStringField(field).
			Description("The path of a parameter file of a `" + what + "` model, as a fitting pipeline writes it. When the file changes the new parameters are taken; while it is wrong the last good ones are kept.").
			Example("./configs/retail/models/" + what + ".yaml")
	}
	horizon := func() *service.ConfigField {
		return service.NewStringField(fieldHorizon).
			Description("How far ahead to look, such as `90d`.").
			Example("90d").
			LintRule(DurationRule("horizon"))
	}
	amount := func() *service.ConfigField {
		return ofField("that is the worth of a purchase; those of a day (UTC) are added up")
	}
	const purchases = " Purchases of one day (UTC) count as one; null for customers without any."
	return []*service.ConfigField{
		service.NewObjectField(string(kindBGNBD), eventsField(), whereField(), parameters(fieldParameters, "bg_nbd"),
			service.NewStringAnnotatedEnumField(fieldGive, map[string]string{
				giveExpected: "how many purchases to expect within `horizon`",
				giveAlive:    "the probability that the customer still is one",
			}).Description("What to give.").Default(giveExpected),
			service.NewStringField(fieldHorizon).
				Description("How far ahead to expect purchases, such as `90d`.").
				Default("30d").
				LintRule(DurationRule("horizon")),
		).Description("Repeat purchases by the BG/NBD model." + purchases).Optional(),
		service.NewObjectField(string(kindGammaGamma), eventsField(), whereField(), amount(), parameters(fieldParameters, "gamma_gamma")).
			Description("The expected worth of a purchase by the gamma-gamma model." + purchases).Optional(),
		service.NewObjectField(string(kindCLV), eventsField(), whereField(), amount(),
			parameters(fieldPurchases, "bg_nbd"), parameters(fieldSpend, "gamma_gamma"), horizon(),
			service.NewFloatField(fieldDiscount).
				Description("The discount rate of a year: 0.1 makes a purchase in a year worth a tenth less.").
				Default(0.1).
				LintRule(`root = if this < 0 || this > 10 { [ "discount must be a rate of a year between 0 and 10, such as 0.1" ] }`),
			service.NewFloatField(fieldMargin).
				Description("The share of what is spent that is earned.").
				Default(1).
				LintRule(`root = if this <= 0 || this > 1 { [ "margin must be above 0 and at most 1, such as 0.3" ] }`),
		).Description("The customer's value within a horizon: expected purchases times their expected worth, discounted." + purchases).Optional(),
		service.NewObjectField(string(features.Propensity), parameters(fieldParameters, "propensity")).
			Description("A probability by logistic regression over other features, whose names, coefficients and scales are in the parameter file. A feature that has no number has the file's default.").Optional(),
	}
}

// openModel opens a parameter file and notes it among those to follow.
func openModel[M models.BGNBD | models.GammaGamma | models.Propensity](conf *service.ParsedConfig, field string, files *[]definition.ParameterFile) (*models.File[M], error) {
	path, err := conf.FieldString(field)
	if err != nil {
		return nil, err
	}
	file, err := models.Open[M](path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	*files = append(*files, file)
	return file, nil
}

// parseModel reads the kinds that modelFields describes.
func parseModel(spec *features.Spec, item *service.ParsedConfig, files *[]definition.ParameterFile) error {
	kind := spec.Kind
	conf := item.Namespace(string(kind))
	if kind == features.Propensity {
		return parsePropensity(spec, conf, files)
	}
	spec.Kind = features.Purchases
	if err := parseEvents(spec, conf); err != nil {
		return err
	}
	switch kind {
	case kindBGNBD:
		return parseBGNBD(spec, conf, files)
	case kindGammaGamma:
		file, err := openModel[models.GammaGamma](conf, fieldParameters, files)
		if err != nil {
			return err
		}
		spec.Model = func(h features.PurchaseHistory) features.Result {
			return resultOf(h, file.Current().ExpectedSpend(models.Purchases{Repeat: h.Repeat, MeanSpend: h.MeanSpend}))
		}
		return nil
	}
	return parseCLV(spec, conf, files)
}

func parseBGNBD(spec *features.Spec, conf *service.ParsedConfig, files *[]definition.ParameterFile) error {
	file, err := openModel[models.BGNBD](conf, fieldParameters, files)
	if err != nil {
		return err
	}
	horizon, err := horizonOf(conf)
	if err != nil {
		return err
	}
	give, err := conf.FieldString(fieldGive)
	if err != nil {
		return err
	}
	spec.Model = func(h features.PurchaseHistory) features.Result {
		m := file.Current()
		if give == giveAlive {
			return resultOf(h, m.ProbabilityAlive(purchasesIn(h, m.Unit)))
		}
		return resultOf(h, m.ExpectedPurchases(purchasesIn(h, m.Unit), inUnits(horizon, m.Unit)))
	}
	return nil
}

func parseCLV(spec *features.Spec, conf *service.ParsedConfig, files *[]definition.ParameterFile) error {
	purchases, err := openModel[models.BGNBD](conf, fieldPurchases, files)
	if err != nil {
		return err
	}
	spend, err := openModel[models.GammaGamma](conf, fieldSpend, files)
	if err != nil {
		return err
	}
	horizon, err := horizonOf(conf)
	if err != nil {
		return err
	}
	discount, err := conf.FieldFloat(fieldDiscount)
	if err != nil {
		return err
	}
	margin, err := conf.FieldFloat(fieldMargin)
	if err != nil {
		return err
	}
	spec.Model = func(h features.PurchaseHistory) features.Result {
		m := purchases.Current()
		clv := models.CLV{Purchases: m, Spend: spend.Current(), Discount: models.DiscountPerUnit(discount, m.Unit), Margin: margin}
		return resultOf(h, clv.Value(purchasesIn(h, m.Unit), inUnits(horizon, m.Unit)))
	}
	return nil
}

func parsePropensity(spec *features.Spec, conf *service.ParsedConfig, files *[]definition.ParameterFile) error {
	file, err := openModel[models.Propensity](conf, fieldParameters, files)
	if err != nil {
		return err
	}
	needs := map[string]bool{}
	spec.Derived = &features.Derived{Compute: func(in features.Inputs) features.Result {
		return features.Result{Value: features.ValueOf(file.Current().Score(func(name string) (float64, bool) {
			// Parameters that were loaded later may name features that were
			// not evaluated for this; those have their defaults until the
			// process starts anew.
			if !needs[name] {
				return 0, false
			}
			return in.Feature(name).Number()
		}))}
	}}
	for _, input := range file.Current().Inputs {
		needs[input.Name] = true
		spec.Derived.Needs = append(spec.Derived.Needs, input.Name)
	}
	return nil
}

func horizonOf(conf *service.ParsedConfig) (time.Duration, error) {
	text, err := conf.FieldString(fieldHorizon)
	if err != nil {
		return 0, err
	}
	horizon, err := ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("horizon: %w", err)
	}
	return horizon, nil
}

func inUnits(d, unit time.Duration) float64 { return float64(d) / float64(unit) }

func purchasesIn(h features.PurchaseHistory, unit time.Duration) models.Purchases {
	return models.Purchases{Repeat: h.Repeat, Recency: inUnits(h.Recency, unit), Age: inUnits(h.Age, unit), MeanSpend: h.MeanSpend}
}

// resultOf is what a model gives, null for somebody who never bought.
func resultOf(h features.PurchaseHistory, v float64) features.Result {
	if h.Repeat < 0 {
		return features.Result{}
	}
	return features.Result{Value: features.ValueOf(v)}
}
