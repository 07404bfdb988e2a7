package content

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/cleaning"
)

// parseTime parses a time of a template: seconds since 1970 as a number or text, RFC
// 3339, and the formats that package cleaning recognises. isDate reports whether the
// text is a day without a clock time, which does not depend on a time zone.
func (r *run) parseTime(v any) (t time.Time, isDate, ok bool) {
	s := strings.TrimSpace(plain(v))
	f, isNumber := number(v)
	if !isNumber && integerForm.MatchString(s) && s[0] != '-' && !isCompact[len(s)] {
		f, _ = strconv.ParseFloat(s, 64)
		isNumber = true
	}
	if isNumber {
		if f > 1e11 { // milliseconds
			f /= 1000
		}
		if math.Abs(f) > 1e11 {
			return time.Time{}, false, false
		}
		return time.Unix(int64(f), 0).UTC(), false, true
	}
	switch s {
	case "now", "today":
		return r.asOf, false, true
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, false, true
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, true, true
	}
	if strings.HasPrefix(s, "-") {
		return time.Time{}, false, false // a negative number of seconds is not a time in Liquid
	}
	t, isDate, err := cleaning.ParseTime(s, cleaning.TimeOptions{})
	return t, isDate, err == nil
}

// isCompact are the numbers of digits of dates such as 20260131 and 202601310830. Texts
// with other numbers of digits are seconds.
var isCompact = map[int]bool{8: true, 12: true, 14: true, 17: true}

// date is the filter date: "%d %B %Y", "Europe/Berlin". It formats a time in the
// given zone, or in the customer's. A value that is not a time is returned unchanged.
func date(r *run, v any, args []any) (any, error) {
	if isNil(v) || isNil(args[0]) || plain(args[0]) == "" {
		return v, nil
	}
	t, isDate, ok := r.parseTime(v)
	if !ok {
		return v, nil
	}
	zone := r.zone
	if zoneName := argument(args, 1); !isNil(zoneName) {
		var err error
		if zone, err = loadZone(plain(zoneName)); err != nil {
			return nil, wrong("the time zone is unknown; write a zone such as Europe/Berlin")
		}
	}
	if zone != nil && !isDate {
		t = t.In(zone)
	}
	out, unknown := strftime(t, plain(args[0]))
	if unknown != "" {
		return nil, wrong("the format has the unknown flag " + unknown)
	}
	return out, r.spend(len(out))
}

// checkDate checks the literal arguments of date.
func checkDate(args []expression) string {
	if format, ok := args[0].(literal); ok {
		if _, unknown := strftime(time.Time{}, plain(format.value)); unknown != "" {
			return fmt.Sprintf(`date has no flag %s; write for example "%%d %%B %%Y", and %%%% for a percent sign`, unknown)
		}
	}
	if len(args) > 1 {
		if zone, ok := args[1].(literal); ok {
			if _, err := loadZone(plain(zone.value)); err != nil {
				return fmt.Sprintf("the time zone %q is unknown; write a zone such as Europe/Berlin", plain(zone.value))
			}
		}
	}
	return ""
}

// strftime formats a time in English, with the flags of Ruby's strftime: % followed
// by
//
//   - any of "-" (no padding), "0" and "_" (padding by zeros or spaces), "^" (upper
//     case), "#" (opposite case) and ":" (colons in %z),
//   - a minimum width,
//   - and a letter.
//
// It returns the first flag that does not exist as unknown.
func strftime(t time.Time, format string) (out, unknown string) {
	var b strings.Builder
	for i := 0; i < len(format); {
		if format[i] != '%' {
			b.WriteByte(format[i])
			i++
			continue
		}
		start := i
		var f dateField
		for i++; i < len(format) && strings.IndexByte("-0_^#:", format[i]) >= 0; i++ {
			switch c := format[i]; c {
			case '^':
				f.upper = true
			case '#':
				f.swap = true
			case ':':
				f.colons++
			default:
				f.padding = c
			}
		}
		for ; i < len(format) && isDigit(format[i]) && f.width < 100; i++ {
			f.width = f.width*10 + int(format[i]-'0')
		}
		if i >= len(format) {
			return "", format[start:]
		}
		text, ok := f.format(t, format[i])
		i++
		if !ok {
			return "", format[start:i]
		}
		b.WriteString(text)
	}
	return b.String(), ""
}

// dateField is a flag of strftime with its options.
type dateField struct {
	padding     byte // 0 for the default of the flag
	width       int  // 0 for the default of the flag
	upper, swap bool
	colons      int
}

func (f dateField) format(t time.Time, flag byte) (string, bool) {
	if f.colons > 0 && flag != 'z' {
		return "", false
	}
	hour12 := (t.Hour()+11)%12 + 1
	isoYear, isoWeek := t.ISOWeek()
	switch flag {
	case 'Y':
		return f.number(t.Year(), 4, '0'), true
	case 'C':
		return f.number(t.Year()/100, 2, '0'), true
	case 'y':
		return f.number(t.Year()%100, 2, '0'), true
	case 'm':
		return f.number(int(t.Month()), 2, '0'), true
	case 'B':
		return f.text(t.Month().String()), true
	case 'b', 'h':
		return f.text(t.Month().String()[:3]), true
	case 'd':
		return f.number(t.Day(), 2, '0'), true
	case 'e':
		return f.number(t.Day(), 2, ' '), true
	case 'j':
		return f.number(t.YearDay(), 3, '0'), true
	case 'H':
		return f.number(t.Hour(), 2, '0'), true
	case 'k':
		return f.number(t.Hour(), 2, ' '), true
	case 'I':
		return f.number(hour12, 2, '0'), true
	case 'l':
		return f.number(hour12, 2, ' '), true
	case 'M':
		return f.number(t.Minute(), 2, '0'), true
	case 'S':
		return f.number(t.Second(), 2, '0'), true
	case 'L', 'N':
		digits := f.width
		if digits == 0 {
			digits = map[byte]int{'L': 3, 'N': 9}[flag]
		}
		return fmt.Sprintf("%09d", t.Nanosecond())[:min(digits, 9)] + strings.Repeat("0", max(digits-9, 0)), true
	case 'p':
		if f.swap {
			return strings.ToLower(t.Format("PM")), true
		}
		return f.text(t.Format("PM")), true
	case 'P':
		return f.text(strings.ToLower(t.Format("PM"))), true
	case 'A':
		return f.text(t.Weekday().String()), true
	case 'a':
		return f.text(t.Weekday().String()[:3]), true
	case 'u':
		return f.number((int(t.Weekday())+6)%7+1, 1, '0'), true
	case 'w':
		return f.number(int(t.Weekday()), 1, '0'), true
	case 'G':
		return f.number(isoYear, 4, '0'), true
	case 'g':
		return f.number(isoYear%100, 2, '0'), true
	case 'V':
		return f.number(isoWeek, 2, '0'), true
	case 'U':
		return f.number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0'), true
	case 'W':
		return f.number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0'), true
	case 'Z':
		return f.text(t.Format("MST")), true
	case 'z':
		layout, ok := map[int]string{0: "-0700", 1: "-07:00", 2: "-07:00:00"}[f.colons]
		return t.Format(layout), ok
	case 's':
		return f.number(int(t.Unix()), 1, '0'), true
	case 'n':
		return "\n", true
	case 't':
		return "\t", true
	case '%':
		return "%", true
	}
	combined := map[byte]string{
		'c': "Mon Jan _2 15:04:05 2006", 'D': "01/02/06", 'x': "01/02/06", 'F': "2006-01-02", 'T': "15:04:05", 'X': "15:04:05",
		'R': "15:04", 'r': "03:04:05 PM", 'v': "_2-Jan-2006", '+': "Mon Jan _2 15:04:05 MST 2006",
	}
	layout, ok := combined[flag]
	s := t.Format(layout)
	if flag == 'v' {
		s = strings.ToUpper(s)
	}
	return f.text(s), ok
}

func (f dateField) number(n, width int, padding byte) string {
	if f.width > 0 {
		width = f.width
	}
	switch f.padding {
	case '-':
		width = 0
	case '0':
		padding = '0'
	case '_':
		padding = ' '
	}
	s := strconv.Itoa(n)
	return strings.Repeat(string(padding), max(width-len(s), 0)) + s
}

func (f dateField) text(s string) string {
	if f.upper || f.swap {
		s = strings.ToUpper(s)
	}
	padding := " "
	if f.padding == '0' {
		padding = "0"
	}
	return strings.Repeat(padding, max(f.width-len(s), 0)) + s
}
