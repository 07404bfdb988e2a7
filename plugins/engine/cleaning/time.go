package cleaning

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// TimeOptions settle what a date alone may leave open.
type TimeOptions struct {
	// Zone is where times without a zone or an offset were told; UTC if nil.
	Zone *time.Location
	// Order is the order of the numbers in dates such as 03/04/2026: "dmy" or
	// "mdy". Empty to refuse those that could be either. A date with points is
	// day first everywhere, and one that begins with a year goes on with the
	// month.
	Order string
	// Layouts are further layouts of Go's time package, tried first.
	Layouts []string
}

// The faults of a date and of a time.
var (
	errTime          = &Fault{"time", "is in none of the formats known"}
	errTimeAmbiguous = &Fault{"time_ambiguous", "could be day first or month first; say which by the order"}
	errTimeRange     = &Fault{"time_range", "is a day or a time that does not exist"}
	errTimeZone      = &Fault{"time_zone", "has a time zone that is not known or means several; send an offset such as +01:00"}
	errTimeGap       = &Fault{"time_gap", "is in the hour that is skipped as summer time begins"}
	errTimeOrder     = &Fault{"order", "the order must be dmy or mdy"}
)

// The grammar is a table of our own over regular expressions rather than a
// library that guesses a layout: what is accepted can be read here, and what is
// not is refused. A date comes first, or a weekday and a date, then perhaps a
// time, and then perhaps a zone.
const (
	monthName = `(?P<name>\pL{3,10})\.?`
	yearPart  = `(?P<year>\d{4}|'?\d{2})`
	timePart  = `(?P<hour>\d{1,2})(?:(?::|\.|h ?)(?P<minute>\d{2})(?:(?::|\.)(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?)?(?: ?h)?(?: ?(?P<half>[ap]\.? ?m\.?))?(?: ?uhr)?`
)

var (
	weekday  = regexp.MustCompile(`^\pL{2,12}[.,]*,? +`)
	dateForm = []*regexp.Regexp{
		regexp.MustCompile(`^(?P<year>\d{4})([-/.])(?P<month>\d{1,2})[-/.](?P<day>\d{1,2})`),
		regexp.MustCompile(`^(?P<first>\d{1,2})(?P<mark>[-/.] ?)(?P<second>\d{1,2})[-/.] ?` + yearPart),
		regexp.MustCompile(`^(?P<day>\d{1,2})(?:st|nd|rd|th|er|\.|º)?[-/ ]*(?:of |de )?` + monthName + `,?[-/ ]*(?:de |del )?` + yearPart),
		regexp.MustCompile(`^` + monthName + ` +(?P<day>\d{1,2})(?:st|nd|rd|th)?,? +(?P<year>\d{4})`),
		regexp.MustCompile(`^(?P<year>\d{4})[-/ ]` + monthName + `[-/ ](?P<day>\d{1,2})`),
		regexp.MustCompile(`^(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?:$|[t ])`),
	}
	clockForm = regexp.MustCompile(`^` + timePart)
	basicTime = regexp.MustCompile(`^(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?`)
	// "Sat Jan 31 08:30:00 CET 2026", as C and the shell write it.
	ctime  = regexp.MustCompile(`^(\pL{3}) +(\d{1,2}) +(\d{1,2}:\d{2}:\d{2}) +(?:([\pL0-9:+-]+) +)?(\d{4})$`)
	offset = regexp.MustCompile(`^(?:utc|gmt)? ?([+-])(\d{1,2})(?::?(\d{2}))?$`)
)

// months by the beginning of their names, without accents, in English, German,
// French, Spanish, Italian, Portuguese and Dutch.
var months = map[string]time.Month{}

func init() {
	for month, names := range []string{
		"january januar janner jan janvier janv enero ene gennaio gen janeiro januari",
		"february februar feber feb fevrier fevr fev febrero febbraio fevereiro februari",
		"march marz maerz mar mrz mars marzo marco maart mrt",
		"april apr avril avr abril abr aprile",
		"may mai mayo maggio mag maio mei",
		"june juni jun juin junio giugno giu junho",
		"july juli jul juillet juil julio luglio lug julho",
		"august aug aout agosto ago augustus",
		"september sept sep septembre septiembre settembre set setembro",
		"october oktober oct okt octobre octubre ottobre ott outubro out",
		"november nov novembre noviembre novembro",
		"december dezember dec dez decembre diciembre dic dicembre dezembro",
	} {
		for _, name := range strings.Fields(names) {
			months[name] = time.Month(month + 1)
		}
	}
}

// weekdays by the first letters of their names in the same languages.
var weekdays = regexp.MustCompile(`^(?:mon|tue|wed|thu|fri|sat|sun|die|mit|don|fre|sam|son|lun|mar|mer|mie|jeu|jue|ven|vie|sab|dim|dom|gio|seg|ter|qua|qui|sex|maa|din|woe|vri|zat|zon|mo|di|mi|do|fr|sa|so)`)

// zones are the abbreviations that mean one offset: those of RFC 2822, and of
// Europe. Most others mean several.
var zones = map[string]int{
	"z": 0, "utc": 0, "gmt": 0, "ut": 0,
	"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
	"wet": 0, "west": 1, "cet": 1, "cest": 2, "mez": 1, "mesz": 2, "eet": 2, "eest": 3, "msk": 3,
}

// Times beyond these years are typing errors, or milliseconds taken for seconds.
const minYear, maxYear = 1000, 9999

// Timestamp returns a time in the form of RFC 3339 in UTC. A date without a
// time is its first moment in the zone. A number is Unix time in seconds, or in
// milli-, micro- or nanoseconds if it has as many digits.
func Timestamp(s string, o TimeOptions) (string, error) {
	t, err := parseTime(s, o)
	if err != nil {
		return "", err
	}
	t = t.UTC()
	if t.Year() < minYear || t.Year() > maxYear {
		return "", errTimeRange
	}
	return t.Format(time.RFC3339Nano), nil
}

// Date returns the day as 2006-01-02. It is the day that was written, wherever
// on earth: a birthday does not move with the zone.
func Date(s string, o TimeOptions) (string, error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	t, err := parseTime(s, o)
	if err != nil {
		return "", err
	}
	if t.Year() < minYear || t.Year() > maxYear {
		return "", errTimeRange
	}
	return t.Format(time.DateOnly), nil
}

func parseTime(s string, o TimeOptions) (time.Time, error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	switch o.Order {
	case "", "dmy", "mdy":
	default:
		return time.Time{}, errTimeOrder
	}
	if len(s) > 128 {
		return time.Time{}, errLong
	}
	for _, layout := range o.Layouts {
		if t, err := time.ParseInLocation(layout, s, o.Zone); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	text := Text(s, TextOptions{})
	if text == "" {
		return time.Time{}, errEmpty
	}
	if t, ok, err := unixTime(text); ok || err != nil {
		return t, err
	}
	return parseWritten(text, o)
}

// unixTime reads a number of seconds since 1970, or of a fraction of them.
func unixTime(s string) (time.Time, bool, error) {
	digits := strings.TrimPrefix(s, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	for _, part := range []string{whole, fraction} {
		if strings.Trim(part, "0123456789") != "" {
			return time.Time{}, false, nil
		}
	}
	// Eight digits are a date, and fourteen a date and a time.
	switch n := len(whole); {
	case len(digits) == 8 && fraction == "" && s == digits, n == 14 && s == digits:
		return time.Time{}, false, nil
	case fraction != "" && n < 9:
		return time.Time{}, false, nil // 31.01 or the like
	}
	unit, ok := map[int]int64{9: 1e9, 10: 1e9, 12: 1e6, 13: 1e6, 16: 1e3, 19: 1}[len(whole)]
	if !ok {
		return time.Time{}, false, nil
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false, errTimeRange
	}
	nanos := int64(0)
	if fraction != "" && unit == 1e9 {
		nanos, _ = strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	}
	perSecond := int64(1e9) / unit
	sec, rest := n/perSecond, n%perSecond*unit+nanos
	if s != digits {
		sec, rest = -sec, -rest
	}
	return time.Unix(sec, rest).UTC(), true, nil
}

// moment is what has been read so far.
type moment struct {
	year, month, day            int
	hour, minute, second, nanos int
}

func parseWritten(text string, o TimeOptions) (time.Time, error) {
	s := foldMarks(text)
	if len(s) == 14 && strings.Trim(s, "0123456789") == "" {
		s = s[:8] + " " + s[8:]
	}
	if name := weekday.FindString(s); name != "" && weekdays.MatchString(name) {
		rest := s[len(name):]
		// "Mar 31" is a weekday in Spanish and a month in English.
		if m := months[strings.Trim(name, "., ")]; m == 0 || rest != "" && !startsWithDay(rest) {
			s = rest
		}
	}
	if m := ctime.FindStringSubmatch(s); m != nil {
		s = m[1] + " " + m[2] + " " + m[5] + " " + m[3] + " " + m[4]
	}
	var at moment
	rest, err := at.readDate(s, o.Order)
	if err != nil {
		return time.Time{}, err
	}
	zone := o.Zone
	if rest = strings.TrimLeft(rest, ", "); rest != "" {
		rest = strings.TrimPrefix(rest, "t")
		for _, word := range []string{"at ", "um ", "a las ", "a la ", "a ", "- "} {
			if after, ok := strings.CutPrefix(rest, word); ok {
				rest = after
				break
			}
		}
		if rest, err = at.readClock(rest); err != nil {
			return time.Time{}, err
		}
		if rest = strings.TrimSpace(rest); rest != "" {
			if zone, err = readZone(rest, len(text)-len(rest), text); err != nil {
				return time.Time{}, err
			}
		}
	}
	return at.in(zone)
}

// startsWithDay tells whether s goes on with a day and a year, so that what was
// before it is the month.
func startsWithDay(s string) bool {
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		digits++
	}
	if digits == 0 || digits > 2 {
		return false
	}
	rest := strings.TrimLeft(s[digits:], "stndrh, ")
	return len(rest) >= 4 && strings.Trim(rest[:4], "0123456789") == "" || ctime.MatchString("mar "+s)
}

// foldMarks is s in lower case without accents.
func foldMarks(s string) string {
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < 0x80
	}
	if ascii {
		return strings.ToLower(s)
	}
	return strings.ToLower(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, norm.NFD.String(s)))
}

// named returns what a group of the pattern matched.
func named(re *regexp.Regexp, match []string, name string) string {
	if i := re.SubexpIndex(name); i >= 0 {
		return match[i]
	}
	return ""
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func (at *moment) readDate(s, order string) (rest string, err error) {
	for i, re := range dateForm {
		m := re.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		rest = s[len(m[0]):]
		// Another digit would make the last number another one.
		if last := m[0][len(m[0])-1]; last != 't' && last != ' ' && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			continue
		}
		year := strings.TrimPrefix(named(re, m, "year"), "'")
		at.year, at.month, at.day = number(year), number(named(re, m, "month")), number(named(re, m, "day"))
		if name := named(re, m, "name"); name != "" {
			at.month = int(months[name])
			if at.month == 0 {
				continue
			}
		}
		if i == 1 {
			first, second := number(named(re, m, "first")), number(named(re, m, "second"))
			switch mark := named(re, m, "mark"); {
			case mark[0] == '.' || order == "dmy":
				at.day, at.month = first, second
			case order == "mdy":
				at.month, at.day = first, second
			case first > 12 && len(year) == 4:
				at.day, at.month = first, second
			case second > 12 && len(year) == 4:
				at.month, at.day = first, second
			case first == second && len(year) == 4:
				at.day, at.month = first, second
			default:
				return "", errTimeAmbiguous
			}
		}
		if len(year) == 2 {
			// As Go and POSIX have it: 69 to 99 are of the last century.
			if at.year += 1900; at.year < 1969 {
				at.year += 100
			}
		}
		return strings.TrimPrefix(rest, "."), nil
	}
	return "", errTime
}

func (at *moment) readClock(s string) (rest string, err error) {
	re := basicTime
	m := re.FindStringSubmatch(s)
	if m == nil {
		re = clockForm
		if m = re.FindStringSubmatch(s); m == nil {
			return "", errTime
		}
	}
	rest = s[len(m[0]):]
	if rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		return "", errTime
	}
	half := named(re, m, "half")
	if named(re, m, "minute") == "" && half == "" && !strings.HasSuffix(m[0], "h") && !strings.HasSuffix(m[0], "uhr") {
		return "", errTime // a lone number is no time
	}
	at.hour, at.minute, at.second = number(named(re, m, "hour")), number(named(re, m, "minute")), number(named(re, m, "second"))
	if f := named(re, m, "fraction"); f != "" {
		at.nanos = number((f + "000000000")[:9])
	}
	if half != "" {
		if at.hour < 1 || at.hour > 12 {
			return "", errTimeRange
		}
		at.hour %= 12
		if half[0] == 'p' {
			at.hour += 12
		}
	}
	return rest, nil
}

// readZone reads what is left after the time. Names of the tz database keep
// their case, which the text as written has.
func readZone(s string, from int, text string) (*time.Location, error) {
	// JavaScript adds the name of the zone in parentheses to its offset.
	if open := strings.IndexByte(s, '('); open > 0 && strings.HasSuffix(s, ")") {
		s = strings.TrimSpace(s[:open])
	}
	if open := strings.IndexByte(s, '['); open > 0 && strings.HasSuffix(s, "]") {
		s = strings.TrimSpace(s[:open])
	}
	if hours, ok := zones[s]; ok {
		return time.FixedZone("", hours*3600), nil
	}
	if m := offset.FindStringSubmatch(s); m != nil {
		hours, minutes := number(m[2]), number(m[3])
		if len(m[2]) == 1 && m[3] != "" && !strings.Contains(s, ":") {
			return nil, errTimeZone // +130
		}
		if hours > 14 || minutes > 59 {
			return nil, errTimeZone
		}
		seconds := hours*3600 + minutes*60
		if m[1] == "-" {
			seconds = -seconds
		}
		return time.FixedZone("", seconds), nil
	}
	if strings.Contains(s, "/") && from > 0 && from < len(text) {
		if zone, err := time.LoadLocation(strings.Trim(text[from:], "[] ")); err == nil {
			return zone, nil
		}
	}
	return nil, errTimeZone
}

// in returns the moment in a zone, if it exists there.
func (at *moment) in(zone *time.Location) (time.Time, error) {
	if at.second == 60 && at.minute == 59 {
		at.second = 59 // a leap second, which Go does not know
	}
	if at.hour == 24 && at.minute == 0 && at.second == 0 && at.nanos == 0 {
		midnight := *at
		midnight.hour = 0
		t, err := midnight.in(zone)
		return t.AddDate(0, 0, 1), err
	}
	if at.month < 1 || at.month > 12 || at.day < 1 || at.day > 31 || at.hour > 23 || at.minute > 59 || at.second > 59 {
		return time.Time{}, errTimeRange
	}
	t := time.Date(at.year, time.Month(at.month), at.day, at.hour, at.minute, at.second, at.nanos, zone)
	if t.Year() != at.year || int(t.Month()) != at.month || t.Day() != at.day {
		// A day may begin at one o'clock where summer time begins at midnight.
		if at.hour == 0 && at.minute == 0 && at.second == 0 && validDay(at.year, at.month, at.day) {
			return time.Date(at.year, time.Month(at.month), at.day, 1, 0, 0, 0, zone), nil
		}
		return time.Time{}, errTimeRange
	}
	if t.Hour() != at.hour || t.Minute() != at.minute {
		return time.Time{}, errTimeGap
	}
	// The hour that is told twice as summer time ends is the first of the two.
	for _, shift := range []time.Duration{30 * time.Minute, time.Hour} {
		if first := t.Add(-shift); first.Hour() == at.hour && first.Minute() == at.minute {
			return first, nil
		}
	}
	return t, nil
}

func validDay(year, month, day int) bool {
	t := time.Date(year, time.Month(month), day, 12, 0, 0, 0, time.UTC)
	return t.Day() == day && int(t.Month()) == month
}
