package profiledefinition

import (
	"fmt"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// The kinds of feature that repeat-purchase models compute, and their fields.
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
	parameters := func(field, model string) *service.ConfigField {
		return service.NewStringField(field).
			Description("Path of a parameter file of a `" + model + "` model, as a fitting pipeline writes it. The file is reloaded when it changes. If a new version is invalid, the last valid one stays in use.").
			Example("./configs/retail/models/" + model + ".yaml")
	}
	horizon := func() *service.ConfigField {
		return service.NewStringField(fieldHorizon).
			Description("Length of the prediction from the time of the read, such as `90d`.").
			Example("90d").
			LintRule(DurationRule("horizon"))
	}
	amount := func() []*service.ConfigField {
		return append([]*service.ConfigField{
			eventsField(), whereField(), ofField("that is the value of a purchase; the values of one day (UTC) are added"), subtractField(),
		}, amountFields()...)
	}
	const purchases = " Purchases of one day (UTC) count as one; null for customers without purchases."
	return []*service.ConfigField{
		service.NewObjectField(string(kindBGNBD), eventsField(), whereField(), parameters(fieldParameters, "bg_nbd"),
			service.NewStringAnnotatedEnumField(fieldGive, map[string]string{
				giveExpected: "expected number of purchases within `horizon`",
				giveAlive:    "probability that the customer is still active",
			}).Description("Which prediction the feature returns.").Default(giveExpected),
			service.NewStringField(fieldHorizon).
				Description("Length of the prediction from the time of the read, such as `90d`.").
				Default("30d").
				LintRule(DurationRule("horizon")),
		).Description("Prediction of repeat purchases by the BG/NBD model." + purchases).Optional(),
		service.NewObjectField(string(kindGammaGamma), append(amount(), parameters(fieldParameters, "gamma_gamma"))...).
			Description("Expected value of a purchase by the gamma-gamma model. Refunds reduce the mean value of the repeat purchases." + purchases).Optional(),
		service.NewObjectField(string(kindCLV), append(amount(),
			parameters(fieldPurchases, "bg_nbd"), parameters(fieldSpend, "gamma_gamma"), horizon(),
			service.NewFloatField(fieldDiscount).
				Description("Yearly discount rate: with 0.1, a purchase in a year has a tenth less value.").
				Default(0.1).
				LintRule(`root = if this < 0 || this > 10 { [ "discount must be a yearly rate between 0 and 10, such as 0.1" ] }`),
			service.NewFloatField(fieldMargin).
				Description("Share of the revenue that is profit.").
				Default(1).
				LintRule(`root = if this <= 0 || this > 1 { [ "margin must be above 0 and at most 1, such as 0.3" ] }`),
		)...).Description("Customer lifetime value within a horizon: expected purchases times their expected value, discounted. Refunds reduce the mean value of the repeat purchases." + purchases).Optional(),
		service.NewObjectField(string(features.Propensity), parameters(fieldParameters, "propensity")).
			Description("Probability by logistic regression over other features. Their names, coefficients and scales are in the parameter file. A feature that is not a number gets the default of the file.").Optional(),
	}
}

// openModel opens a parameter file and adds it to files.
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

// parseModel parses the kinds that modelFields describes.
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
	horizon, err := parseHorizon(conf)
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
	horizon, err := parseHorizon(conf)
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
			// A reloaded file may name features that are not evaluated for
			// this one. They get their defaults until the process restarts.
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

func parseHorizon(conf *service.ParsedConfig) (time.Duration, error) {
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

// resultOf returns the result of a model, null for customers without purchases.
func resultOf(h features.PurchaseHistory, v float64) features.Result {
	if h.Repeat < 0 {
		return features.Result{}
	}
	return features.Result{Value: features.ValueOf(v)}
}
