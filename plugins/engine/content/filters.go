package content

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v2"
)

// A filter is a function from a value and arguments to a value:
//
//	{{ traits.city | replace: "St.", "Saint" | upcase }}
//
// calls replace with the value of traits.city and two arguments, and upcase with
// the result. The filters follow these rules, which are those of Liquid:
//
//   - An absent value is the empty text for the filters of texts, 0 for those of
//     numbers, and the empty list for those of lists.
//   - A text with a number is a number for the filters of numbers; any other text
//     is 0. Integers are divided as integers; an amount of the profile is not.
//   - A wrong number of arguments is reported when the block is linted. An argument
//     that has no sensible result, such as a division by zero, fails the rendering,
//     so that the block returns its fallback.
//   - A filter counts the size of its result against the budget.
//
// In an HTML block every output is escaped for its position, so escape does nothing
// there. Captured HTML stays HTML in the filters that can preserve it (see
// keepMarkup); all others treat it as text, which is escaped when it is written.

// filter is the implementation of a filter.
type filter struct {
	least, most int // number of arguments
	apply       func(r *run, v any, args []any) (any, error)
	// check, if set, checks literal arguments at compile time.
	check func(args []expression) (problem string)
}

func (f *filter) arity() string {
	switch {
	case f.most == 0:
		return "takes no arguments"
	case f.least == f.most && f.most == 1:
		return "takes 1 argument"
	case f.least == f.most:
		return fmt.Sprintf("takes %d arguments", f.most)
	}
	return fmt.Sprintf("takes %d to %d arguments", f.least, f.most)
}

// filterList is the sorted list of the names of filters.
var filterList []string

func argument(args []any, i int) any {
	if i < len(args) {
		return args[i]
	}
	return nil
}

// text makes a filter of a function of a text.
func text(fn func(string) string) *filter {
	return &filter{apply: func(r *run, v any, _ []any) (any, error) {
		s := fn(plain(v))
		return s, r.spend(len(s))
	}}
}

// textWith makes a filter of a function of a text and a number of texts.
func textWith(least, most int, fn func(s string, args []string) string) *filter {
	return &filter{least: least, most: most, apply: func(r *run, v any, args []any) (any, error) {
		texts := make([]string, most)
		for i, arg := range args {
			texts[i] = plain(arg)
		}
		s := fn(plain(v), texts)
		return s, r.spend(len(s))
	}}
}

// keepMarkup extends a filter of texts to HTML: onHTML is applied to markup, with
// its arguments as HTML, and the result is markup.
func keepMarkup(f *filter, onHTML func(html string, args []string) string) *filter {
	plainly := f.apply
	f.apply = func(r *run, v any, args []any) (any, error) {
		m, isMarkup := v.(markup)
		isHTML := isMarkup && m.form == formHTML
		texts := make([]string, len(args))
		for i, arg := range args {
			if m, ok := arg.(markup); ok && m.form == formHTML {
				isHTML, texts[i] = true, m.text
				continue
			}
			texts[i] = escapeHTML(plain(arg))
		}
		if !isHTML {
			return plainly(r, v, args)
		}
		if !isMarkup {
			m.text = escapeHTML(plain(v))
		}
		s := onHTML(m.text, texts)
		return markup{s, formHTML}, r.spend(len(s))
	}
	return f
}

// letters applies a function to the text between the tags of HTML.
func letters(fn func(string) string) func(string, []string) string {
	return func(s string, _ []string) string {
		var b strings.Builder
		last := 0
		for _, tag := range tags.FindAllStringIndex(s, -1) {
			b.WriteString(escapeHTML(fn(decodeEntities(s[last:tag[0]]))))
			b.WriteString(s[tag[0]:tag[1]])
			last = tag[1]
		}
		b.WriteString(escapeHTML(fn(decodeEntities(s[last:]))))
		return b.String()
	}
}

func textual(fn func(string) string) *filter { return keepMarkup(text(fn), letters(fn)) }

// spaces makes a filter of a function that only removes white space.
func spaces(fn func(string) string) *filter {
	return keepMarkup(text(fn), func(s string, _ []string) string { return fn(s) })
}

// list makes a filter of a function of a list.
func list(least, most int, fn func(r *run, l []any, args []any) (any, error)) *filter {
	return &filter{least: least, most: most, apply: func(r *run, v any, args []any) (any, error) {
		l, err := r.list(v)
		if err != nil {
			return nil, err
		}
		return fn(r, l, args)
	}}
}

// rounding makes a filter of a function that rounds to an integer.
func rounding(fn func(float64) float64) *filter {
	return &filter{apply: func(_ *run, v any, _ []any) (any, error) {
		n, _ := numeric(v)
		if _, ok := n.(int64); ok {
			return n, nil
		}
		f, _ := number(n)
		return integer(fn(f)), nil
	}}
}

// integer converts a whole number that is too large for an integer to a float.
func integer(f float64) any {
	if math.Abs(f) < 1<<62 {
		return int64(f)
	}
	return f
}

// arithmetic makes a filter of a function of two numbers. The result is an integer if
// both are, and an amount if one is.
func arithmetic(exact func(a, b int64) (int64, bool), fn func(a, b float64) float64) *filter {
	return &filter{least: 1, most: 1, apply: func(_ *run, v any, args []any) (any, error) {
		a, _ := numeric(v)
		b, _ := numeric(args[0])
		x, xIsInt := a.(int64)
		y, yIsInt := b.(int64)
		if xIsInt && yIsInt {
			if n, ok := exact(x, y); ok {
				return n, nil
			}
		}
		f, _ := number(a)
		g, _ := number(b)
		return sameKind(a, b, fn(f, g))
	}}
}

// sameKind returns the result of arithmetic with a and b.
func sameKind(a, b any, f float64) (any, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, wrong("the result is too large")
	}
	f = tidy(f)
	_, isAmount := a.(amount)
	if _, ok := b.(amount); ok || isAmount {
		return amount(f), nil
	}
	return f, nil
}

// tidy removes the binary error of decimal arithmetic: 0.1 + 0.2 is 0.3.
func tidy(f float64) float64 {
	if math.Abs(f) < 1e6 {
		return math.Round(f*1e9) / 1e9
	}
	return f
}

// division makes a filter of a function of two numbers of which the second must not
// be zero.
func division(exact func(a, b int64) int64, fn func(a, b float64) float64) *filter {
	return &filter{least: 1, most: 1, apply: func(_ *run, v any, args []any) (any, error) {
		a, _ := numeric(v)
		b, ok := numeric(args[0])
		f, _ := number(a)
		g, _ := number(b)
		switch {
		case !ok && !isNil(args[0]):
			return nil, wrong("the argument is not a number")
		case g == 0:
			return nil, wrong("division by zero")
		}
		x, xIsInt := a.(int64)
		y, yIsInt := b.(int64)
		if xIsInt && yIsInt {
			return exact(x, y), nil
		}
		return sameKind(a, b, fn(f, g))
	}}
}

func floorDivide(a, b int64) int64 {
	if b == -1 {
		return -a
	}
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func floorModulo(a, b int64) int64 {
	if b == -1 {
		return 0
	}
	m := a % b
	if m != 0 && (m < 0) != (b < 0) {
		m += b
	}
	return m
}

// within returns an operation of integers for operands below a bound, beyond which
// the result might overflow.
func within(bound int64, op func(a, b int64) int64) func(a, b int64) (int64, bool) {
	return func(a, b int64) (int64, bool) {
		if a <= -bound || a >= bound || b <= -bound || b >= bound {
			return 0, false
		}
		return op(a, b), true
	}
}

// decoded makes a filter of a decoding that fails for invalid input.
func decoded(decode func(string) ([]byte, error)) *filter {
	return &filter{apply: func(r *run, v any, _ []any) (any, error) {
		s := plain(v)
		out, err := decode(strings.TrimSpace(s))
		if err != nil || !utf8.Valid(out) {
			return nil, wrong("the value is not valid base64 of a text")
		}
		return string(out), r.spend(len(out))
	}}
}

// filters are all filters by name.
var filters map[string]*filter

func init() {
	encoded := func(e *base64.Encoding) *filter {
		return text(func(s string) string { return e.EncodeToString([]byte(s)) })
	}
	filters = map[string]*filter{
		"default": {most: 1, apply: func(_ *run, v any, args []any) (any, error) {
			if v == nil || v == false || isEmpty(v) || v == empty || v == blank {
				return argument(args, 0), nil
			}
			return v, nil
		}},
		"json": {apply: func(r *run, v any, _ []any) (any, error) {
			out := string(appendJSON(nil, v))
			return out, r.spend(len(out))
		}},

		// Texts.
		"append":     keepMarkup(textWith(1, 1, func(s string, a []string) string { return s + a[0] }), func(s string, a []string) string { return s + a[0] }),
		"prepend":    keepMarkup(textWith(1, 1, func(s string, a []string) string { return a[0] + s }), func(s string, a []string) string { return a[0] + s }),
		"capitalize": textual(capitalize),
		"titlecase":  textual(titlecase),
		"upcase":     textual(strings.ToUpper),
		"downcase":   textual(strings.ToLower),
		"strip":      spaces(strings.TrimSpace),
		"lstrip":     spaces(func(s string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) }),
		"rstrip":     spaces(func(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }),
		"strip_newlines": spaces(func(s string) string {
			return strings.NewReplacer("\r", "", "\n", "").Replace(s)
		}),
		"strip_html": {apply: func(r *run, v any, _ []any) (any, error) {
			if m, ok := v.(markup); ok && m.form == formHTML {
				return decodeEntities(stripHTML(m.text)), nil
			}
			s := stripHTML(plain(v))
			return s, r.spend(len(s))
		}},
		"remove":       textWith(1, 1, func(s string, a []string) string { return strings.ReplaceAll(s, a[0], "") }),
		"remove_first": textWith(1, 1, func(s string, a []string) string { return strings.Replace(s, a[0], "", 1) }),
		"remove_last":  textWith(1, 1, func(s string, a []string) string { return replaceLast(s, a[0], "") }),
		"replace":      {least: 1, most: 2, apply: replaceAll},
		"replace_first": textWith(1, 2, func(s string, a []string) string {
			return strings.Replace(s, a[0], a[1], 1)
		}),
		"replace_last": textWith(2, 2, func(s string, a []string) string { return replaceLast(s, a[0], a[1]) }),
		"truncate": {most: 2, apply: func(r *run, v any, args []any) (any, error) {
			return shortened(r, args, 50, func(n int, end string) string { return truncate(plain(v), n, end) })
		}},
		"truncatewords": {most: 2, apply: func(r *run, v any, args []any) (any, error) {
			return shortened(r, args, 15, func(n int, end string) string { return truncateWords(plain(v), n, end) })
		}},
		"split":                  {least: 1, most: 1, apply: split},
		"slice":                  {least: 1, most: 2, apply: slice},
		"base64_encode":          encoded(base64.StdEncoding),
		"base64_url_safe_encode": encoded(base64.URLEncoding),
		"base64_decode":          decoded(base64.StdEncoding.DecodeString),
		"base64_url_safe_decode": decoded(base64.URLEncoding.DecodeString),

		// Texts that are written as they are, or encoded for a URL.
		"raw": {apply: func(_ *run, v any, _ []any) (any, error) { return markup{plain(v), formRaw}, nil }},
		"escape": {apply: func(r *run, v any, _ []any) (any, error) {
			if r.html {
				return v, nil
			}
			s := escapeHTML(plain(v))
			return s, r.spend(len(s))
		}},
		"escape_once": {apply: func(r *run, v any, _ []any) (any, error) {
			if m, ok := v.(markup); ok && m.form == formHTML && r.html {
				return v, nil
			}
			s := html.UnescapeString(plain(v))
			if !r.html {
				s = escapeHTML(s)
			}
			return s, r.spend(len(s))
		}},
		"newline_to_br": {apply: func(r *run, v any, _ []any) (any, error) {
			s := strings.ReplaceAll(plain(v), "\r\n", "\n")
			if m, ok := v.(markup); r.html && !(ok && m.form == formHTML) {
				s = escapeHTML(s)
			}
			s = strings.ReplaceAll(s, "\n", "<br />\n")
			if !r.html {
				return s, r.spend(len(s))
			}
			return markup{s, formHTML}, r.spend(len(s))
		}},
		"url_encode": {apply: func(r *run, v any, _ []any) (any, error) {
			s := url.QueryEscape(plain(v))
			return markup{s, formURL}, r.spend(len(s))
		}},
		"url_decode": text(func(s string) string {
			if decoded, err := url.QueryUnescape(s); err == nil && utf8.ValidString(decoded) {
				return decoded
			}
			return s
		}),

		// Numbers.
		"plus":       arithmetic(within(1<<62, func(a, b int64) int64 { return a + b }), func(a, b float64) float64 { return a + b }),
		"minus":      arithmetic(within(1<<62, func(a, b int64) int64 { return a - b }), func(a, b float64) float64 { return a - b }),
		"times":      arithmetic(within(1<<31, func(a, b int64) int64 { return a * b }), func(a, b float64) float64 { return a * b }),
		"divided_by": division(floorDivide, func(a, b float64) float64 { return a / b }),
		"modulo":     division(floorModulo, func(a, b float64) float64 { return a - b*math.Floor(a/b) }),
		"at_least":   bounded(func(v, bound float64) bool { return v < bound }),
		"at_most":    bounded(func(v, bound float64) bool { return v > bound }),
		"abs": {apply: func(_ *run, v any, _ []any) (any, error) {
			switch n, _ := numeric(v); n := n.(type) {
			case int64:
				return max(n, -n), nil
			case amount:
				return amount(math.Abs(float64(n))), nil
			case float64:
				return math.Abs(n), nil
			}
			return int64(0), nil
		}},
		"ceil":  rounding(math.Ceil),
		"floor": rounding(math.Floor),
		"round": {most: 1, apply: round},
		"number": {most: 2, apply: func(_ *run, v any, args []any) (any, error) {
			return formatDecimal(v, argument(args, 0), argument(args, 1))
		}},
		"money": {most: 2, apply: func(_ *run, v any, args []any) (any, error) {
			return formatMoney(v, argument(args, 0), argument(args, 1))
		}},
		"plural": {least: 1, most: 2, apply: plural},
		"date":   {least: 1, most: 2, apply: date, check: checkDate},

		// Lists.
		"first": {apply: func(r *run, v any, _ []any) (any, error) { return end(r, v, 0) }},
		"last":  {apply: func(r *run, v any, _ []any) (any, error) { return end(r, v, -1) }},
		"size":  {apply: func(_ *run, v any, _ []any) (any, error) { return sizeOf(v), nil }},
		"join":  {most: 1, apply: join},
		"reverse": list(0, 0, func(_ *run, l []any, _ []any) (any, error) {
			l = slices.Clone(l)
			slices.Reverse(l)
			return l, nil
		}),
		"sort": list(0, 1, func(r *run, l []any, args []any) (any, error) { return sorted(r, l, args, compare) }),
		"sort_natural": list(0, 1, func(r *run, l []any, args []any) (any, error) {
			return sorted(r, l, args, func(a, b any) (int, error) {
				if isNil(a) || isNil(b) {
					return compare(a, b)
				}
				return cmp.Compare(strings.ToLower(plain(a)), strings.ToLower(plain(b))), nil
			})
		}),
		"uniq": list(0, 1, func(_ *run, l []any, args []any) (any, error) {
			seen := map[string]bool{}
			out := []any{}
			for _, item := range l {
				if key := string(appendJSON(nil, keyed(item, args))); !seen[key] {
					seen[key] = true
					out = append(out, item)
				}
			}
			return out, nil
		}),
		"compact": list(0, 1, func(_ *run, l []any, args []any) (any, error) {
			return slices.DeleteFunc(slices.Clone(l), func(item any) bool { return isNil(keyed(item, args)) }), nil
		}),
		"concat": list(1, 1, func(r *run, l []any, args []any) (any, error) {
			switch args[0].(type) {
			case []any, span, missing:
			default:
				return nil, wrong("the argument is not a list")
			}
			other, err := r.list(args[0])
			if err != nil {
				return nil, err
			}
			return slices.Concat(l, other), r.spend(16 * (len(l) + len(other)))
		}),
		"map": list(1, 1, func(_ *run, l []any, args []any) (any, error) {
			out := make([]any, len(l))
			for i, item := range l {
				if _, ok := item.(yaml.MapSlice); !ok && !isNil(item) {
					return nil, wrong("an item of the list is not an object")
				}
				out[i] = member(item, plain(args[0]))
			}
			return out, nil
		}),
		"where":  list(1, 2, selecting(true)),
		"reject": list(1, 2, selecting(false)),
		"find": list(1, 2, func(_ *run, l []any, args []any) (any, error) {
			return found(l, args, func(i int) any { return l[i] }, nil)
		}),
		"find_index": list(1, 2, func(_ *run, l []any, args []any) (any, error) {
			return found(l, args, func(i int) any { return int64(i) }, nil)
		}),
		"has": list(1, 2, func(_ *run, l []any, args []any) (any, error) {
			return found(l, args, func(int) any { return true }, false)
		}),
		"sum": list(0, 1, func(_ *run, l []any, args []any) (any, error) {
			var total any = int64(0)
			for _, item := range l {
				if _, isObject := item.(yaml.MapSlice); len(args) > 0 && !isObject && !isNil(item) {
					return nil, wrong("an item of the list is not an object")
				}
				var err error
				if total, err = filters["plus"].apply(nil, total, []any{keyed(item, args)}); err != nil {
					return nil, err
				}
			}
			return total, nil
		}),
	}
	filters["currency"] = filters["money"]
	filters["pluralize"] = filters["plural"]
	filterList = slices.Sorted(maps.Keys(filters))
}

// bounded makes at_least and at_most: the value, or the bound if the value is out of
// it.
func bounded(isOut func(v, bound float64) bool) *filter {
	return &filter{least: 1, most: 1, apply: func(_ *run, v any, args []any) (any, error) {
		n, _ := numeric(v)
		bound, _ := numeric(args[0])
		x, _ := number(n)
		y, _ := number(bound)
		if isOut(x, y) {
			return bound, nil
		}
		return n, nil
	}}
}

func round(_ *run, v any, args []any) (any, error) {
	n, _ := numeric(v)
	places := smallInt(argument(args, 0))
	f, _ := number(n)
	if places <= 0 {
		if _, ok := n.(int64); ok && places == 0 {
			return n, nil
		}
		scale := math.Pow10(min(-places, 18))
		return integer(math.Round(f/scale) * scale), nil
	}
	if _, ok := n.(int64); ok {
		return n, nil
	}
	return sameKind(n, n, roundHalfAway(f, min(places, 9)))
}

// list returns a value as a list. The lists inside of a list become parts of it.
func (r *run) list(v any) ([]any, error) {
	switch v := v.(type) {
	case nil, missing, special:
		return nil, nil
	case []any:
		if !slices.ContainsFunc(v, func(item any) bool { _, ok := item.([]any); return ok }) {
			return v, r.spend(16 * len(v))
		}
		var out []any
		for _, item := range v {
			if inner, ok := item.([]any); ok {
				flat, err := r.list(inner)
				if err != nil {
					return nil, err
				}
				out = append(out, flat...)
				continue
			}
			out = append(out, item)
		}
		return out, r.spend(16 * len(out))
	case span:
		n := v.length()
		if n > r.maxBytes {
			return nil, errSize
		}
		out := make([]any, n)
		for i := range n {
			out[i] = v.from + int64(i)
		}
		return out, r.spend(16 * n)
	}
	return []any{v}, nil
}

func sizeOf(v any) any {
	switch v := v.(type) {
	case []any:
		return int64(len(v))
	case yaml.MapSlice:
		return int64(len(v))
	case span:
		return int64(v.length())
	}
	return int64(utf8.RuneCountInString(plain(v)))
}

// end returns the first or last item of a list, object or range.
func end(_ *run, v any, i int) (any, error) {
	switch v := v.(type) {
	case []any:
		return indexOf(v, int64(i)), nil
	case span:
		if i == 0 {
			return v.from, nil
		}
		return v.to, nil
	case yaml.MapSlice:
		if i == 0 && len(v) > 0 {
			return []any{v[0].Key, v[0].Value}, nil
		}
	}
	return nil, nil
}

func join(r *run, v any, args []any) (any, error) {
	l, err := r.list(v)
	if err != nil {
		return nil, err
	}
	if r.objects != nil && holdsObjects(v) {
		r.objects(r.line)
	}
	separator := " "
	if len(args) > 0 {
		separator = plain(args[0])
	}
	n := 0
	parts := make([]string, len(l))
	for i, item := range l {
		parts[i] = plain(item)
		n += len(parts[i]) + len(separator)
	}
	if err := r.spend(n); err != nil {
		return nil, err
	}
	return strings.Join(parts, separator), nil
}

// keyed returns the member of an item that the first argument names, or the item
// without an argument.
func keyed(item any, args []any) any {
	if len(args) == 0 || isNil(args[0]) {
		return item
	}
	return member(item, plain(args[0]))
}

func sorted(r *run, l []any, args []any, compare func(a, b any) (int, error)) (any, error) {
	l = slices.Clone(l)
	var failure error
	slices.SortStableFunc(l, func(a, b any) int {
		c, err := compare(keyed(a, args), keyed(b, args))
		if err != nil {
			failure = err
		}
		return c
	})
	return l, failure
}

// compare orders numbers and texts, and nil last.
func compare(a, b any) (int, error) {
	x, xok := number(a)
	y, yok := number(b)
	switch {
	case isNil(a) || isNil(b):
		return rank(isNil(a)) - rank(isNil(b)), nil
	case xok && yok:
		return cmp.Compare(x, y), nil
	case isText(a) && isText(b):
		return cmp.Compare(plain(a), plain(b)), nil
	case a == true || a == false || b == true || b == false:
		if equal(a, b) {
			return 0, nil
		}
	}
	return 0, wrong("the list has items that cannot be compared with each other")
}

func rank(isLater bool) int {
	if isLater {
		return 1
	}
	return 0
}

// errNilItem ends a selection at an item that is nil: its result is nil.
var errNilItem = errors.New("an item of the list is nil")

// matches reports whether an item of a list is selected by where, reject, find and
// has: its member of a name is equal to the value or, without a value, is true. A
// text matches a name that it contains.
func matches(item any, args []any) (bool, error) {
	name := args[0]
	switch item := item.(type) {
	case nil, missing:
		return false, errNilItem
	case yaml.MapSlice:
		v := member(item, plain(name))
		if isNil(name) {
			return false, nil
		}
		if len(args) < 2 || isNil(args[1]) {
			return isTrue(v), nil
		}
		return equal(v, args[1]), nil
	case string:
		if len(args) > 1 && !isNil(args[1]) {
			return strings.Contains(item, plain(name)) && equal(plain(name), args[1]), nil
		}
		return strings.Contains(item, plain(name)), nil
	case int64:
		n, ok := name.(int64)
		if !ok {
			return false, wrong("an item of the list is not an object")
		}
		return n == item, nil
	}
	return false, wrong("an item of the list is not an object")
}

func selecting(wanted bool) func(*run, []any, []any) (any, error) {
	return func(r *run, l []any, args []any) (any, error) {
		out := []any{}
		for _, item := range l {
			ok, err := matches(item, args)
			if err == errNilItem {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			if ok == wanted {
				out = append(out, item)
			}
		}
		return out, nil
	}
}

// found returns the result for the first item that matches.
func found(l []any, args []any, result func(i int) any, none any) (any, error) {
	for i, item := range l {
		ok, err := matches(item, args)
		if err == errNilItem {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if ok {
			return result(i), nil
		}
	}
	return none, nil
}

func replaceAll(r *run, v any, args []any) (any, error) {
	s, old, replacement := plain(v), plain(args[0]), plain(argument(args, 1))
	if err := r.spend(len(s) + (strings.Count(s, old)+1)*max(len(replacement)-len(old), 0)); err != nil {
		return nil, err
	}
	return strings.ReplaceAll(s, old, replacement), nil
}

func replaceLast(s, old, replacement string) string {
	i := strings.LastIndex(s, old)
	if i < 0 {
		return s
	}
	return s[:i] + replacement + s[i+len(old):]
}

func split(r *run, v any, args []any) (any, error) {
	s, separator := plain(v), plain(args[0])
	if err := r.spend(16 * (strings.Count(s, separator) + 1)); err != nil {
		return nil, err
	}
	parts := strings.Split(s, separator)
	if separator == " " {
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
}

// whole returns an argument that must be an integer or a text with one. A missing
// value of the profile is 0.
func whole(v any) (int, error) {
	if v == (missing{}) {
		return 0, nil
	}
	n, ok := numeric(v)
	if _, isInt := n.(int64); !ok || !isInt {
		if a, isAmount := n.(amount); !isAmount || float64(a) != math.Trunc(float64(a)) {
			return 0, wrong("an argument is not an integer")
		}
	}
	return smallInt(n), nil
}

func slice(r *run, v any, args []any) (any, error) {
	start, err := whole(args[0])
	if err != nil {
		return nil, err
	}
	length := 1
	if len(args) > 1 && !isNil(args[1]) {
		if length, err = whole(args[1]); err != nil {
			return nil, err
		}
	}
	cut := func(n int) (int, int) {
		from := start
		if from < 0 {
			from += n
		}
		if from < 0 || from > n || length < 0 {
			return 0, 0
		}
		return from, min(from+length, n)
	}
	if l, ok := v.([]any); ok {
		from, to := cut(len(l))
		return l[from:to:to], nil
	}
	letters := []rune(plain(v))
	if err := r.spend(4 * len(letters)); err != nil {
		return nil, err
	}
	from, to := cut(len(letters))
	return string(letters[from:to]), nil
}

func capitalize(s string) string {
	_, size := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:size]) + strings.ToLower(s[size:])
}

func titlecase(s string) string {
	isStart := true
	return strings.Map(func(c rune) rune {
		wasStart := isStart
		isStart = unicode.IsSpace(c) || c == '-'
		if wasStart {
			return unicode.ToUpper(c)
		}
		return c
	}, s)
}

var tags = regexp.MustCompile(`(?s)<!--.*?-->|<(?:script|style)\b.*?</(?:script|style)\s*>|<[^>]*>`)

func stripHTML(s string) string { return tags.ReplaceAllString(s, "") }

func hasTags(s string) bool { return strings.ContainsAny(s, "<>") }

// shortened applies truncate or truncatewords with a length and an ending.
func shortened(r *run, args []any, length int, fn func(n int, end string) string) (any, error) {
	end := "..."
	if len(args) > 0 && args[0] != (missing{}) {
		var err error
		if length, err = whole(args[0]); err != nil {
			return nil, err
		}
	}
	if len(args) > 1 {
		end = plain(args[1])
	}
	s := fn(length, end)
	return s, r.spend(len(s))
}

// truncate shortens a text to n characters, including the ending.
func truncate(s string, n int, end string) string {
	letters := []rune(s)
	if len(letters) <= n {
		return s
	}
	return string(letters[:max(n-utf8.RuneCountInString(end), 0)]) + end
}

func truncateWords(s string, n int, end string) string {
	words := strings.Fields(s)
	if n = max(n, 1); len(words) <= n {
		return s
	}
	return strings.Join(words[:n], " ") + end
}

// plural returns the first of two words for one thing, the second for any other
// number of things.
func plural(_ *run, v any, args []any) (any, error) {
	if f, ok := asFloat(v); ok && f == 1 {
		return args[0], nil
	}
	if len(args) < 2 || isNil(args[1]) {
		return plain(args[0]) + "s", nil
	}
	return args[1], nil
}
