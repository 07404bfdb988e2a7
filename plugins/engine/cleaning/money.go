package cleaning

import (
	"strings"
	"unicode"

	"golang.org/x/text/currency"
)

// MoneyOptions resolves what the text of an amount leaves open.
type MoneyOptions struct {
	// Currency is the ISO 4217 code of amounts without a currency. It also
	// resolves a symbol that several currencies share, if it is one of them.
	Currency string
	// Decimal is the sender's decimal separator, "." or ",". If it is empty,
	// the separator is derived from each amount, and ambiguous amounts are
	// faults.
	Decimal string
}

// Amount is an amount of money. Value is a decimal in JSON number syntax with
// exactly the digits of the input, so that no binary rounding occurs.
type Amount struct {
	Value    string
	Currency string // ISO 4217 code
}

// Faults of an amount.
var (
	errMoney          = &Fault{"money", "is not an amount of money such as \"1.234,56 €\" or \"USD 12\""}
	errMoneyAmbiguous = &Fault{"money_ambiguous", "has a separator that may mean thousands or decimals; set the decimal separator"}
	errMoneyCurrency  = &Fault{"money_currency", "has no currency; set the currency of amounts without one"}
	errMoneyUnknown   = &Fault{"money_currency_unknown", "has a currency that is not in ISO 4217"}
	errMoneyTwo       = &Fault{"money_two_currencies", "has two currencies"}
	errMoneyShared    = &Fault{"money_currency_shared", "has a symbol that several currencies share; set the currency"}
	errMoneySeparator = &Fault{"decimal", "the decimal separator must be \".\" or \",\""}
	errMoneyDefault   = &Fault{"currency", "the currency must be an ISO 4217 code of three letters, such as EUR"}
)

// symbols maps a symbol to its possible currencies. The first one is the default;
// "" means that there is no default.
var symbols = map[string][]string{
	"€": {"EUR"}, "EURO": {"EUR"}, "EUROS": {"EUR"},
	"$":   {"USD", "AUD", "BSD", "CAD", "HKD", "MXN", "NZD", "SGD", "ARS", "CLP", "COP", "TWD"},
	"US$": {"USD"}, "U$": {"USD"}, "DOLLAR": {"USD"}, "DOLLARS": {"USD"},
	"CA$": {"CAD"}, "C$": {"CAD"}, "A$": {"AUD"}, "AU$": {"AUD"}, "NZ$": {"NZD"}, "HK$": {"HKD"}, "S$": {"SGD"}, "R$": {"BRL"}, "MX$": {"MXN"}, "NT$": {"TWD"},
	"£": {"GBP", "EGP", "GIP", "FKP"}, "¥": {"JPY", "CNY"}, "￥": {"JPY", "CNY"}, "円": {"JPY"}, "元": {"CNY"}, "RMB": {"CNY"},
	"₹": {"INR"}, "RS": {"INR", "PKR", "LKR", "NPR", "MUR"}, "RS.": {"INR", "PKR", "LKR", "NPR", "MUR"},
	"₽": {"RUB"}, "₺": {"TRY"}, "TL": {"TRY"}, "₴": {"UAH"}, "₩": {"KRW"}, "₪": {"ILS"}, "₫": {"VND"}, "฿": {"THB"}, "₱": {"PHP"}, "₦": {"NGN"}, "₸": {"KZT"},
	"ZŁ": {"PLN"}, "ZL": {"PLN"}, "KČ": {"CZK"}, "FT": {"HUF"}, "LEI": {"RON", "MDL"}, "ЛВ": {"BGN"}, "ЛВ.": {"BGN"},
	"KR": {"", "SEK", "NOK", "DKK", "ISK"}, "KR.": {"", "SEK", "NOK", "DKK", "ISK"},
	"FR": {"CHF", "XOF", "XAF"}, "FR.": {"CHF", "XOF", "XAF"}, "SFR": {"CHF"}, "SFR.": {"CHF"},
	"₡": {"CRC"}, "₲": {"PYG"}, "₵": {"GHS"}, "R": {"ZAR"}, "RM": {"MYR"}, "RP": {"IDR"},
}

// Currency returns the ISO 4217 code of a symbol or code. A symbol that several
// currencies share is resolved to preferred if it is one of them.
func Currency(s, preferred string) (string, error) {
	if len(s) > maxLength {
		return "", errLong
	}
	s = strings.ToUpper(Text(s, TextOptions{}))
	if s == "" {
		return "", errEmpty
	}
	if shared, ok := symbols[s]; ok {
		for _, code := range shared {
			if code == preferred && code != "" {
				return code, nil
			}
		}
		if shared[0] == "" {
			return "", errMoneyShared
		}
		return shared[0], nil
	}
	if code, ok := isoCurrency(s); ok {
		return code, nil
	}
	return "", errMoneyUnknown
}

func isoCurrency(s string) (string, bool) {
	if len(s) != 3 || s == "XXX" {
		return "", false
	}
	unit, err := currency.ParseISO(s)
	return unit.String(), err == nil
}

// Money reads an amount as people and shops write it: with the currency before
// or after, as code or symbol; with points, commas, apostrophes or spaces
// between thousands; negative by a sign or in parentheses.
//
// A separator that stands before three digits and nowhere else could be either.
// It is one of thousands in a currency of two decimals or none, as no price in
// it has three, and a fault where the currency has three or is not known.
func Money(s string, o MoneyOptions) (Amount, error) {
	if o.Decimal != "" && o.Decimal != "." && o.Decimal != "," {
		return Amount{}, errMoneySeparator
	}
	if o.Currency != "" {
		code, ok := isoCurrency(strings.ToUpper(o.Currency))
		if !ok {
			return Amount{}, errMoneyDefault
		}
		o.Currency = code
	}
	if len(s) > 128 {
		return Amount{}, errLong
	}
	s = asciiDigits(Text(s, TextOptions{Quotes: true}))
	if s == "" {
		return Amount{}, errEmpty
	}
	if !strings.ContainsAny(s, "0123456789") {
		return Amount{}, errMoney
	}
	negative := false
	// sign removes a sign from either end of s.
	sign := func() bool {
		before := len(s)
		for _, minus := range []string{"-", "−", "–"} {
			if rest, ok := strings.CutPrefix(s, minus); ok {
				s, negative = strings.TrimSpace(rest), true
				return true
			}
			// "12.50-", as accounting systems export it. "12,-" is a price.
			if rest, ok := strings.CutSuffix(s, minus); ok && !strings.ContainsAny(rest[max(0, len(rest)-1):], ",.-") {
				s, negative = strings.TrimSpace(rest), true
				return true
			}
		}
		s = strings.TrimSpace(strings.TrimPrefix(s, "+"))
		return len(s) != before
	}
	if strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")") {
		s, negative = strings.TrimSpace(s[1:len(s)-1]), true
	} else {
		sign()
	}
	var units []string
	if unit, rest := leadingUnit(s); unit != "" {
		units, s = append(units, unit), rest
	}
	if unit, rest := trailingUnit(s); unit != "" {
		units, s = append(units, unit), rest
	}
	code, err := unitCurrency(units, o.Currency)
	if err != nil {
		return Amount{}, err
	}
	// "€ -12" and "($12)" have one sign; "-€ (12)" has two, which is a fault.
	if already := negative; strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")") && !already {
		s, negative = strings.TrimSpace(s[1:len(s)-1]), true
	} else if sign() && already {
		return Amount{}, errMoney
	}
	digits, err := decimal(s, code, o.Decimal)
	if err != nil {
		return Amount{}, err
	}
	if code == "" {
		return Amount{}, errMoneyCurrency
	}
	if negative && strings.Trim(digits, "0.") != "" {
		digits = "-" + digits
	}
	return Amount{Value: digits, Currency: code}, nil
}

// unitCurrency resolves the units before and after an amount to one currency. In
// "$12 CAD" the code resolves the symbol.
func unitCurrency(units []string, preferred string) (string, error) {
	if len(units) == 0 {
		return preferred, nil
	}
	for i, unit := range units {
		code, ok := isoCurrency(strings.ToUpper(unit))
		if !ok {
			continue
		}
		for j, other := range units {
			if second, err := Currency(other, code); i != j && (err != nil || second != code) {
				return "", errMoneyTwo
			}
		}
		return code, nil
	}
	if len(units) == 2 && !strings.EqualFold(units[0], units[1]) {
		return "", errMoneyTwo
	}
	return Currency(units[0], preferred)
}

func isUnit(r rune) bool {
	return unicode.IsLetter(r) || unicode.Is(unicode.Sc, r)
}

// leadingUnit splits a leading code or symbol off s.
func leadingUnit(s string) (unit, rest string) {
	end := strings.IndexFunc(s, func(r rune) bool { return !isUnit(r) })
	if end < 0 {
		end = len(s)
	}
	// "Rs." and "Fr." end with a dot of their own.
	if end > 0 && end < len(s) && s[end] == '.' && symbols[strings.ToUpper(s[:end+1])] != nil {
		end++
	}
	return s[:end], strings.TrimSpace(s[end:])
}

// trailingUnit splits a trailing code or symbol off s.
func trailingUnit(s string) (unit, rest string) {
	whole := s
	s = strings.TrimSuffix(s, ".")
	start := strings.LastIndexFunc(s, func(r rune) bool { return !isUnit(r) })
	if start >= 0 {
		start++
		for start < len(s) && s[start]&0xC0 == 0x80 {
			start++
		}
	} else {
		start = 0
	}
	unit, rest = s[start:], strings.TrimSpace(s[:start])
	if unit == "" {
		return "", whole
	}
	return unit, rest
}

// decimal parses the digits of an amount, including thousands separators, and
// returns a JSON number.
func decimal(s, code, separator string) (string, error) {
	// "12,-" and "12.--" are whole amounts in German and Dutch.
	for _, whole := range []string{",--", ",-", ".--", ".-", ",—", ",–"} {
		if rest, ok := strings.CutSuffix(s, whole); ok {
			s = rest
			break
		}
	}
	var groups []string // of digits
	var marks []byte    // between them
	from := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
		case c == '.' || c == ',' || c == '\'' || c == ' ':
			groups, marks = append(groups, s[from:i]), append(marks, c)
			from = i + 1
		default:
			return "", errMoney
		}
	}
	groups = append(groups, s[from:])
	// ".50" is fifty cents.
	if len(groups) == 2 && groups[0] == "" && (marks[0] == '.' || marks[0] == ',') {
		groups[0] = "0"
	}
	for _, g := range groups {
		if g == "" {
			return "", errMoney
		}
	}
	whole, fraction := groups, ""
	if n := len(marks); n > 0 && (marks[n-1] == '.' || marks[n-1] == ',') {
		last, tail := marks[n-1], groups[n]
		alone, same := n == 1, true
		for _, m := range marks {
			same = same && m == last
		}
		isDecimal := false
		switch {
		case separator != "":
			isDecimal = string(last) == separator
		case !same:
			isDecimal = true
		case !alone:
			isDecimal = false // 1.234.567
		case len(tail) != 3 || groups[0] == "0" || len(groups[0]) > 3:
			isDecimal = true
		default:
			places, known := minorUnits(code)
			if !known || places >= 3 {
				return "", errMoneyAmbiguous
			}
		}
		if isDecimal {
			whole, fraction, marks = groups[:n], tail, marks[:n-1]
		}
	}
	if len(whole) > 1 {
		for i, m := range marks[:len(whole)-1] {
			if m != marks[0] || separator != "" && string(m) == separator {
				return "", errMoney
			}
			// India writes 12,34,567: groups of two before the last of three.
			size := len(whole[i+1])
			if i == len(whole)-2 && size != 3 || size != 3 && size != 2 {
				return "", errMoney
			}
		}
		if len(whole[0]) > 3 {
			return "", errMoney
		}
		for _, g := range whole[1 : len(whole)-1] {
			if len(g) != len(whole[1]) {
				return "", errMoney
			}
		}
	}
	digits := strings.TrimLeft(strings.Join(whole, ""), "0")
	if digits == "" {
		digits = "0"
	}
	if fraction != "" {
		digits += "." + fraction
	}
	return digits, nil
}

// minorUnits returns the number of decimals of a currency.
func minorUnits(code string) (int, bool) {
	unit, err := currency.ParseISO(code)
	if err != nil {
		return 0, false
	}
	places, _ := currency.Standard.Rounding(unit)
	return places, true
}
