package cleaning

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// TimeOptions resolves what the text of a time leaves open.
type TimeOptions struct {
	// Zone is the time zone of times without zone or offset; nil means UTC.
	Zone *time.Location
	// Order is the order of the numbers in dates such as 03/04/2026: "dmy" or
	// "mdy". If it is empty, ambiguous dates are faults. Dates with dots are
	// always day first; dates that begin with a year continue with the month.
	Order string
	// Layouts are additional layouts of Go's time package, tried first.
	Layouts []string
	// Past rejects days in the future. Date applies it, and resolves two-digit years
	// to the past in any case.
	Past bool
	// Now is the current time for these two rules; zero means time.Now().
	Now time.Time
	// pastYears resolves two-digit years to the past.
	pastYears bool
}

// Faults of a date and of a time.
var (
	errTime          = &Fault{"time", "is not in a known format"}
	errTimeAmbiguous = &Fault{"time_ambiguous", "may be day first or month first; set the order"}
	errTimeRange     = &Fault{"time_range", "is a day or time that does not exist"}
	errTimeZone      = &Fault{"time_zone", "has an unknown or ambiguous time zone; send an offset such as +01:00"}
	errTimeGap       = &Fault{"time_gap", "is in the hour that is skipped when daylight saving time begins"}
	errTimeOrder     = &Fault{"order", "the order must be dmy or mdy"}
	errTimeNumber    = &Fault{"time_ambiguous", "may be a date or a number of seconds; send a date such as 2026-01-31"}
	errTimeFuture    = &Fault{"time_future", "is in the future"}
)

// The grammar is a table of regular expressions instead of a library that guesses
// the layout, so that every accepted form is visible here. A time is an optional
// weekday, a date, an optional clock time and an optional zone:
//
//	Sat, 31 Jan 2026 08:30 +01:00
//	^weekday ^dateForm ^clockForm ^zone
const (
	monthName = `(?P<name>\pL{3,14})\.?`
	yearPart  = `(?P<year>\d{4}|'?\d{2})`
	timePart  = `(?P<hour>\d{1,2})(?:(?::|\.|h ?)(?P<minute>\d{2})(?:(?::|\.)(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?)?(?: ?h)?(?: ?(?P<half>[ap]\.? ?m\.?))?(?: ?uhr)?`
)

var (
	weekday  = regexp.MustCompile(`^\pL{2,12}[.,]*,? +`)
	dateForm = []*regexp.Regexp{
		regexp.MustCompile(`^(?P<year>\d{4})([-/.])(?P<month>\d{1,2})[-/.](?P<day>\d{1,2})`),
		regexp.MustCompile(`^(?P<first>\d{1,2})(?P<mark>[-/.] ?)(?P<second>\d{1,2})[-/.] ?` + yearPart),
		regexp.MustCompile(`^(?P<day>\d{1,2})(?:st|nd|rd|th|er|\.|º|:e)?[-/ ]*(?:of |de )?` + monthName + `,?[-/ ]*(?:de |del )?` + yearPart),
		regexp.MustCompile(`^` + monthName + ` +(?P<day>\d{1,2})(?:st|nd|rd|th)?,? +(?P<year>\d{4})`),
		regexp.MustCompile(`^(?P<year>\d{4})(?:[-/ ]|\. ?)` + monthName + `[-/ ](?P<day>\d{1,2})`),
		regexp.MustCompile(`^(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?:$|[t ])`),
		regexp.MustCompile(`^(?P<year>\d{4})[年년] ?(?P<month>\d{1,2})[月월] ?(?P<day>\d{1,2})[日일]`),
		regexp.MustCompile(`^(?P<year>\d{4})-?w(?P<week>\d{2})(?:-?(?P<weekday>[1-7]))?`),
	}
	clockForm = regexp.MustCompile(`^` + timePart)
	basicTime = regexp.MustCompile(`^(?P<hour>\d{2})(?P<minute>\d{2})(?:(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?`)
	// "08:30 31.01.2026": a time before the date.
	leadingClock = regexp.MustCompile(`^\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[ap]\.? ?m\.?)?(?: uhr)?,? +(?:on |am |am\. |- )?`)
	// Go's time.String appends a monotonic clock reading.
	monotonic = regexp.MustCompile(` m=[+-][0-9.]+$`)
	// "2026 г." and "2026 р." are a year in Russian and Ukrainian.
	yearWord = regexp.MustCompile(`^ ?(?:г|р|года|року)\.?(?:,? |$)`)
	// "Sat Jan 31 08:30:00 CET 2026", the format of C and of the date command.
	ctime  = regexp.MustCompile(`^(\pL{3}) +(\d{1,2}) +(\d{1,2}:\d{2}:\d{2}) +(?:([\pL0-9:+-]+) +)?(\d{4})$`)
	offset = regexp.MustCompile(`^(?:utc|gmt)? ?([+-])(\d{1,2})(?::?(\d{2}))?(?: [a-z]{1,5}| [+-]\d{2,4})?$`)
)

// months maps names and abbreviations of months, folded by foldMarks, in the languages
// of nameLanguages: English, German, French, Spanish, Italian, Portuguese, Dutch, Polish,
// Swedish, Danish, Norwegian, Finnish, Czech, Hungarian, Romanian, Turkish, Greek,
// Russian, Ukrainian and Arabic. Chinese, Japanese and Korean dates have numbers.
var months = map[string]time.Month{}

func init() {
	for month, names := range []string{
		"january januar janner jan janvier janv enero ene gennaio gen janeiro januari stycznia styczen sty tammikuuta tammikuu tammi ledna leden led ianuarie ian ocak oca ιανουαριου ιανουαριος ιαν января январь янв січня січень січ يناير",
		"february februar feber feb fevrier fevr fev febrero febbraio fevereiro februari lutego luty lut helmikuuta helmikuu helmi unora unor uno februarie subat sub φεβρουαριου φεβρουαριος φεβ февраля февраль фев лютого лютии лют فبراير",
		"march marz maerz mar mrz mars marzo marco maart mrt marts marca marzec maaliskuuta maaliskuu maalis brezna brezen bre marcius marc martie mart μαρτιου μαρτιος μαρ марта март мар березня березень бер مارس",
		"april apr avril avr abril abr aprile kwietnia kwiecien kwi huhtikuuta huhtikuu huhti dubna duben dub aprilis aprilie nisan nis απριλιου απριλιος απρ апреля апрель апр квітня квітень кві ابريل أبريل",
		"may mai mayo maggio mag maio mei maj maja toukokuuta toukokuu touko kvetna kveten kve majus mayıs mayis μαιου μαιος μαι мая маи травня травень тра مايو",
		"june juni jun juin junio giugno giu junho czerwca czerwiec cze kesakuuta kesakuu kesa cervna cerven junius iunie iun haziran haz ιουνιου ιουνιος ιουν июня июнь июн червня червень чер يونيو",
		"july juli jul juillet juil julio luglio lug julho lipca lipiec lip heinakuuta heinakuu heina cervence cervenec julius iulie iul temmuz tem ιουλιου ιουλιος ιουλ июля июль июл липня липень лип يوليو",
		"august aug aout agosto ago augustus augusti sierpnia sierpien sie elokuuta elokuu elo srpna srpen srp augusztus agustos agu αυγουστου αυγουστος αυγ августа август авг серпня серпень сер اغسطس أغسطس",
		"september sept sep septembre septiembre settembre set setembro wrzesnia wrzesien wrz syyskuuta syyskuu syys zari zar szeptember szept septembrie eylul eyl σεπτεμβριου σεπτεμβριος σεπ сентября сентябрь сент сен вересня вересень вер سبتمبر",
		"october oktober oct okt octobre octubre ottobre ott outubro out pazdziernika pazdziernik paz lokakuuta lokakuu loka rijna rijen rij octombrie ekim eki οκτωβριου οκτωβριος οκτ октября октябрь окт жовтня жовтень жов اكتوبر أكتوبر",
		"november nov novembre noviembre novembro listopada listopad lis marraskuuta marraskuu marras noiembrie noi kasım kasim kas νοεμβριου νοεμβριος νοε ноября ноябрь ноя нояб листопада листопад نوفمبر",
		"december dezember dec dez decembre diciembre dic dicembre dezembro desember des grudnia grudzien gru joulukuuta joulukuu joulu prosince prosinec pro decembrie aralık aralik ara δεκεμβριου δεκεμβριος δεκ декабря декабрь дек грудня грудень гру ديسمبر",
	} {
		for _, name := range strings.Fields(names) {
			months[foldMarks(name)] = time.Month(month + 1)
		}
	}
}

// weekdays matches the first letters of weekdays in the same languages.
var weekdays = regexp.MustCompile(`^(?:mon|tue|wed|thu|fri|sat|sun|die|mit|don|fre|sam|son|lun|mar|mer|mie|jeu|jue|ven|vie|sab|dim|dom|gio|seg|ter|qua|qui|sex|maa|din|woe|vri|zat|zon|mo|di|mi|do|fr|sa|so` +
	`|pon|wto|sro|czw|pia|sob|nie|man|tis|tir|ons|tor|lor|tii|kes|per|lau|ute|str|ctv|pat|ned|het|ked|sze|csu|pen|szo|vas|joi|vin|dum|paz|sal|car|cum|δευ|τρι|τετ|πεμ|παρ|σαβ|κυρ|пон|вто|сре|чет|пят|суб|вос|вив|сер|нед|пн|вт|ср|чт|пт|сб|вс|нд)`)

// zones maps the abbreviations with one meaning to their offset in hours: those
// of RFC 2822 and of Europe. Most other abbreviations are ambiguous.
var zones = map[string]int{
	"z": 0, "utc": 0, "gmt": 0, "ut": 0,
	"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
	"wet": 0, "west": 1, "cet": 1, "cest": 2, "mez": 1, "mesz": 2, "eet": 2, "eest": 3, "msk": 3,
}

// Years outside of this range are typing errors, or milliseconds read as seconds.
const minYear, maxYear = 1000, 9999

// Timestamp returns a time in RFC 3339 format in UTC. A date without a time is the
// start of the day in the zone. A number is Unix time in seconds, or in milli-,
// micro- or nanoseconds, depending on its number of digits; a number of five digits is
// a day of a spreadsheet.
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

// Date returns the day as 2006-01-02. It is the day in the text, independent of
// the zone: a birthday does not move with the time zone. A two-digit year is the latest
// one that is not in the future: 31.1.45 is in 1945.
func Date(s string, o TimeOptions) (string, error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	o.pastYears = true
	t, err := parseTime(s, o)
	if err != nil {
		return "", err
	}
	if t.Year() < minYear || t.Year() > maxYear {
		return "", errTimeRange
	}
	// Somewhere on earth it is up to 14 hours later than in UTC.
	if day := t.Format(time.DateOnly); !o.Past || day <= o.Now.UTC().Add(14*time.Hour).Format(time.DateOnly) {
		return day, nil
	}
	return "", errTimeFuture
}

// ParseTime returns the time of a text that Timestamp accepts. isDate reports whether
// the text is a day without a clock time.
func ParseTime(s string, o TimeOptions) (t time.Time, isDate bool, err error) {
	t, err = parseTime(s, o)
	return t, err == nil && !strings.Contains(s, ":") && t.Equal(t.Truncate(24*time.Hour)), err
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
	text := asciiDigits(Text(s, TextOptions{}))
	if text == "" {
		return time.Time{}, errEmpty
	}
	if t, ok, err := serialDay(text, o.Zone); ok {
		return t, err
	}
	if t, ok, err := unixTime(text); ok || err != nil {
		return t, err
	}
	return parseWritten(text, o)
}

// unixTime parses Unix time in seconds, milli-, micro- or nanoseconds.
func unixTime(s string) (time.Time, bool, error) {
	digits := strings.TrimPrefix(s, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	for _, part := range []string{whole, fraction} {
		if strings.Trim(part, "0123456789") != "" {
			return time.Time{}, false, nil
		}
	}
	// Eight digits are a date; twelve, fourteen and seventeen are a date and a time.
	// Ten digits are seconds, unless they are a date and an hour of a plausible year.
	isYear := strings.HasPrefix(s, "19") || strings.HasPrefix(s, "20")
	switch n := len(whole); {
	case len(digits) == 8 && fraction == "" && s == digits, n == 14 && s == digits, n == 17 && s == digits:
		return time.Time{}, false, nil
	case n == 12 && s == digits && isYear:
		return time.Time{}, false, nil
	case n == 10 && fraction == "" && s == digits && isYear:
		if _, err := time.Parse("2006010215", s); err == nil {
			return time.Time{}, false, errTimeNumber
		}
	case fraction != "" && n < 9:
		return time.Time{}, false, nil // a date such as 31.01
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

// serialDay parses the number of a day in a spreadsheet: days since 1899-12-30, with a
// fraction for the time. Five digits are the years 1927 to 2118.
func serialDay(s string, zone *time.Location) (time.Time, bool, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(whole) != 5 || s[0] == '0' || s[0] > '7' || strings.Trim(whole+fraction, "0123456789") != "" {
		return time.Time{}, false, nil
	}
	days, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return time.Time{}, false, nil
	}
	day := math.Floor(days)
	millis := int(math.Round((days - day) * 24 * 3600 * 1000))
	date := time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(day)).Add(time.Duration(millis) * time.Millisecond)
	c := civilTime{date.Year(), int(date.Month()), date.Day(), date.Hour(), date.Minute(), date.Second(), date.Nanosecond()}
	t, err := c.in(zone)
	return t, true, err
}

// civilTime is a date and clock time without a zone.
type civilTime struct {
	year, month, day            int
	hour, minute, second, nanos int
}

func parseWritten(text string, o TimeOptions) (time.Time, error) {
	text = strings.TrimSpace(monotonic.ReplaceAllString(text, ""))
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		text = text[1 : len(text)-1] // as in access logs
	}
	s := foldMarks(text)
	if strings.Trim(s, "0123456789") == "" {
		switch len(s) {
		case 8:
			if s < "1800" || s >= "2200" {
				return time.Time{}, errTimeRange
			}
		case 12, 14:
			s = s[:8] + " " + s[8:]
		case 17:
			s = s[:8] + " " + s[8:14] + "." + s[14:]
		}
	}
	clock := ""
	if lead := leadingClock.FindString(s); lead != "" {
		clock, s = lead, s[len(lead):]
	}
	if name := weekday.FindString(s); name != "" && weekdays.MatchString(name) {
		rest := s[len(name):]
		// "Mar" is Tuesday in Spanish and March in English.
		if m := months[strings.Trim(name, "., ")]; m == 0 || rest != "" && !startsWithDay(rest) {
			s = rest
		}
	}
	if m := ctime.FindStringSubmatch(s); m != nil {
		s = m[1] + " " + m[2] + " " + m[5] + " " + m[3] + " " + m[4]
	}
	var c civilTime
	rest, err := c.readDate(s, o)
	if err != nil {
		return time.Time{}, err
	}
	zone := o.Zone
	if clock != "" {
		if _, err := c.readClock(clock); err != nil {
			return time.Time{}, err
		}
		if rest = strings.Trim(rest, ", "); rest != "" {
			if zone, err = readZone(rest, len(text)-len(rest), text); err != nil {
				return time.Time{}, err
			}
		}
		return c.in(zone)
	}
	if rest = strings.TrimLeft(yearWord.ReplaceAllString(rest, ""), ",: "); rest != "" {
		rest = strings.TrimPrefix(rest, "t")
		for _, word := range []string{"at ", "um ", "a las ", "a la ", "a ", "- "} {
			if after, ok := strings.CutPrefix(rest, word); ok {
				rest = after
				break
			}
		}
		if rest, err = c.readClock(rest); err != nil {
			return time.Time{}, err
		}
		if rest = strings.TrimSpace(rest); rest != "" {
			if zone, err = readZone(rest, len(text)-len(rest), text); err != nil {
				return time.Time{}, err
			}
		}
	}
	return c.in(zone)
}

// startsWithDay reports whether s begins with a day and a year, so that the word
// before it is a month.
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

// foldMarks returns s in lower case without accents.
func foldMarks(s string) string {
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < 0x80
	}
	if ascii {
		return strings.ToLower(s)
	}
	return norm.NFC.String(strings.ToLower(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, norm.NFD.String(s))))
}

// named returns the match of a named group, or "".
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

func (c *civilTime) readDate(s string, o TimeOptions) (rest string, err error) {
	for i, re := range dateForm {
		m := re.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		rest = s[len(m[0]):]
		// A further digit would change the last number.
		if last := m[0][len(m[0])-1]; last != 't' && last != ' ' && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			continue
		}
		year := strings.TrimPrefix(named(re, m, "year"), "'")
		c.year, c.month, c.day = number(year), number(named(re, m, "month")), number(named(re, m, "day"))
		if week := named(re, m, "week"); week != "" {
			if err := c.setWeek(number(week), max(number(named(re, m, "weekday")), 1)); err != nil {
				return "", err
			}
		}
		if name := named(re, m, "name"); name != "" {
			c.month = int(months[name])
			if c.month == 0 {
				continue
			}
		}
		if i == 1 {
			first, second := number(named(re, m, "first")), number(named(re, m, "second"))
			switch mark := named(re, m, "mark"); {
			case mark[0] == '.' || o.Order == "dmy":
				c.day, c.month = first, second
			case o.Order == "mdy":
				c.month, c.day = first, second
			case first > 12 && len(year) == 4:
				c.day, c.month = first, second
			case second > 12 && len(year) == 4:
				c.month, c.day = first, second
			case first == second && len(year) == 4:
				c.day, c.month = first, second
			default:
				return "", errTimeAmbiguous
			}
		}
		if len(year) == 2 {
			// As in Go and POSIX, 69 to 99 mean 1969 to 1999.
			if c.year += 1900; c.year < 1969 {
				c.year += 100
			}
			if o.pastYears && time.Date(c.year, time.Month(c.month), c.day, 0, 0, 0, 0, time.UTC).After(o.Now.Add(14*time.Hour)) {
				c.year -= 100
			}
		}
		return strings.TrimPrefix(rest, "."), nil
	}
	return "", errTime
}

// setWeek sets the date to a weekday, 1 to 7, of a week of ISO 8601.
func (c *civilTime) setWeek(week, weekday int) error {
	// The fourth of January is in week 1.
	first := time.Date(c.year, 1, 4, 0, 0, 0, 0, time.UTC)
	monday := first.AddDate(0, 0, -(int(first.Weekday())+6)%7)
	day := monday.AddDate(0, 0, 7*(week-1)+weekday-1)
	if year, w := day.ISOWeek(); year != c.year || w != week {
		return errTimeRange
	}
	c.year, c.month, c.day = day.Year(), int(day.Month()), day.Day()
	return nil
}

func (c *civilTime) readClock(s string) (rest string, err error) {
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
		return "", errTime // a number alone is not a time
	}
	c.hour, c.minute, c.second = number(named(re, m, "hour")), number(named(re, m, "minute")), number(named(re, m, "second"))
	if f := named(re, m, "fraction"); f != "" {
		c.nanos = number((f + "000000000")[:9])
	}
	if half != "" {
		if c.hour < 1 || c.hour > 12 {
			return "", errTimeRange
		}
		c.hour %= 12
		if half[0] == 'p' {
			c.hour += 12
		}
	}
	return rest, nil
}

// readZone parses the zone after the clock time. Names of the tz database are
// case-sensitive, so they are read from text, the input before folding.
func readZone(s string, from int, text string) (*time.Location, error) {
	// JavaScript appends the name of the zone in parentheses.
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

// in returns the instant of c in a zone, or a fault if c does not exist there.
func (c *civilTime) in(zone *time.Location) (time.Time, error) {
	if c.second == 60 && c.minute == 59 {
		c.second = 59 // leap second, which Go's time package does not support
	}
	if c.hour == 24 && c.minute == 0 && c.second == 0 && c.nanos == 0 {
		midnight := *c
		midnight.hour = 0
		t, err := midnight.in(zone)
		return t.AddDate(0, 0, 1), err
	}
	if c.month < 1 || c.month > 12 || c.day < 1 || c.day > 31 || c.hour > 23 || c.minute > 59 || c.second > 59 {
		return time.Time{}, errTimeRange
	}
	t := time.Date(c.year, time.Month(c.month), c.day, c.hour, c.minute, c.second, c.nanos, zone)
	if t.Year() != c.year || int(t.Month()) != c.month || t.Day() != c.day {
		// The day begins at 01:00 where daylight saving time begins at midnight.
		if c.hour == 0 && c.minute == 0 && c.second == 0 && validDay(c.year, c.month, c.day) {
			return time.Date(c.year, time.Month(c.month), c.day, 1, 0, 0, 0, zone), nil
		}
		return time.Time{}, errTimeRange
	}
	if t.Hour() != c.hour || t.Minute() != c.minute {
		return time.Time{}, errTimeGap
	}
	// In the hour that is repeated when daylight saving time ends, the first
	// occurrence is meant.
	for _, shift := range []time.Duration{30 * time.Minute, time.Hour} {
		if first := t.Add(-shift); first.Hour() == c.hour && first.Minute() == c.minute {
			return first, nil
		}
	}
	return t, nil
}

func validDay(year, month, day int) bool {
	t := time.Date(year, time.Month(month), day, 12, 0, 0, 0, time.UTC)
	return t.Day() == day && int(t.Month()) == month
}
