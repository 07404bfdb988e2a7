package content

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// locales are the conventions for numbers: the separators of thousands and decimals,
// and whether the currency follows the amount.
var locales = map[string]struct {
	thousands, decimal string
	isAfter            bool
}{
	"en": {",", ".", false}, "de": {".", ",", true}, "fr": {"\u202f", ",", true}, "es": {".", ",", true},
	"it": {".", ",", true}, "pt": {".", ",", true}, "nl": {".", ",", false}, "pl": {"\u00a0", ",", true},
	"sv": {"\u00a0", ",", true}, "da": {".", ",", true}, "fi": {"\u00a0", ",", true}, "nb": {"\u00a0", ",", true},
	"cs": {"\u00a0", ",", true}, "ja": {",", ".", false}, "ch": {"’", ".", false},
}

// currencies are the currencies with a sign or an unusual number of decimals. All
// others are written with their code and two decimals.
var currencies = map[string]struct {
	sign     string
	decimals int
}{
	"EUR": {"€", 2}, "USD": {"$", 2}, "GBP": {"£", 2}, "JPY": {"¥", 0}, "CNY": {"CN¥", 2}, "INR": {"₹", 2},
	"KRW": {"₩", 0}, "BRL": {"R$", 2}, "CAD": {"CA$", 2}, "AUD": {"A$", 2}, "NZD": {"NZ$", 2}, "MXN": {"MX$", 2},
	"ILS": {"₪", 2}, "TRY": {"₺", 2}, "UAH": {"₴", 2}, "VND": {"₫", 0}, "HUF": {"HUF", 2}, "ISK": {"ISK", 0},
	"CLP": {"CLP", 0}, "KWD": {"KWD", 3}, "BHD": {"BHD", 3}, "TND": {"TND", 3},
}

var currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)

// localeOf returns the key of locales for an argument such as "de-AT".
func localeOf(locale any) (string, error) {
	if isNil(locale) {
		return "en", nil
	}
	name := strings.ToLower(plain(locale))
	if name == "de-ch" {
		return "ch", nil
	}
	name, _, _ = strings.Cut(strings.ReplaceAll(name, "_", "-"), "-")
	if _, ok := locales[name]; !ok || name == "ch" {
		return "", wrong("the locale is unknown; write a locale such as en or de")
	}
	return name, nil
}

// group writes the digits of a number in groups of three.
func group(f float64, decimals int, locale string) string {
	l := locales[locale]
	text := strconv.FormatFloat(math.Abs(f), 'f', decimals, 64)
	integer, fraction, _ := strings.Cut(text, ".")
	var b strings.Builder
	for i := range len(integer) {
		if i > 0 && (len(integer)-i)%3 == 0 {
			b.WriteString(l.thousands)
		}
		b.WriteByte(integer[i])
	}
	if fraction != "" {
		b.WriteString(l.decimal + fraction)
	}
	return b.String()
}

// formatDecimal is the filter number: 2, "de".
func formatDecimal(v, places, locale any) (any, error) {
	f, ok := asFloat(v)
	if !ok {
		return v, nil
	}
	name, err := localeOf(locale)
	if err != nil {
		return nil, err
	}
	f = roundHalfAway(f, min(max(smallInt(places), 0), 6))
	text := group(f, min(max(smallInt(places), 0), 6), name)
	if f < 0 {
		text = "-" + text
	}
	return text, nil
}

// roundHalfAway rounds the decimal that f stands for: 1.005, which is stored as a
// smaller binary fraction, becomes 1.01.
func roundHalfAway(f float64, places int) float64 {
	scale := math.Pow10(places)
	return math.Round(math.Round(f*scale*1e6)/1e6) / scale
}

// formatMoney is the filter money: "EUR", "de".
func formatMoney(v, currency, locale any) (any, error) {
	f, ok := asFloat(v)
	if !ok {
		return v, nil
	}
	code := "EUR"
	if !isNil(currency) {
		code = strings.ToUpper(plain(currency))
	}
	if !currencyForm.MatchString(code) {
		return nil, wrong(`the currency is not a code of three letters; write a code such as "EUR"`)
	}
	name, err := localeOf(locale)
	if err != nil {
		return nil, err
	}
	sign, decimals := code, 2
	if c, ok := currencies[code]; ok {
		sign, decimals = c.sign, c.decimals
	}
	f = roundHalfAway(f, decimals)
	amount := group(f, decimals, name)
	minus := ""
	if f < 0 {
		minus = "-"
	}
	switch {
	case locales[name].isAfter:
		return minus + amount + "\u00a0" + sign, nil
	case sign == code || name == "nl" || name == "ch":
		return sign + "\u00a0" + minus + amount, nil
	}
	return minus + sign + amount, nil
}
