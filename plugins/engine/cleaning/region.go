package cleaning

import (
	"regexp"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
	"golang.org/x/text/unicode/norm"
)

// Faults of a country and of a language.
var (
	errCountry          = &Fault{"country", "is not a country by ISO 3166 code or by name in a known language"}
	errCountryAmbiguous = &Fault{"country_ambiguous", "may mean several countries; send the code"}
	errLanguage         = &Fault{"language", "is not a language by BCP 47 tag or by name in a known language"}
)

// nameLanguages are the languages in which names of countries and languages are
// recognised. A name with different meanings in two of them is ambiguous.
var nameLanguages = []language.Tag{
	language.English, language.German, language.French, language.Spanish, language.Italian, language.Portuguese,
	language.Dutch, language.Polish, language.Swedish, language.Danish, language.Norwegian, language.Finnish, language.Czech,
	language.Hungarian, language.Romanian, language.Turkish, language.Greek, language.Russian, language.Ukrainian,
	language.Japanese, language.Chinese, language.Korean, language.Arabic,
}

type names struct {
	countries map[string]string // code by folded name; "" if the name is ambiguous
	languages map[string]string
}

// knownNames is built on first use: it takes about 10 ms and a few megabytes that
// most processes do not need.
var knownNames = sync.OnceValue(func() *names {
	n := &names{map[string]string{}, map[string]string{}}
	add := func(to map[string]string, name, code string) {
		if other, ok := to[name]; ok && other != code {
			code = ""
		}
		if name != "" {
			to[name] = code
		}
	}
	for country := range strings.FieldsSeq(isoCountries) {
		region := language.MustParseRegion(country[:2])
		for _, in := range nameLanguages {
			add(n.countries, countryKey(display.Regions(in).Name(region)), country[:2])
		}
	}
	for _, tag := range display.Supported.Tags() {
		base, confidence := tag.Base()
		if confidence != language.Exact {
			continue
		}
		code := language.Make(base.String())
		for _, in := range nameLanguages {
			add(n.languages, fold(display.Languages(in).Name(code)), code.String())
		}
		add(n.languages, fold(display.Self.Name(code)), code.String())
	}
	for name, code := range otherCountries {
		n.countries[countryKey(name)] = code
	}
	return n
})

// fold converts a name to lower case and removes accents and punctuation.
func fold(s string) string {
	var b strings.Builder
	space := false
	for _, r := range norm.NFKD.String(s) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
			if space && b.Len() > 0 {
				b.WriteByte(' ')
			}
			space = false
			r = unicode.ToLower(r)
			if r == 'ß' {
				b.WriteByte('s')
				r = 's'
			}
			b.WriteRune(r)
		default:
			space = true
		}
	}
	return b.String()
}

// Country returns the two-letter ISO 3166 code of a country. The input is that
// code, the code of three letters or digits, or a name.
func Country(s string) (string, error) {
	if len(s) > maxLength {
		return "", errLong
	}
	s = Text(s, TextOptions{})
	if s == "" {
		return "", errEmpty
	}
	if code, ok := countryCodes[strings.ToUpper(asciiDigits(s))]; ok {
		return code, nil
	}
	key := countryKey(s)
	code, ok := knownNames().countries[key]
	if !ok {
		if title := officialTitle.FindString(key); title != "" {
			code, ok = knownNames().countries[key[len(title):]]
		}
	}
	switch {
	case !ok:
		return "", errCountry
	case code == "":
		return "", errCountryAmbiguous
	}
	return code, nil
}

// officialTitle matches the title in an official name, such as "Kingdom of".
var officialTitle = regexp.MustCompile(`^(?:[a-z ]+ )?(?:republic|kingdom|state|states|commonwealth|principality|sultanate|union|duchy) of `)

// countryKey folds the name of a country, so that "Korea, Republic of" is "Republic of
// Korea", "Saint" is "St." and "and" is "&".
func countryKey(s string) string {
	if before, after, ok := strings.Cut(s, ","); ok && !strings.Contains(after, ",") {
		s = after + " " + before
	}
	var words []string
	for _, word := range strings.Fields(fold(s)) {
		switch word {
		case "and", "the":
		case "saint":
			words = append(words, "st")
		default:
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// Language returns the canonical BCP 47 tag of a language. The input is a tag
// (also with an underscore), a POSIX locale, an ISO 639 code or a name.
func Language(s string) (string, error) {
	if len(s) > maxLength {
		return "", errLong
	}
	s = Text(s, TextOptions{})
	if s == "" {
		return "", errEmpty
	}
	tagged := s
	// de_DE.UTF-8 and de_DE@euro are POSIX locales.
	if i := strings.IndexAny(tagged, ".@"); i > 0 {
		tagged = tagged[:i]
	}
	if tag, err := language.Parse(tagged); err == nil && tag != language.Und {
		return tag.String(), nil
	}
	if code := knownNames().languages[fold(s)]; code != "" {
		return code, nil
	}
	return "", errLanguage
}
