package content

import (
	"cmp"
	"encoding/json"
	"html"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/osteele/liquid/expressions"
	"gopkg.in/yaml.v2"
)

// filterNames are the filters there are, filterList the same in order.
var (
	filterNames = map[string]struct{}{}
	filterList  []string
)

func init() {
	r := &run{}
	for name := range r.filters() {
		filterNames[name] = struct{}{}
		filterList = append(filterList, name)
	}
	slices.Sort(filterList)
}

// Filters lists the names of the filters a template may use.
func Filters() []string { return slices.Clone(filterList) }

func (r *run) addFilters(conf *expressions.Config) {
	for name, fn := range r.filters() {
		conf.AddFilter(name, fn)
	}
}

func wrong(message string) error { return &renderError{reason: Failed, message: message} }

// filters are ours rather than the library's so that they count against the
// budget, treat letters as letters, and never fail because a value is missing:
// what cannot be done to a value leaves it as it is.
func (r *run) filters() map[string]any {
	// text makes a filter of what is done to a text.
	text := func(fn func(string) string) func(any) (any, error) {
		return func(v any) (any, error) {
			if v == nil {
				return nil, nil
			}
			s := fn(plain(v))
			return s, r.spend(len(s))
		}
	}
	with := func(fn func(s, arg string) string) func(any, any) (any, error) {
		return func(v, arg any) (any, error) {
			s := fn(plain(v), plain(arg))
			return s, r.spend(len(s))
		}
	}
	with2 := func(fn func(s, a, b string) string) func(any, any, any) (any, error) {
		return func(v, a, b any) (any, error) {
			s := fn(plain(v), plain(a), plain(b))
			return s, r.spend(len(s))
		}
	}
	list := func(fn func([]any) any) func(any) (any, error) {
		return func(v any) (any, error) {
			l, err := r.list(v)
			if err != nil {
				return nil, err
			}
			return fn(l), nil
		}
	}
	arithmetic := func(fn func(a, b float64) float64) func(any, any) (any, error) {
		return func(v, arg any) (any, error) {
			a, ok := numeric(v)
			b, ok2 := numeric(arg)
			if !ok2 {
				return nil, wrong("the argument is not a number")
			}
			if !ok && v != nil {
				return nil, wrong("the value is not a number")
			}
			return tidy(fn(a, b)), nil
		}
	}
	rounding := func(fn func(float64) float64) func(any, any) (any, error) {
		return func(v, places any) (any, error) {
			f, ok := numeric(v)
			if !ok {
				return v, nil
			}
			scale := math.Pow10(min(max(whole(places), 0), 9))
			return tidy(fn(f*scale) / scale), nil
		}
	}
	return map[string]any{
		"default": func(v, other any) any {
			if v == nil || v == false || plain(v) == "" {
				return other
			}
			return v
		},
		"json": func(v any) (any, error) {
			out := string(appendJSON(nil, v))
			return out, r.spend(len(out))
		},

		// Texts.
		"append":         with(func(s, a string) string { return s + a }),
		"prepend":        with(func(s, a string) string { return a + s }),
		"capitalize":     text(capitalize),
		"titlecase":      text(titlecase),
		"upcase":         text(strings.ToUpper),
		"downcase":       text(strings.ToLower),
		"strip":          text(strings.TrimSpace),
		"lstrip":         text(func(s string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) }),
		"rstrip":         text(func(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }),
		"strip_newlines": text(func(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }),
		"strip_html":     text(stripHTML),
		"remove":         with(func(s, a string) string { return strings.ReplaceAll(s, a, "") }),
		"remove_first":   with(func(s, a string) string { return strings.Replace(s, a, "", 1) }),
		"replace":        r.replace,
		"replace_first":  with2(func(s, a, b string) string { return strings.Replace(s, a, b, 1) }),
		"truncate": func(v, length, ellipsis any) (any, error) {
			s := truncate(plain(v), length, ellipsis)
			return s, r.spend(len(s))
		},
		"truncatewords": func(v, count, ellipsis any) (any, error) {
			s := truncateWords(plain(v), count, ellipsis)
			return s, r.spend(len(s))
		},
		"split": func(v, separator any) (any, error) {
			s, sep := plain(v), plain(separator)
			if err := r.spend(16 * (strings.Count(s, sep) + 1)); err != nil {
				return nil, err
			}
			parts := strings.Split(s, sep)
			if sep == " " {
				parts = strings.Fields(s)
			}
			for len(parts) > 0 && parts[len(parts)-1] == "" {
				parts = parts[:len(parts)-1]
			}
			out := make([]any, len(parts))
			for i, p := range parts {
				out[i] = p
			}
			return out, nil
		},
		"slice": r.slice,

		// What a text is written into. These give markup: it is not escaped again.
		"raw":         func(v any) any { return markup{plain(v), formRaw} },
		"escape":      r.mark(formHTML, escapeHTML),
		"escape_once": r.mark(formHTML, func(s string) string { return escapeHTML(html.UnescapeString(s)) }),
		"newline_to_br": r.mark(formHTML, func(s string) string {
			return strings.ReplaceAll(escapeHTML(strings.ReplaceAll(s, "\r\n", "\n")), "\n", "<br>\n")
		}),
		"url_encode": r.mark(formURL, url.QueryEscape),
		"url_decode": text(func(s string) string {
			if decoded, err := url.QueryUnescape(s); err == nil && utf8.ValidString(decoded) {
				return decoded
			}
			return s
		}),

		// Numbers.
		"plus":   arithmetic(func(a, b float64) float64 { return a + b }),
		"minus":  arithmetic(func(a, b float64) float64 { return a - b }),
		"times":  arithmetic(func(a, b float64) float64 { return a * b }),
		"modulo": func(v, arg any) (any, error) { return divide(v, arg, math.Mod) },
		"divided_by": func(v, arg any) (any, error) {
			_, integer := arg.(int)
			return divide(v, arg, func(a, b float64) float64 {
				if integer && a == math.Trunc(a) {
					return math.Floor(a / b)
				}
				return a / b
			})
		},
		"at_least": arithmetic(math.Max),
		"at_most":  arithmetic(math.Min),
		"abs": func(v any) any {
			if f, ok := numeric(v); ok {
				return tidy(math.Abs(f))
			}
			return v
		},
		"ceil":      rounding(math.Ceil),
		"floor":     rounding(math.Floor),
		"round":     rounding(math.Round),
		"number":    func(v, places, locale any) (any, error) { return formatDecimal(v, places, locale) },
		"money":     func(v, currency, locale any) (any, error) { return formatMoney(v, currency, locale) },
		"currency":  func(v, currency, locale any) (any, error) { return formatMoney(v, currency, locale) },
		"plural":    plural,
		"pluralize": plural,

		// Times.
		"date": func(v, format, zone any) (any, error) { return r.date(v, format, zone) },

		// Lists.
		"first": list(func(l []any) any {
			if len(l) == 0 {
				return nil
			}
			return l[0]
		}),
		"last": list(func(l []any) any {
			if len(l) == 0 {
				return nil
			}
			return l[len(l)-1]
		}),
		"size": func(v any) any {
			switch v := v.(type) {
			case []any:
				return len(v)
			case yaml.MapSlice:
				return len(v)
			case span:
				return max(v.Len(), 0)
			}
			return utf8.RuneCountInString(plain(v))
		},
		"join": func(v, separator any) (any, error) {
			l, err := r.list(v)
			if err != nil {
				return nil, err
			}
			sep := " "
			if separator != nil {
				sep = plain(separator)
			}
			n := 0
			parts := make([]string, 0, len(l))
			for _, item := range l {
				if item != nil {
					parts = append(parts, plain(item))
					n += len(parts[len(parts)-1]) + len(sep)
				}
			}
			if err := r.spend(n); err != nil {
				return nil, err
			}
			return strings.Join(parts, sep), nil
		},
		"reverse": list(func(l []any) any {
			l = slices.Clone(l)
			slices.Reverse(l)
			return l
		}),
		"sort": func(v, key any) (any, error) { return r.sorted(v, key, compare) },
		"sort_natural": func(v, key any) (any, error) {
			return r.sorted(v, key, func(a, b any) int { return cmp.Compare(strings.ToLower(plain(a)), strings.ToLower(plain(b))) })
		},
		"uniq": list(func(l []any) any {
			seen := map[string]bool{}
			out := []any{}
			for _, item := range l {
				if key := string(appendJSON(nil, item)); !seen[key] {
					seen[key] = true
					out = append(out, item)
				}
			}
			return out
		}),
		"compact": list(func(l []any) any {
			return slices.DeleteFunc(slices.Clone(l), func(item any) bool { return item == nil })
		}),
		"concat": func(v, other any) (any, error) {
			a, err := r.list(v)
			if err != nil {
				return nil, err
			}
			b, err := r.list(other)
			if err != nil {
				return nil, err
			}
			return slices.Concat(a, b), r.spend(16 * (len(a) + len(b)))
		},
		"map": func(v, key any) (any, error) {
			l, err := r.list(v)
			if err != nil {
				return nil, err
			}
			out := make([]any, len(l))
			for i, item := range l {
				out[i] = member(item, plain(key))
			}
			return out, nil
		},
		"where": func(v, key, value any) (any, error) {
			l, err := r.list(v)
			if err != nil {
				return nil, err
			}
			out := []any{}
			for _, item := range l {
				m := member(item, plain(key))
				if value == nil && m != nil && m != false || value != nil && same(m, value) {
					out = append(out, item)
				}
			}
			return out, nil
		},
		"sum": func(v, key any) (any, error) {
			l, err := r.list(v)
			if err != nil {
				return nil, err
			}
			total := 0.0
			for _, item := range l {
				if key != nil {
					item = member(item, plain(key))
				}
				f, _ := numeric(item)
				total += f
			}
			return tidy(total), nil
		},
	}
}

// mark makes a filter that gives markup.
func (r *run) mark(as form, fn func(string) string) func(any) (any, error) {
	return func(v any) (any, error) {
		if v == nil {
			return nil, nil
		}
		s := fn(plain(v))
		if as == formHTML && !r.html {
			return s, r.spend(len(s))
		}
		return markup{s, as}, r.spend(len(s))
	}
}

// list returns a value as a list.
func (r *run) list(v any) ([]any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []any:
		return v, r.spend(16 * len(v))
	}
	n, at := items(v)
	if at == nil {
		return []any{v}, nil
	}
	if n > r.maxBytes {
		return nil, errSize
	}
	if err := r.spend(16 * n); err != nil {
		return nil, err
	}
	out := make([]any, n)
	for i := range n {
		out[i] = at(i)
	}
	return out, nil
}

func (r *run) sorted(v, key any, compare func(a, b any) int) (any, error) {
	l, err := r.list(v)
	if err != nil {
		return nil, err
	}
	l = slices.Clone(l)
	slices.SortStableFunc(l, func(a, b any) int {
		if key != nil {
			a, b = member(a, plain(key)), member(b, plain(key))
		}
		return compare(a, b)
	})
	return l, nil
}

// compare orders numbers before texts, and what is missing last.
func compare(a, b any) int {
	x, xok := number(a)
	y, yok := number(b)
	switch {
	case a == nil || b == nil:
		return cmp.Compare(rank(a == nil), rank(b == nil))
	case xok && yok:
		return cmp.Compare(x, y)
	case xok != yok:
		return cmp.Compare(rank(!xok), rank(!yok))
	}
	return cmp.Compare(plain(a), plain(b))
}

func rank(later bool) int {
	if later {
		return 1
	}
	return 0
}

func member(v any, name string) any {
	if m, ok := v.(yaml.MapSlice); ok {
		for _, item := range m {
			if item.Key == name {
				return item.Value
			}
		}
	}
	return nil
}

func (r *run) replace(v, old, with any) (any, error) {
	s, o, w := plain(v), plain(old), plain(with)
	if o == "" {
		return s, nil
	}
	if err := r.spend(len(s) + strings.Count(s, o)*max(len(w)-len(o), 0)); err != nil {
		return nil, err
	}
	return strings.ReplaceAll(s, o, w), nil
}

func (r *run) slice(v, start, length any) (any, error) {
	cut := func(n int) (int, int) {
		from, count := whole(start), 1
		if length != nil {
			count = max(whole(length), 0)
		}
		if from < 0 {
			from = max(n+from, 0)
		}
		from = min(from, n)
		return from, min(from+count, n)
	}
	if l, ok := v.([]any); ok {
		from, to := cut(len(l))
		return l[from:to], nil
	}
	letters := []rune(plain(v))
	if err := r.spend(4 * len(letters)); err != nil {
		return nil, err
	}
	from, to := cut(len(letters))
	return string(letters[from:to]), nil
}

func capitalize(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToUpper(first)) + s[size:]
}

func titlecase(s string) string {
	start := true
	return strings.Map(func(c rune) rune {
		was := start
		start = unicode.IsSpace(c) || c == '-'
		if was {
			return unicode.ToUpper(c)
		}
		return c
	}, s)
}

var tags = regexp.MustCompile(`(?s)<!--.*?-->|<(?:script|style)\b.*?</(?:script|style)\s*>|<[^>]*>`)

func stripHTML(s string) string { return tags.ReplaceAllString(s, "") }

func truncate(s string, length, ellipsis any) string {
	n, end := 50, "…"
	if length != nil {
		n = max(whole(length), 0)
	}
	if ellipsis != nil {
		end = plain(ellipsis)
	}
	letters := []rune(s)
	if len(letters) <= n {
		return s
	}
	return strings.TrimRightFunc(string(letters[:max(n-utf8.RuneCountInString(end), 0)]), unicode.IsSpace) + end
}

func truncateWords(s string, count, ellipsis any) string {
	n, end := 15, "…"
	if count != nil {
		n = max(whole(count), 1)
	}
	if ellipsis != nil {
		end = plain(ellipsis)
	}
	words := strings.Fields(s)
	if len(words) <= n {
		return s
	}
	return strings.Join(words[:n], " ") + end
}

func divide(v, arg any, fn func(a, b float64) float64) (any, error) {
	a, ok := numeric(v)
	b, ok2 := numeric(arg)
	switch {
	case !ok2:
		return nil, wrong("the argument is not a number")
	case b == 0:
		return nil, wrong("division by zero")
	case !ok && v != nil:
		return nil, wrong("the value is not a number")
	}
	return tidy(fn(a, b)), nil
}

// tidy makes a whole number of one that is.
func tidy(f float64) any {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int(f)
	}
	return math.Round(f*1e9) / 1e9
}

// plural gives the first of two words for one thing, the second for any other
// number of things.
func plural(v, one, many any) any {
	if f, ok := numeric(v); ok && f == 1 {
		return one
	}
	if many == nil {
		return plain(one) + "s"
	}
	return many
}

// locales are how numbers are written: the mark between thousands, that
// before decimals, and whether a currency comes after.
var locales = map[string]struct {
	thousands, decimal string
	after              bool
}{
	"en": {",", ".", false}, "de": {".", ",", true}, "fr": {"\u202f", ",", true}, "es": {".", ",", true},
	"it": {".", ",", true}, "pt": {".", ",", true}, "nl": {".", ",", false}, "pl": {"\u00a0", ",", true},
	"sv": {"\u00a0", ",", true}, "da": {".", ",", true}, "fi": {"\u00a0", ",", true}, "nb": {"\u00a0", ",", true},
	"cs": {"\u00a0", ",", true}, "ja": {",", ".", false}, "ch": {"’", ".", false},
}

// currencies are those with a sign of their own, and how many decimals they
// have; others are written by their code, with two.
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

func localeOf(locale any) (string, error) {
	if locale == nil {
		return "en", nil
	}
	name := strings.ToLower(plain(locale))
	if name == "de-ch" {
		return "ch", nil
	}
	name, _, _ = strings.Cut(strings.ReplaceAll(name, "_", "-"), "-")
	if _, ok := locales[name]; !ok || name == "ch" {
		return "", wrong("the locale is not known; write one such as en or de")
	}
	return name, nil
}

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

func formatDecimal(v, places, locale any) (any, error) {
	f, ok := numeric(v)
	if !ok {
		return v, nil
	}
	name, err := localeOf(locale)
	if err != nil {
		return nil, err
	}
	f = roundHalfAway(f, min(max(whole(places), 0), 6))
	text := group(f, min(max(whole(places), 0), 6), name)
	if f < 0 {
		text = "-" + text
	}
	return text, nil
}

// roundHalfAway rounds the number that was meant, so that 1.005, which no
// double is, becomes 1.01.
func roundHalfAway(f float64, places int) float64 {
	scale := math.Pow10(places)
	return math.Round(math.Round(f*scale*1e6)/1e6) / scale
}

func formatMoney(v, currency, locale any) (any, error) {
	f, ok := numeric(v)
	if !ok {
		return v, nil
	}
	code := "EUR"
	if currency != nil {
		code = strings.ToUpper(plain(currency))
	}
	if !currencyForm.MatchString(code) {
		return nil, wrong(`the currency is not a code; write three letters such as "EUR"`)
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
	case locales[name].after:
		return minus + amount + "\u00a0" + sign, nil
	case sign == code || name == "nl" || name == "ch":
		return sign + "\u00a0" + minus + amount, nil
	}
	return minus + sign + amount, nil
}

// timeOf reads a time: RFC 3339, a date, or seconds since 1970.
func (r *run) timeOf(v any) (time.Time, bool) {
	if f, ok := number(v); ok {
		if f > 1e11 { // milliseconds
			f /= 1000
		}
		if math.Abs(f) > 1e12 {
			return time.Time{}, false
		}
		return time.Unix(int64(f), 0).UTC(), true
	}
	s := strings.TrimSpace(plain(v))
	switch s {
	case "now", "today":
		return r.asOf, true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

var dateOnly = regexp.MustCompile(`^\s*\d{4}-\d\d-\d\d\s*$`)

// date formats a time in the zone given, or in the customer's. A date without
// a time is that date everywhere.
func (r *run) date(v, format, zone any) (any, error) {
	if v == nil {
		return nil, nil
	}
	t, ok := r.timeOf(v)
	if !ok {
		return v, nil
	}
	to := r.zone
	if zone != nil {
		var err error
		if to, err = loadZone(plain(zone)); err != nil {
			return nil, wrong("the time zone is not known; write one such as Europe/Berlin")
		}
	}
	if to != nil && !dateOnly.MatchString(plain(v)) {
		t = t.In(to)
	}
	pattern := "%d %B %Y"
	if format != nil {
		pattern = plain(format)
	}
	out := strftime(t, pattern)
	return out, r.spend(len(out))
}

// strftime formats a time as the C library's function of that name does, in
// English.
func strftime(t time.Time, pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' || i+1 == len(pattern) {
			b.WriteByte(pattern[i])
			continue
		}
		i++
		bare := pattern[i] == '-' && i+1 < len(pattern)
		if bare {
			i++
		}
		pad := func(n, width int, with byte) {
			s := strconv.Itoa(n)
			for k := len(s); k < width && !bare; k++ {
				b.WriteByte(with)
			}
			b.WriteString(s)
		}
		hour12 := (t.Hour()+11)%12 + 1
		switch pattern[i] {
		case 'Y':
			pad(t.Year(), 4, '0')
		case 'y':
			pad(t.Year()%100, 2, '0')
		case 'm':
			pad(int(t.Month()), 2, '0')
		case 'd':
			pad(t.Day(), 2, '0')
		case 'e':
			pad(t.Day(), 2, ' ')
		case 'j':
			pad(t.YearDay(), 3, '0')
		case 'H':
			pad(t.Hour(), 2, '0')
		case 'I':
			pad(hour12, 2, '0')
		case 'l':
			pad(hour12, 2, ' ')
		case 'M':
			pad(t.Minute(), 2, '0')
		case 'S':
			pad(t.Second(), 2, '0')
		case 'p':
			b.WriteString(t.Format("PM"))
		case 'P':
			b.WriteString(strings.ToLower(t.Format("PM")))
		case 'A':
			b.WriteString(t.Weekday().String())
		case 'a':
			b.WriteString(t.Weekday().String()[:3])
		case 'B':
			b.WriteString(t.Month().String())
		case 'b', 'h':
			b.WriteString(t.Month().String()[:3])
		case 'u':
			pad((int(t.Weekday())+6)%7+1, 1, '0')
		case 'w':
			pad(int(t.Weekday()), 1, '0')
		case 'Z':
			b.WriteString(t.Format("MST"))
		case 'z':
			b.WriteString(t.Format("-0700"))
		case 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case 'F':
			b.WriteString(t.Format("2006-01-02"))
		case 'T':
			b.WriteString(t.Format("15:04:05"))
		case 'R':
			b.WriteString(t.Format("15:04"))
		case 'D':
			b.WriteString(t.Format("01/02/06"))
		case '%':
			b.WriteByte('%')
		default:
			b.WriteByte('%')
			b.WriteByte(pattern[i])
		}
	}
	return b.String()
}

// appendJSON appends a value as JSON, objects in their order.
func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case yaml.MapSlice:
		dst = append(dst, '{')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, item.Key)
			dst = append(dst, ':')
			dst = appendJSON(dst, item.Value)
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, item)
		}
		return append(dst, ']')
	case float64:
		return append(dst, formatNumber(v)...)
	case nil, bool, int, string:
		text, err := json.Marshal(v)
		if err == nil {
			return append(dst, text...)
		}
	}
	text, err := json.Marshal(plain(v))
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, text...)
}
