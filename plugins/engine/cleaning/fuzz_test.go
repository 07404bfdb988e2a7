package cleaning

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// fuzz checks the contract of every parser: any text is cleaned or is a fault, and
// a clean value is a fixed point.
func fuzz(f *testing.F, seeds []string, clean func(string) (string, error), stable bool) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := clean(s)
		if err != nil {
			var fault *Fault
			if !errors.As(err, &fault) || fault.Rule == "" || fault.Message == "" || got != "" {
				t.Fatalf("%q gives %q, %v", s, got, err)
			}
			return
		}
		if got == "" || !utf8.ValidString(got) || len(got) > 4*maxLength {
			t.Fatalf("%q gives %q", s, got)
		}
		if again, err := clean(got); stable && (err != nil || again != got) {
			t.Fatalf("%q gives %q, and that %q, %v", s, got, again, err)
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", " a\u200bb ", "“x”", "e\u0301", "a\r\n\nb", "👩\u200d💻", "\xff", "\u1100\u1161"} {
		f.Add(s, true, true)
	}
	f.Fuzz(func(t *testing.T, s string, quotes, lines bool) {
		o := TextOptions{Quotes: quotes, Lines: lines}
		got := Text(s, o)
		if again := Text(got, o); again != got {
			t.Fatalf("%q gives %q, and that %q", s, got, again)
		}
		if !utf8.ValidString(got) || strings.TrimSpace(got) != got || strings.Contains(got, "  ") || strings.ContainsAny(got, "\x00\u200b\ufeff") {
			t.Fatalf("%q gives %q", s, got)
		}
		IsMissing(s, "x")
	})
}

func FuzzEmail(f *testing.F) {
	seeds := []string{"Jo.Doe@Example.COM", "Jo <jo@müller.de>", "mailto:a@b.c?x", "a@[1.2.3.4]", "jodoe+x@googlemail.com", "a@b@c.d", "ä@ö.ü", "x@xn--a.com"}
	fuzz(f, seeds, func(s string) (string, error) { return Email(s, EmailOptions{Lowercase: true, Providers: true}) }, true)
}

func FuzzPhone(f *testing.F) {
	seeds := []string{"030 123456", "+49 (0)30 123456", "tel:+1-415-555-2671", "0049 151 23456789", "٠٣٠", "+", "030 123456 ext. 9"}
	fuzz(f, seeds, func(s string) (string, error) { return Phone(s, "DE") }, false)
}

func FuzzTimestamp(f *testing.F) {
	seeds := []string{
		"2026-01-31T08:30:00Z", "31.01.2026 8:30 Uhr", "Jan 31, 2026 8:30 PM", "1769848200", "20260131083000", "Sat Jan 31 2026 08:30:00 GMT+0100 (CET)",
		"Sat Jan 31 08:30:00 CET 2026", "2026-01-31T08:30:00+01:00[Europe/Berlin]", "1er août 2026", "mar 3 de marzo de 2026", "03/04/2026", "-100000000",
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	fuzz(f, seeds, func(s string) (string, error) { return Timestamp(s, TimeOptions{Zone: berlin, Order: "dmy"}) }, true)
}

func FuzzMoney(f *testing.F) {
	seeds := []string{"1.234,56 €", "$1,234.56", "EUR 12", "1'234.50 CHF", "($5)", "12,- €", "Rs. 12,34,567", "-5 kr", "$12 CAD", ".5 €"}
	fuzz(f, seeds, func(s string) (string, error) {
		a, err := Money(s, MoneyOptions{Currency: "EUR"})
		if err != nil {
			return "", err
		}
		return a.Value + " " + a.Currency, nil
	}, false)
}

func FuzzCountry(f *testing.F) {
	fuzz(f, []string{"DE", "Deutschland", "U.K.", "Côte d'Ivoire", "276", "日本"}, Country, true)
}

func FuzzLanguage(f *testing.F) {
	fuzz(f, []string{"de_DE.UTF-8", "zh-hant-tw", "Deutsch", "x-klingon", "en-u-ca-buddhist", "i-default"}, Language, true)
}

func FuzzIdentifier(f *testing.F) {
	i, err := NewIdentifiers(`([A-Z]{2})[-_ ]?(\d{3,6})`, "$1-$2")
	if err != nil {
		f.Fatal(err)
	}
	fuzz(f, []string{"kb-220", "KB 220", "kb_220x", "ß1"}, i.Clean, true)
}

func FuzzTraffic(f *testing.F) {
	n, err := NewNetworks([]string{"10.0.0.0/8", "2001:db8::/32"})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"10.1.2.3", "[2001:db8::1]:443", "curl/8", "Mozilla/5.0", "jo@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n.Contains(s)
		IsBot(s)
		EmailHasDomain(s, []string{"example.com"})
		if _, err := NewNetworks([]string{s}); err == nil && strings.TrimSpace(s) != s {
			t.Fatalf("%q is accepted as a network", s)
		}
	})
}
