package cleaning

import (
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

// otherCountries are names and abbreviations in use that the Unicode data lacks.
var otherCountries = map[string]string{
	"uk": "GB", "england": "GB", "scotland": "GB", "wales": "GB", "northern ireland": "GB", "great britain": "GB", "britain": "GB",
	"grossbritannien": "GB", "schottland": "GB", "grande bretagne": "GB", "angleterre": "GB", "gran bretana": "GB", "inglaterra": "GB",
	"usa": "US", "u s a": "US", "u s": "US", "united states of america": "US", "america": "US", "vereinigte staaten von amerika": "US",
	"etats unis d amerique": "US", "estados unidos de america": "US", "eeuu": "US", "ee uu": "US",
	"brd": "DE", "bundesrepublik deutschland": "DE", "federal republic of germany": "DE",
	"holland": "NL", "the netherlands": "NL", "hollande": "NL", "holanda": "NL", "pays bas": "NL",
	"czech republic": "CZ", "tschechische republik": "CZ", "republique tcheque": "CZ", "republica checa": "CZ", "ceska republika": "CZ",
	"russian federation": "RU", "south korea": "KR", "republic of korea": "KR", "korea": "KR", "republic of ireland": "IE", "eire": "IE",
	"viet nam": "VN", "turkey": "TR", "turkiye": "TR", "turkei": "TR", "republic of turkey": "TR", "ivory coast": "CI", "elfenbeinkuste": "CI",
	"macedonia": "MK", "swaziland": "SZ", "burma": "MM", "cape verde": "CV", "uae": "AE", "emirates": "AE", "vae": "AE",
	"people s republic of china": "CN", "volksrepublik china": "CN", "republic of china": "TW", "kosovo": "XK", "xk": "XK", "xkx": "XK",
	"swiss": "CH", "confoederatio helvetica": "CH", "osterreich": "AT", "oesterreich": "AT", "daenemark": "DK", "tuerkei": "TR", "rumaenien": "RO",
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
		name = fold(name)
		if other, ok := to[name]; ok && other != code {
			code = ""
		}
		if name != "" {
			to[name] = code
		}
	}
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			region, err := language.ParseRegion(string([]rune{a, b}))
			if err != nil || !region.IsCountry() || region.Canonicalize() != region || len(region.String()) != 2 {
				continue
			}
			for _, in := range nameLanguages {
				add(n.countries, display.Regions(in).Name(region), region.String())
			}
		}
	}
	for _, tag := range display.Supported.Tags() {
		base, confidence := tag.Base()
		if confidence != language.Exact {
			continue
		}
		code := language.Make(base.String())
		for _, in := range nameLanguages {
			add(n.languages, display.Languages(in).Name(code), code.String())
		}
		add(n.languages, display.Self.Name(code), code.String())
	}
	for name, code := range otherCountries {
		n.countries[fold(name)] = code
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
	if len(s) == 2 || len(s) == 3 {
		if code, ok := countryCode(strings.ToUpper(s)); ok {
			return code, nil
		}
	}
	code, ok := knownNames().countries[fold(s)]
	switch {
	case !ok:
		return "", errCountry
	case code == "":
		return "", errCountryAmbiguous
	}
	return code, nil
}

func countryCode(s string) (string, bool) {
	region, err := language.ParseRegion(s)
	if err != nil {
		return "", false
	}
	region = region.Canonicalize()
	if code := region.String(); region.IsCountry() && len(code) == 2 {
		return code, true
	}
	return "", false
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
