package cleaning

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
	"pgregory.net/rapid"
)

// cleaning is an input and its result; a result with ! is the rule of a fault.
type cleaning struct{ in, want string }

func check(t *testing.T, clean func(string) (string, error), cases []cleaning) {
	t.Helper()
	for _, c := range cases {
		got, err := clean(c.in)
		if rule, fails := strings.CutPrefix(c.want, "!"); fails {
			var fault *Fault
			if !errors.As(err, &fault) || fault.Rule != rule {
				t.Errorf("%q gives %q, %v; want the fault %s", c.in, got, err, rule)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q gives %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestText(t *testing.T) {
	plain := func(s string) (string, error) { return Text(s, TextOptions{}), nil }
	check(t, plain, []cleaning{
		{"", ""}, {"a", "a"}, {" ", ""}, {"  a  b ", "a b"}, {"a\tb\r\nc", "a b c"},
		{"Mu\u0308ller", "Müller"}, {"a\u00a0b\u2003c", "a b c"}, {"\ufeffa\u200bb\u00ad", "ab"},
		{"\u202eabc\u202c", "abc"}, {"a\x00b\x07", "ab"}, {"\xffa", "\ufffda"},
		{"👩\u200d💻", "👩\u200d💻"}, {"نامه\u200cای", "نامه\u200cای"}, {"a\u200db", "ab"}, {"👩\u200d", "👩"},
		{"“a”", "“a”"}, {"1\u202f234", "1 234"}, {"ﬁn", "ﬁn"},
	})
	quotes := func(s string) (string, error) { return Text(s, TextOptions{Quotes: true}), nil }
	check(t, quotes, []cleaning{{"“It’s” „so“ «gut»", `"It's" "so" "gut"`}, {"5′ 3″", `5' 3"`}})
	lines := func(s string) (string, error) { return Text(s, TextOptions{Lines: true}), nil }
	check(t, lines, []cleaning{{" a \r\n b\n\n\n\nc ", "a\nb\n\nc"}, {"a\u2028b", "a\nb"}, {"\n\na\n", "a"}})
}

func TestMissing(t *testing.T) {
	for _, s := range []string{"", " ", "\u200b", "-", " - ", "N/A", "n/a", "NULL", "None", "undefined", "NaN", "[object Object]", "(not set)", "keine Angabe"} {
		require.True(t, IsMissing(s), "%q", s)
	}
	for _, s := range []string{"0", "no", "Nana", "Null Island", "false", "a"} {
		require.False(t, IsMissing(s), "%q", s)
	}
	require.True(t, IsMissing("0000", "0000"))
	require.False(t, IsMissing("0000"))
}

func TestEmail(t *testing.T) {
	strict := func(s string) (string, error) { return Email(s, EmailOptions{}) }
	check(t, strict, []cleaning{
		{" Jo.Doe@Example.COM ", "Jo.Doe@example.com"}, {"jo@example.com.", "jo@example.com"},
		{"Jo Doe <jo@example.com>", "jo@example.com"}, {"<jo@example.com>", "jo@example.com"}, {"MAILTO:jo@example.com?subject=x", "jo@example.com"},
		{"jo@\u200bexample.com", "jo@example.com"}, {"jo@müller.de", "jo@xn--mller-kva.de"}, {"jo@MÜLLER.de", "jo@xn--mller-kva.de"},
		{"jo@xn--mller-kva.de", "jo@xn--mller-kva.de"}, {"jörg@example.de", "jörg@example.de"}, {"jo+tag@example.com", "jo+tag@example.com"},
		{"o'neill@example.ie", "o'neill@example.ie"}, {"jo@straße.de", "jo@xn--strae-oqa.de"}, {"jo@例え.jp", "jo@xn--r8jz45g.jp"},
		{"", "!empty"}, {" ", "!empty"}, {"jo", "!email_at"}, {"@example.com", "!email_at"}, {"jo@", "!email_at"}, {"jo@a@example.com", "!email_at"},
		{"jo doe@example.com", "!email_space"}, {"jo@example.com, al@example.com", "!email_at"}, {"jo@exam ple.com", "!email_space"},
		{".jo@example.com", "!email_local"}, {"jo.@example.com", "!email_local"}, {"j..o@example.com", "!email_local"}, {`"jo"@example.com`, "!email_local"}, {"jo\\@example.com", "!email_local"},
		{"jo@example", "!email_domain_dot"}, {"jo@localhost", "!email_domain_dot"}, {"jo@-example.com", "!email_domain"}, {"jo@exa_mple.com", "!email_domain"},
		{"jo@example..com", "!email_domain"}, {"jo@example.123", "!email_domain"}, {"jo@[127.0.0.1]", "!email_domain_address"}, {"jo@127.0.0.1", "!email_domain_address"},
		{"jo@shop.local", "!email_reserved"}, {"jo@nowhere.invalid", "!email_reserved"},
		{strings.Repeat("a", 65) + "@example.com", "!email_long"}, {"jo@" + strings.Repeat("a", 64) + ".com", "!email_domain"}, {strings.Repeat("a", 2000), "!too_long"},
	})
	mailbox := func(s string) (string, error) { return Email(s, EmailOptions{Lowercase: true, Providers: true}) }
	check(t, mailbox, []cleaning{
		{"Jo.Doe+news@GoogleMail.com", "jodoe@gmail.com"}, {"jo.doe@gmail.com", "jodoe@gmail.com"}, {"Jo+x@outlook.com", "jo@outlook.com"},
		{"jo.doe@outlook.com", "jo.doe@outlook.com"}, {"jo@me.com", "jo@icloud.com"}, {"Jo+x@Example.com", "jo+x@example.com"}, {"+x@gmail.com", "+x@gmail.com"},
	})

	require.True(t, EmailHasDomain("jo@shop.example.com", []string{"Example.com"}))
	require.True(t, EmailHasDomain("jo@example.com", []string{"other.org", "@example.com"}))
	require.False(t, EmailHasDomain("jo@badexample.com", []string{"example.com"}))
	require.False(t, EmailHasDomain("jo", []string{"example.com"}))
	require.False(t, EmailHasDomain("jo@example.com", []string{""}))
}

func TestPhone(t *testing.T) {
	german := func(s string) (string, error) { return Phone(s, "DE") }
	check(t, german, []cleaning{
		{"030 123456", "+4930123456"}, {"+49 (0)30 / 12 34 56", "+4930123456"}, {"0049 30 123456", "+4930123456"}, {"tel:+49-30-123456", "+4930123456"},
		{"0151 23456789", "+4915123456789"}, {"+44 20 7946 0958", "+442079460958"}, {"+1 (415) 555-2671", "+14155552671"}, {"030 123456 ext. 12", "+4930123456"},
		{"٠٣٠١٢٣٤٥٦", "+4930123456"}, {"０３０　１２３４５６", "+4930123456"}, {"+۴۹ ۳۰ ۱۲۳۴۵۶", "+4930123456"}, {"", "!empty"}, {"abc", "!phone"}, {"12", "!phone_invalid"}, {"+999 123456", "!phone_country_code"},
		{"030 1234567890123456", "!phone_long"}, {"+1 555 555 5555", "!phone_invalid"},
	})
	anywhere := func(s string) (string, error) { return Phone(s, "") }
	check(t, anywhere, []cleaning{{"+33 1 42 68 53 00", "+33142685300"}, {"01 42 68 53 00", "!phone_country"}})
	_, err := Phone("030 123456", "XX")
	require.ErrorIs(t, err, errPhoneRegion)
}

func TestTimestamp(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	utc := func(s string) (string, error) { return Timestamp(s, TimeOptions{}) }
	check(t, utc, []cleaning{
		{"2026-01-31T08:30:00Z", "2026-01-31T08:30:00Z"}, {"2026-01-31T08:30:00.125+01:00", "2026-01-31T07:30:00.125Z"},
		{"2026-01-31 08:30:00", "2026-01-31T08:30:00Z"}, {"2026-01-31 08:30", "2026-01-31T08:30:00Z"}, {"2026-01-31", "2026-01-31T00:00:00Z"},
		{"2026/1/31 8:30", "2026-01-31T08:30:00Z"}, {"2026.01.31", "2026-01-31T00:00:00Z"}, {"20260131", "2026-01-31T00:00:00Z"}, {"20260131T083000Z", "2026-01-31T08:30:00Z"},
		{"20260131083000", "2026-01-31T08:30:00Z"}, {"2026-01-31T08:30:00+0100", "2026-01-31T07:30:00Z"}, {"2026-01-31T08:30+01", "2026-01-31T07:30:00Z"}, {"2026-01-31 08:30:00 +01:00", "2026-01-31T07:30:00Z"},
		{"2026-01-31T08:30:00,5Z", "2026-01-31T08:30:00.5Z"}, {"2026-01-31T24:00:00Z", "2026-02-01T00:00:00Z"}, {"2026-12-31T23:59:60Z", "2026-12-31T23:59:59Z"},
		{"2026-01-31T08:30:00 Europe/Berlin", "2026-01-31T07:30:00Z"}, {"2026-01-31T08:30:00+01:00[Europe/Berlin]", "2026-01-31T07:30:00Z"},
		{"31.01.2026", "2026-01-31T00:00:00Z"}, {"31.1.26", "2026-01-31T00:00:00Z"}, {"31.01.2026 8:30 Uhr", "2026-01-31T08:30:00Z"}, {"31.01.2026, 08:30:15", "2026-01-31T08:30:15Z"}, {"03.04.2026", "2026-04-03T00:00:00Z"}, {"31. 1. 2026", "2026-01-31T00:00:00Z"},
		{"31/01/2026", "2026-01-31T00:00:00Z"}, {"01/31/2026", "2026-01-31T00:00:00Z"}, {"1/31/2026 8:30 PM", "2026-01-31T20:30:00Z"}, {"1/31/2026, 8:30:15 AM", "2026-01-31T08:30:15Z"}, {"04/04/2026", "2026-04-04T00:00:00Z"},
		{"31-01-2026", "2026-01-31T00:00:00Z"}, {"12:30", "!time"}, {"1/31/2026 12:30 am", "2026-01-31T00:30:00Z"}, {"1/31/2026 12:30 p.m.", "2026-01-31T12:30:00Z"},
		{"Jan 31, 2026", "2026-01-31T00:00:00Z"}, {"January 31st 2026 at 8:30 PM", "2026-01-31T20:30:00Z"}, {"31 January 2026", "2026-01-31T00:00:00Z"}, {"31-Jan-2026", "2026-01-31T00:00:00Z"}, {"31-JAN-26", "2026-01-31T00:00:00Z"}, {"2026-Jan-31", "2026-01-31T00:00:00Z"},
		{"31. Januar 2026", "2026-01-31T00:00:00Z"}, {"Samstag, 31. Januar 2026 um 08:30 Uhr", "2026-01-31T08:30:00Z"}, {"3. März 2026", "2026-03-03T00:00:00Z"}, {"31 janvier 2026 à 8h30", "2026-01-31T08:30:00Z"}, {"1er août 2026", "2026-08-01T00:00:00Z"}, {"31 de enero de 2026", "2026-01-31T00:00:00Z"}, {"mar 3 de marzo de 2026", "2026-03-03T00:00:00Z"},
		{"Sat, 31 Jan 2026 08:30:00 GMT", "2026-01-31T08:30:00Z"}, {"Sat, 31 Jan 2026 08:30:00 -0500", "2026-01-31T13:30:00Z"}, {"Sat, 31 Jan 2026 08:30:00 EST", "2026-01-31T13:30:00Z"}, {"Saturday, 31-Jan-26 08:30:00 UTC", "2026-01-31T08:30:00Z"},
		{"Sat Jan 31 2026 08:30:00 GMT+0100 (Central European Standard Time)", "2026-01-31T07:30:00Z"}, {"Sat Jan 31 08:30:00 2026", "2026-01-31T08:30:00Z"}, {"Sat Jan 31 08:30:00 CET 2026", "2026-01-31T07:30:00Z"}, {"Tue Mar 31 08:30:00 UTC 2026", "2026-03-31T08:30:00Z"}, {"Mar 31, 2026", "2026-03-31T00:00:00Z"},
		{"1769848200", "2026-01-31T08:30:00Z"}, {"1769848200000", "2026-01-31T08:30:00Z"}, {"1769848200.25", "2026-01-31T08:30:00.25Z"}, {"-100000000", "1966-10-31T14:13:20Z"}, {"1769848200000000", "2026-01-31T08:30:00Z"},
		{"03/04/2026", "!time_ambiguous"}, {"3-4-2026", "!time_ambiguous"}, {"31/01/26", "!time_ambiguous"}, {"", "!empty"}, {"yesterday", "!time"}, {"2026", "!time"}, {"12", "!time"}, {"2026-13-01", "!time_range"}, {"2026-02-30", "!time_range"}, {"31.02.2026", "!time_range"},
		{"2026-01-31T25:00:00Z", "!time_range"}, {"2026-01-31 8", "!time"}, {"2026-01-31 08:30 XYZ", "!time_zone"}, {"2026-01-31 08:30 IST", "!time_zone"}, {"2026-01-31T08:30+99:00", "!time_zone"}, {"0000-00-00", "!time_range"}, {"0001-01-01T00:00:00Z", "!time_range"}, {"13/13/2026", "!time_range"}, {"31 foo 2026", "!time"}, {"31.01.20266", "!time"},
	})
	local := func(s string) (string, error) { return Timestamp(s, TimeOptions{Zone: berlin, Order: "dmy"}) }
	check(t, local, []cleaning{
		{"03/04/2026 08:30", "2026-04-03T06:30:00Z"}, {"2026-01-31", "2026-01-30T23:00:00Z"}, {"2026-07-01 08:30", "2026-07-01T06:30:00Z"}, {"2026-07-01T08:30:00Z", "2026-07-01T08:30:00Z"},
		{"2026-03-29 02:30", "!time_gap"}, {"2026-10-25 02:30", "2026-10-25T00:30:00Z"}, {"01/31/2026", "!time_range"}, {"31/01/26", "2026-01-30T23:00:00Z"},
	})
	american := func(s string) (string, error) { return Timestamp(s, TimeOptions{Order: "mdy"}) }
	check(t, american, []cleaning{{"03/04/2026", "2026-03-04T00:00:00Z"}, {"03.04.2026", "2026-04-03T00:00:00Z"}, {"3/4/26", "2026-03-04T00:00:00Z"}})
	own := func(s string) (string, error) {
		return Timestamp(s, TimeOptions{Layouts: []string{"02.01.06/15Uhr04"}})
	}
	check(t, own, []cleaning{{"31.01.26/08Uhr30", "2026-01-31T08:30:00Z"}})
	_, err = Timestamp("2026-01-31", TimeOptions{Order: "ymd"})
	require.ErrorIs(t, err, errTimeOrder)

	day := func(s string) (string, error) { return Date(s, TimeOptions{}) }
	check(t, day, []cleaning{{"31.01.1980", "1980-01-31"}, {"1980-01-31T23:30:00-05:00", "1980-01-31"}, {"Jan 31 1980", "1980-01-31"}, {"31.1.69", "1969-01-31"}, {"31.1.68", "1968-01-31"}, {"03/04/1980", "!time_ambiguous"}})
	// A day that begins at 01:00, as in São Paulo in 2017.
	paulo, err := time.LoadLocation("America/Sao_Paulo")
	require.NoError(t, err)
	got, err := Timestamp("2017-10-15", TimeOptions{Zone: paulo})
	require.NoError(t, err)
	require.Equal(t, "2017-10-15T03:00:00Z", got)
}

func TestTimestampParsesEveryLayout(t *testing.T) {
	forms := []string{
		time.RFC3339, time.RFC3339Nano, time.RFC1123Z, time.RFC1123, time.RFC850, time.ANSIC, time.UnixDate, time.DateTime,
		"2006-01-02T15:04:05", "20060102T150405Z0700", "02.01.2006 15:04:05", "2. January 2006 15:04:05", "January 2, 2006 3:04:05 PM", "Mon Jan 02 2006 15:04:05 GMT-0700", "2006/01/02 15:04:05 -07:00",
	}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 2145916800).Draw(t, "at"), 0).UTC()
		form := rapid.SampledFrom(forms).Draw(t, "form")
		got, err := Timestamp(at.Format(form), TimeOptions{})
		require.NoError(t, err, at.Format(form))
		require.Equal(t, at.Format(time.RFC3339), got, at.Format(form))
	})
}

func TestTimestampFormats(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	local := func(s string) (string, error) { return Timestamp(s, TimeOptions{Zone: berlin}) }
	check(t, local, []cleaning{
		// Compact forms. A number of seconds that may be a date is refused.
		{"202601310830", "2026-01-31T07:30:00Z"}, {"20260131083015", "2026-01-31T07:30:15Z"}, {"20260131083015250", "2026-01-31T07:30:15.25Z"}, {"20260131T0830", "2026-01-31T07:30:00Z"}, {"2026-01-31 0830", "2026-01-31T07:30:00Z"},
		{"202613310830", "!time_range"}, {"202601312530", "!time_range"}, {"2026013108", "!time_ambiguous"}, {"1769848200", "2026-01-31T08:30:00Z"}, {"1769848200000", "2026-01-31T08:30:00Z"}, {"2026999999", "2034-03-26T15:33:19Z"}, {"999999999999", "2001-09-09T01:46:39.999Z"}, {"31012026", "!time_range"},
		// Days of spreadsheets.
		{"46053", "2026-01-30T23:00:00Z"}, {"46053.354166666664", "2026-01-31T07:30:00Z"}, {"46053.5", "2026-01-31T11:00:00Z"}, {"9999", "!time"}, {"123456", "!time"}, {"80000", "!time"},
		// Weeks of ISO 8601.
		{"2026-W05-6", "2026-01-30T23:00:00Z"}, {"2026W056", "2026-01-30T23:00:00Z"}, {"2026-W05", "2026-01-25T23:00:00Z"}, {"2026-W05-6T08:30", "2026-01-31T07:30:00Z"}, {"2020-W53-5", "2020-12-31T23:00:00Z"}, {"2026-W54", "!time_range"}, {"2025-W53", "!time_range"},
		// Go, access logs, a time before the date.
		{"2026-01-31 08:30:00 +0000 UTC", "2026-01-31T08:30:00Z"}, {"2026-01-31 08:30:00.5 +0100 CET m=+0.001", "2026-01-31T07:30:00.5Z"}, {"2026-01-31 08:30:00 -0300 -03", "2026-01-31T11:30:00Z"},
		{"31/Jan/2026:08:30:00 +0100", "2026-01-31T07:30:00Z"}, {"[31/Jan/2026:08:30:00 +0000]", "2026-01-31T08:30:00Z"},
		{"08:30 31.01.2026", "2026-01-31T07:30:00Z"}, {"8:30 PM, Jan 31, 2026", "2026-01-31T19:30:00Z"}, {"08:30:15 2026-01-31 +00:00", "2026-01-31T08:30:15Z"}, {"8:30 Uhr am 31. Januar 2026", "2026-01-31T07:30:00Z"}, {"08:30 03/04/2026", "!time_ambiguous"}, {"25:30 31.01.2026", "!time_range"},
		// Digits of other scripts.
		{"٣١/٠١/٢٠٢٦", "2026-01-30T23:00:00Z"}, {"２０２６－０１－３１ ０８：３０", "2026-01-31T07:30:00Z"}, {"३१.०१.२०२६", "2026-01-30T23:00:00Z"},
	})
	day := func(s string) (string, error) { return Date(s, TimeOptions{}) }
	check(t, day, []cleaning{
		{"31 stycznia 2026", "2026-01-31"}, {"3 października 2026", "2026-10-03"}, {"sobota, 31 stycznia 2026", "2026-01-31"}, {"31 januari 2026", "2026-01-31"}, {"31. marts 2026", "2026-03-31"}, {"17. desember 2026", "2026-12-17"}, {"31. tammikuuta 2026", "2026-01-31"},
		{"31. ledna 2026", "2026-01-31"}, {"3. září 2026", "2026-09-03"}, {"3. června 2026", "2026-06-03"}, {"3. července 2026", "2026-07-03"}, {"2026. január 31.", "2026-01-31"}, {"2026. augusztus 20.", "2026-08-20"}, {"31 ianuarie 2026", "2026-01-31"}, {"31 Ocak 2026", "2026-01-31"}, {"3 Ağustos 2026", "2026-08-03"}, {"3 Kasım 2026", "2026-11-03"},
		{"31 Ιανουαρίου 2026", "2026-01-31"}, {"3 Μαΐου 2026", "2026-05-03"}, {"31 января 2026 г.", "2026-01-31"}, {"3 мая 2026", "2026-05-03"}, {"суббота, 31 января 2026", "2026-01-31"}, {"31 січня 2026 р.", "2026-01-31"}, {"3 липня 2026", "2026-07-03"}, {"2026年1月31日", "2026-01-31"}, {"2026년 1월 31일", "2026-01-31"}, {"31 يناير 2026", "2026-01-31"}, {"٣١ يناير ٢٠٢٦", "2026-01-31"},
	})
	clock := func(s string) (string, error) { return Timestamp(s, TimeOptions{}) }
	check(t, clock, []cleaning{{"31 января 2026 г., 8:30", "2026-01-31T08:30:00Z"}, {"2026年1月31日 08:30", "2026-01-31T08:30:00Z"}, {"den 31 januari 2026", "!time"}})
}

// A two-digit year of a day is in the past, and Past refuses days in the future.
func TestDateIsNotInTheFuture(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	birthday := func(s string) (string, error) { return Date(s, TimeOptions{Past: true, Now: now, Order: "dmy"}) }
	check(t, birthday, []cleaning{
		{"31.1.45", "1945-01-31"}, {"31.1.26", "2026-01-31"}, {"1.3.26", "1926-03-01"}, {"31.1.68", "1968-01-31"}, {"31.1.69", "1969-01-31"}, {"1.2.99", "1999-02-01"}, {"31/01/27", "1927-01-31"}, {"31-Jan-45", "1945-01-31"},
		{"2026-01-31", "2026-01-31"}, {"2026-02-02", "!time_future"}, {"2062-01-31", "!time_future"}, {"4000000000", "!time_future"}, {"2026-02-01", "2026-02-01"},
	})
	day := func(s string) (string, error) { return Date(s, TimeOptions{Now: now}) }
	check(t, day, []cleaning{{"2062-01-31", "2062-01-31"}, {"31.1.45", "1945-01-31"}})
}

func TestMoney(t *testing.T) {
	money := func(o MoneyOptions) func(string) (string, error) {
		return func(s string) (string, error) {
			a, err := Money(s, o)
			return a.Value + " " + a.Currency, err
		}
	}
	check(t, money(MoneyOptions{}), []cleaning{
		{"1.234,56 €", "1234.56 EUR"}, {"$1,234.56", "1234.56 USD"}, {"EUR 12", "12 EUR"}, {"1'234.50 CHF", "1234.50 CHF"}, {"CHF 1’234.50", "1234.50 CHF"}, {"1 234,56 €", "1234.56 EUR"}, {"1\u202f234,56\u00a0€", "1234.56 EUR"},
		{"(12.50) USD", "-12.50 USD"}, {"($12.50)", "-12.50 USD"}, {"$(12.50)", "-12.50 USD"}, {"-12,50 €", "-12.50 EUR"}, {"€ -12,50", "-12.50 EUR"}, {"12,50- €", "-12.50 EUR"}, {"−5 €", "-5 EUR"}, {"+5 €", "5 EUR"}, {"-$5", "-5 USD"}, {"--5 €", "!money"}, {"-(5) €", "!money"},
		{"1.234 €", "1234 EUR"}, {"1,234 €", "1234 EUR"}, {"1.234 KWD", "!money_ambiguous"}, {"1.234.567 €", "1234567 EUR"}, {"0.125 €", "0.125 EUR"}, {"1234.567 €", "1234.567 EUR"}, {"12.5 €", "12.5 EUR"}, {"12,00 €", "12.00 EUR"}, {"1.2345 €", "1.2345 EUR"},
		{"₹12,34,567.00", "1234567.00 INR"}, {"1.23.45 €", "!money"}, {"1,2,3 €", "!money"}, {"12,345,67 €", "!money"}, {"1234,567.00 €", "!money"}, {"1.234,567.89 €", "!money"},
		{"12,- €", "12 EUR"}, {"12.-- CHF", "12 CHF"}, {"CHF 12.-", "12 CHF"}, {".50 €", "0.50 EUR"}, {"007 €", "7 EUR"}, {"0 €", "0 EUR"}, {"-0,00 €", "0.00 EUR"},
		{"US$ 5", "5 USD"}, {"R$ 5", "5 BRL"}, {"5 zł", "5 PLN"}, {"100 Kč", "100 CZK"}, {"¥500", "500 JPY"}, {"5 kr", "!money_currency_shared"}, {"Rs. 500", "500 INR"}, {"Fr. 12.50", "12.50 CHF"}, {"12.50 Fr.", "12.50 CHF"}, {"12 euros", "12 EUR"},
		{"$12 CAD", "12 CAD"}, {"CAD $12", "!money"}, {"€12 USD", "!money_two_currencies"}, {"12 XYZ", "!money_currency_unknown"}, {"12.50", "!money_currency"}, {"", "!empty"}, {"€", "!money"}, {"a lot", "!money"}, {"12 €€", "!money_currency_unknown"}, {"1e5 €", "!money"},
	})
	check(t, money(MoneyOptions{Currency: "eur"}), []cleaning{{"12.50", "12.50 EUR"}, {"1.234", "1234 EUR"}, {"$5", "5 USD"}})
	check(t, money(MoneyOptions{Currency: "SEK"}), []cleaning{{"5 kr", "5 SEK"}, {"kr. 5", "5 SEK"}})
	check(t, money(MoneyOptions{Currency: "CAD"}), []cleaning{{"$5", "5 CAD"}})
	check(t, money(MoneyOptions{Currency: "EUR", Decimal: "."}), []cleaning{{"1.234", "1.234 EUR"}, {"1,234", "1234 EUR"}, {"1.234,56", "!money"}})
	check(t, money(MoneyOptions{Currency: "EUR", Decimal: ","}), []cleaning{{"1.234", "1234 EUR"}, {"1,234", "1.234 EUR"}, {"1.234,56", "1234.56 EUR"}})
	check(t, money(MoneyOptions{Currency: "EURO"}), []cleaning{{"1", "!currency"}})
	check(t, money(MoneyOptions{Decimal: ";"}), []cleaning{{"1", "!decimal"}})
}

func TestMoneyParsesEveryNotation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.Int64Range(0, 999_999_999).Draw(t, "whole")
		cents := rapid.IntRange(0, 99).Draw(t, "cents")
		style := rapid.SampledFrom([][2]string{{".", ","}, {",", "."}, {"'", "."}, {" ", ","}, {"", "."}, {"", ","}}).Draw(t, "style")
		digits := itoa(whole)
		var grouped string
		for i, d := range digits {
			if i > 0 && (len(digits)-i)%3 == 0 {
				grouped += style[0]
			}
			grouped += string(d)
		}
		fraction := string(rune('0'+cents/10)) + string(rune('0'+cents%10))
		want := digits + "." + fraction
		for _, text := range []string{grouped + style[1] + fraction + " €", "EUR " + grouped + style[1] + fraction} {
			got, err := Money(text, MoneyOptions{})
			require.NoError(t, err, text)
			require.Equal(t, Amount{want, "EUR"}, got, text)
		}
	})
}

func itoa(n int64) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

func TestCountry(t *testing.T) {
	check(t, Country, []cleaning{
		{"DE", "DE"}, {"de", "DE"}, {"DEU", "DE"}, {"276", "DE"}, {"Germany", "DE"}, {"GERMANY", "DE"}, {"Deutschland", "DE"}, {"Allemagne", "DE"}, {"Alemania", "DE"}, {"Germania", "DE"}, {" deutschland ", "DE"},
		{"UK", "GB"}, {"GB", "GB"}, {"Großbritannien", "GB"}, {"Grossbritannien", "GB"}, {"United Kingdom", "GB"}, {"Vereinigtes Königreich", "GB"}, {"Royaume-Uni", "GB"}, {"U.S.A.", "US"}, {"usa", "US"}, {"États-Unis", "US"}, {"etats unis", "US"}, {"Estados Unidos", "US"}, {"USA", "US"},
		{"Österreich", "AT"}, {"Oesterreich", "AT"}, {"Osterreich", "AT"}, {"Suisse", "CH"}, {"Côte d’Ivoire", "CI"}, {"Cote d'Ivoire", "CI"}, {"Türkei", "TR"}, {"Turkey", "TR"}, {"Türkiye", "TR"}, {"日本", "JP"}, {"Россия", "RU"}, {"Kosovo", "XK"}, {"Czechia", "CZ"}, {"Holland", "NL"},
		{"", "!empty"}, {"Atlantis", "!country"}, {"XX", "!country"}, {"EU", "!country"}, {"ZZ", "!country"}, {"150", "!country"}, {"D", "!country"},
	})
}

func TestCountryRecognisesCodesAndNamesOfEveryCountry(t *testing.T) {
	countries := strings.Fields(isoCountries)
	require.Len(t, countries, 249+1) // and Kosovo
	for _, c := range countries {
		region := language.MustParseRegion(c[:2])
		for _, name := range []string{
			c[:2], c[2:5], c[5:], strings.ToLower(c[:2]), display.Regions(language.English).Name(region), display.Regions(language.German).Name(region),
			display.Regions(language.French).Name(region), display.Regions(language.Spanish).Name(region),
		} {
			got, err := Country(name)
			require.NoError(t, err, "%s %s", c, name)
			require.Equal(t, c[:2], got, name)
		}
	}
}

func TestCountryRecognisesOfficialNames(t *testing.T) {
	check(t, Country, []cleaning{
		{"Bosnia and Herzegovina", "BA"}, {"Trinidad and Tobago", "TT"}, {"Antigua and Barbuda", "AG"}, {"Sao Tome and Principe", "ST"}, {"Saint Kitts and Nevis", "KN"},
		{"North Macedonia", "MK"}, {"Republic of North Macedonia", "MK"}, {"Eswatini", "SZ"}, {"Kingdom of Eswatini", "SZ"}, {"Hong Kong", "HK"}, {"Macau", "MO"}, {"Macao", "MO"}, {"Congo", "CG"},
		{"Congo, The Democratic Republic of the", "CD"}, {"the Democratic Republic of the Congo", "CD"}, {"U.K.", "GB"}, {"Holy See", "VA"}, {"Holy See (Vatican City State)", "VA"}, {"Syrian Arab Republic", "SY"},
		{"Korea, Republic of", "KR"}, {"Korea, Democratic People's Republic of", "KP"}, {"Iran, Islamic Republic of", "IR"}, {"Bolivia, Plurinational State of", "BO"}, {"Tanzania, United Republic of", "TZ"},
		{"Lao People's Democratic Republic", "LA"}, {"Federal Republic of Germany", "DE"}, {"French Republic", "FR"}, {"Kingdom of Spain", "ES"}, {"Swiss Confederation", "CH"}, {"Hellenic Republic", "GR"},
		{"United Kingdom of Great Britain and Northern Ireland", "GB"}, {"United States of America", "US"}, {"Republic of Türkiye", "TR"}, {"Principality of Monaco", "MC"}, {"Grand Duchy of Luxembourg", "LU"},
		{"People's Republic of China", "CN"}, {"Taiwan, Province of China", "TW"}, {"State of Palestine", "PS"}, {"Palestine, State of", "PS"}, {"Virgin Islands, U.S.", "VI"}, {"Virgin Islands, British", "VG"},
		{"Saint Helena, Ascension and Tristan da Cunha", "SH"}, {"Saint Martin (French part)", "MF"}, {"Sint Maarten (Dutch part)", "SX"}, {"Bonaire, Sint Eustatius and Saba", "BQ"}, {"Falkland Islands (Malvinas)", "FK"},
		{"Moldova, Republic of", "MD"}, {"Micronesia, Federated States of", "FM"}, {"Brunei Darussalam", "BN"}, {"Russian Federation", "RU"}, {"Viet Nam", "VN"}, {"St. Lucia", "LC"}, {"Cote d'Ivoire", "CI"}, {"٢٧٦", "DE"},
		{"UN", "!country"}, {"SU", "!country"}, {"YU", "!country"}, {"AN", "!country"}, {"CS", "!country"}, {"EU", "!country"}, {"AC", "!country"}, {"IC", "!country"}, {"001", "!country"}, {"419", "!country"}, {"Europe", "!country"}, {"State of Georgia", "!country_ambiguous"}, {"State of New York", "!country"},
	})
}

func TestLanguage(t *testing.T) {
	check(t, Language, []cleaning{
		{"de", "de"}, {"DE", "de"}, {"de_DE", "de-DE"}, {"en-us", "en-US"}, {"de_DE.UTF-8", "de-DE"}, {"deu", "de"}, {"ger", "de"}, {"zh-hant-tw", "zh-Hant-TW"}, {"iw", "he"},
		{"German", "de"}, {"Deutsch", "de"}, {"allemand", "de"}, {"Français", "fr"}, {"francais", "fr"}, {"español", "es"}, {"English", "en"}, {"日本語", "ja"},
		{"", "!empty"}, {"Klingonish", "!language"}, {"und", "!language"}, {"x", "!language"},
	})
}

func TestPseudonym(t *testing.T) {
	p, err := NewPseudonym([]byte("0123456789abcdef"))
	require.NoError(t, err)
	// openssl dgst -sha256 -hmac 0123456789abcdef
	require.Equal(t, p.Hash("jo@example.com"), p.Hash("jo@example.com"))
	require.NotEqual(t, p.Hash("jo@example.com"), p.Hash("al@example.com"))
	require.Len(t, p.Hash(""), 64)
	other, err := NewPseudonym([]byte("another key of some length"))
	require.NoError(t, err)
	require.NotEqual(t, p.Hash("jo@example.com"), other.Hash("jo@example.com"))
	// RFC 4231, test case 6.
	long, err := NewPseudonym([]byte(strings.Repeat("\xaa", 131)))
	require.NoError(t, err)
	require.Equal(t, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54", long.Hash("Test Using Larger Than Block-Size Key - Hash Key First"))
	_, err = NewPseudonym([]byte("short"))
	require.ErrorIs(t, err, errSecret)
}

func TestBot(t *testing.T) {
	for _, ua := range []string{
		"", "  ", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
		"curl/8.5.0", "python-requests/2.31.0", "Go-http-client/2.0", "okhttp/4.12.0", "facebookexternalhit/1.1", "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/124.0.0.0 Safari/537.36", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
		"Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)", "Mozilla/5.0 (compatible; Baiduspider/2.0)", "GPTBot/1.2", "ClaudeBot/1.0", "Wget/1.21", "Java/17.0.1", "node-fetch/1.0", strings.Repeat("x", 5000),
	} {
		require.True(t, IsBot(ua), ua)
	}
	for _, ua := range []string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Linux; Android 10; CUBOT X30) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
		"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) GSA/312.0 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 [FBAN/FBIOS;FBAV/460.0;FBDV/iPhone14,5]", "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 Instagram 330.0.0.40.92 Android",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36 Edg/124.0.2478.67", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36 OPR/108.0.0.0",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 14_4) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15", "Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/123.0.6312.52 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Linux; Android 13; SAMSUNG SM-A536B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/24.0 Chrome/117.0.0.0 Mobile Safari/537.36", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
		"Mozilla/5.0 (Linux; U; Android 12; de-de; Redmi Note 9 Pro) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100.0.4896.127 Mobile Safari/537.36 XiaoMi/MiuiBrowser/13.20.1-gn", "Mozilla/5.0 (Linux; Android 9; KFMAWI) AppleWebKit/537.36 (KHTML, like Gecko) Silk/112.5.1 like Chrome/112.0.5615.213 Safari/537.36",
		"Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/UQ1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/122.0.6261.64 Mobile Safari/537.36", "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36", "Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)",
		"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko", "Mozilla/5.0 (PlayStation; PlayStation 5/8.20) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.4 Safari/605.1.15", "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) 76.0.3809.146/6.0 TV Safari/537.36", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36 Vivaldi/6.6.3271.61", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
	} {
		require.False(t, IsBot(ua), ua)
	}
}

// Every instance of the list of crawlers is a bot.
func TestBotRecognisesTheListOfCrawlers(t *testing.T) {
	var list []struct {
		Pattern   string
		Instances []string
	}
	require.NoError(t, json.Unmarshal(crawlerList, &list))
	require.Greater(t, len(list), 1400)
	for _, item := range list {
		for _, ua := range item.Instances {
			require.True(t, IsBot(ua), "%s: %s", item.Pattern, ua)
		}
	}
	for _, ua := range []string{
		"Mozilla/5.0 (Windows; U; Windows NT 5.1; de; rv:1.9.0.7) Gecko/2009021910 Firefox/3.0.7 (via ggpht.com GoogleImageProxy)", "Mozilla/5.0", "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
	} {
		require.True(t, IsBot(ua), ua)
	}
}

func BenchmarkIsBot(b *testing.B) {
	for b.Loop() {
		IsBot("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36")
	}
}

func TestNetworks(t *testing.T) {
	n, err := NewNetworks([]string{"10.0.0.0/8", "203.0.113.7", "2001:db8::/32", "::ffff:192.0.2.0/120"})
	require.NoError(t, err)
	for _, s := range []string{"10.1.2.3", " 10.0.0.1 ", "203.0.113.7", "2001:db8::1", "10.1.2.3:443", "[2001:db8::1]:443", "::ffff:10.1.2.3", "192.0.2.9", "2001:db8::1%eth0"} {
		require.True(t, n.Contains(s), s)
	}
	for _, s := range []string{"11.0.0.1", "203.0.113.8", "2001:db9::1", "", "ten", "10.0.0", "10.0.0.1/8"} {
		require.False(t, n.Contains(s), s)
	}
	_, err = NewNetworks([]string{"10.0.0.0/33"})
	require.ErrorContains(t, err, "10.0.0.0/8")
}

func TestIdentifiers(t *testing.T) {
	i, err := NewIdentifiers(`([A-Z]{2})[-_ ]?(\d{3,6})`, "$1-$2")
	require.NoError(t, err)
	check(t, i.Clean, []cleaning{
		{"kb-220", "KB-220"}, {"KB220", "KB-220"}, {" kb 220 ", "KB-220"}, {"kb_220", "KB-220"}, {"", "!empty"}, {"KB-22", "!identifier"}, {"xKB-220", "!identifier"}, {"KB-220;drop", "!identifier"},
	})
	asIs, err := NewIdentifiers(`\d{13}`, "")
	require.NoError(t, err)
	check(t, asIs.Clean, []cleaning{{"4006381 333931", "4006381333931"}})
	_, err = NewIdentifiers("(", "")
	require.Error(t, err)
}
