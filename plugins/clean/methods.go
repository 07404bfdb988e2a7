package clean

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/engine/cleaning"
)

// onError is what the descriptions of methods that can fail end with.
const onError = "\n\nA value that cannot be cleaned is an error, which holds the rule that was broken and nothing of the value. Write `| deleted()` or `| null` behind the method to do without the value, `| this.path` to keep it as it is, and nothing to have the event set aside."

func methods() []method {
	return []method{
		{
			"clean_text",
			bloblang.NewPluginSpec().
				Description("Brings text into one form: composed Unicode (NFC), no invisible characters, one space for each run of white space and none at the ends. The joiners inside of emoji and of words in Persian or Hindi stay.").
				Param(bloblang.NewBoolParam("quotes").Description("Whether to turn typographic quotation marks into plain ones.").Default(false)).
				Param(bloblang.NewBoolParam("lines").Description("Whether to keep line breaks, as in the text of a review.").Default(false)).
				Example("A no-break space, a zero-width space, and a letter with its accent apart.", `root.name = this.name.clean_text()`,
					[2]string{"{\"name\":\"  Mu\u0308ller\u00a0 GmbH\u200b\"}", `{"name":"Müller GmbH"}`}).
				Example("", `root.review = this.review.clean_text(quotes: true, lines: true)`,
					[2]string{`{"review":"„Gut“ \r\n so"}`, `{"review":"\"Gut\"\nso"}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				quotes, err := args.GetBool("quotes")
				if err != nil {
					return nil, err
				}
				lines, err := args.GetBool("lines")
				o := cleaning.TextOptions{Quotes: quotes, Lines: lines}
				return text(func(s string) (string, error) { return cleaning.Text(s, o), nil }), err
			},
		},
		{
			"is_missing",
			bloblang.NewPluginSpec().
				Description("Tells whether a value is missing: null, or what forms and exports write where there is nothing, in any case: an empty text or white space, `-`, `N/A`, `null`, `none`, `undefined`, `NaN`, `unknown`, `(not set)`, `keine Angabe`, `#N/A` and the like.").
				Param(bloblang.NewAnyParam("also").Description("Further words that stand for nothing, in any case.").Default([]any{})).
				Example("", `root.missing = this.values.map_each(v -> v.is_missing())`,
					[2]string{`{"values":[null,""," n/a ","undefined","0",false,"Nina"]}`, `{"missing":[true,true,true,true,false,false,false]}`}).
				Example("A till that sends zeros for customers without a card.", `root.missing = this.card.is_missing(also: ["0000"])`,
					[2]string{`{"card":"0000"}`, `{"missing":true}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				also, err := texts(args, "also")
				return func(v any) (any, error) { return isMissing(v, also), nil }, err
			},
		},
		{
			"default_missing",
			bloblang.NewPluginSpec().
				Description("Returns the value, or another where it is missing by what `is_missing` says.").
				Param(bloblang.NewAnyParam("value").Description("What to return for a missing value.").Default(nil)).
				Param(bloblang.NewAnyParam("also").Description("Further words that stand for nothing, in any case.").Default([]any{})).
				Example("", `root = this
root.city = this.city.default_missing()
root.plan = this.plan.default_missing("free")`,
					[2]string{`{"city":"N/A","plan":"-"}`, `{"city":null,"plan":"free"}`},
					[2]string{`{"city":"Bonn","plan":"gold"}`, `{"city":"Bonn","plan":"gold"}`}).
				Example("Drop what is missing.", `root.city = this.city.default_missing(deleted())`,
					[2]string{`{"city":"N/A"}`, `{}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				instead, err := args.Get("value")
				if err != nil {
					return nil, err
				}
				also, err := texts(args, "also")
				return func(v any) (any, error) {
					if isMissing(v, also) {
						return instead, nil
					}
					return v, nil
				}, err
			},
		},
		{
			"clean_email",
			bloblang.NewPluginSpec().
				Description("Returns an e-mail address in its normal form: without display name, `mailto:` and white space, with the domain in lower case and as the DNS has it (punycode)."+onError+"\n\nThe rules are `email_at`, `email_space`, `email_local`, `email_long`, `email_domain`, `email_domain_dot`, `email_domain_address`, `email_reserved`, `empty` and `too_long`. Whether somebody reads the address, only sending to it can tell.").
				Param(bloblang.NewBoolParam("lowercase").Description("Whether to make what is before the @ lower case, too. By the letter of RFC 5321 that may be another mailbox; no provider of note has it so.").Default(false)).
				Param(bloblang.NewBoolParam("providers").Description("Whether to bring the many addresses of one mailbox at Gmail (dots, +tags, googlemail.com), Outlook, iCloud, Fastmail and Proton (+tags) to one. Use it for an identity to match by, not for the address to write to.").Default(false)).
				Example("", `root.email = this.email.clean_email()`,
					[2]string{`{"email":" Jo.Doe@MÜLLER.de "}`, `{"email":"Jo.Doe@xn--mller-kva.de"}`},
					[2]string{`{"email":"Jo Doe <jo@example.com>"}`, `{"email":"jo@example.com"}`},
					[2]string{`{"email":"jo@example"}`, `Error("email_domain_dot")`}).
				Example("One mailbox, one customer.", `root.mailbox = this.email.clean_email(lowercase: true, providers: true)`,
					[2]string{`{"email":"Jo.Doe+news@GoogleMail.com"}`, `{"mailbox":"jodoe@gmail.com"}`}).
				Example("Keep what is wrong, with the reason.", `root.email = this.email.clean_email() | this.email
root.email_fault = this.email.email_fault()`,
					[2]string{`{"email":"jo@@example.com"}`, `{"email":"jo@@example.com","email_fault":"email_at"}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				lower, err := args.GetBool("lowercase")
				if err != nil {
					return nil, err
				}
				providers, err := args.GetBool("providers")
				o := cleaning.EmailOptions{Lowercase: lower, Providers: providers}
				return text(func(s string) (string, error) { return cleaning.Email(s, o) }), err
			},
		},
		{
			"email_fault",
			bloblang.NewPluginSpec().
				Description("Returns the rule that an e-mail address breaks, by the names of `clean_email`, and null for one that is valid.").
				Example("", `root.faults = this.emails.map_each(e -> e.email_fault())`,
					[2]string{`{"emails":["jo@example.com","jo@example","jo","jo@shop.local"]}`, `{"faults":[null,"email_domain_dot","email_at","email_reserved"]}`}),
			func(*bloblang.ParsedParams) (func(any) (any, error), error) {
				return func(v any) (any, error) {
					s, err := textOf(v)
					if err != nil {
						return "type", nil
					}
					var fault *cleaning.Fault
					if _, err := cleaning.Email(s, cleaning.EmailOptions{}); errors.As(err, &fault) {
						return fault.Rule, nil
					}
					return nil, nil
				}, nil
			},
		},
		{
			"email_in",
			bloblang.NewPluginSpec().
				Description("Tells whether an e-mail address is of one of the domains or of a domain below one, such as those of the own company. What is no address is of none.").
				Param(bloblang.NewAnyParam("domains").Description("The domains.")).
				Example("", `root.internal = this.email.email_in(["example.com"])`,
					[2]string{`{"email":"Jo@Shop.Example.com"}`, `{"internal":true}`},
					[2]string{`{"email":"jo@badexample.com"}`, `{"internal":false}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				domains, err := texts(args, "domains")
				return func(v any) (any, error) {
					s, ok := v.(string)
					return ok && cleaning.EmailIn(s, domains), nil
				}, err
			},
		},
		{
			"clean_phone",
			bloblang.NewPluginSpec().
				Description("Returns a phone number in the form of E.164, checked by the numbering plans of libphonenumber. An extension is dropped, as E.164 has none."+onError+"\n\nThe rules are `phone`, `phone_country`, `phone_country_code`, `phone_short`, `phone_long`, `phone_invalid`, `empty` and `too_long`.").
				Param(bloblang.NewStringParam("region").Description("The country, by its two letters, of numbers that have no country code. Without it such a number is an error.").Default("")).
				Example("", `root.phone = this.phone.clean_phone(this.country)`,
					[2]string{`{"phone":"030 / 12 34 56","country":"DE"}`, `{"phone":"+4930123456"}`},
					[2]string{`{"phone":"+44 (0)20 7946 0958","country":"DE"}`, `{"phone":"+442079460958"}`},
					[2]string{`{"phone":"12345678901234567","country":"DE"}`, `Error("phone_long")`}).
				Example("", `root.phone = this.phone.clean_phone() | deleted()`,
					[2]string{`{"phone":"030 123456"}`, `{}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				region, err := args.GetString("region")
				return text(func(s string) (string, error) { return cleaning.Phone(s, region) }), err
			},
		},
		{
			"clean_timestamp",
			bloblang.NewPluginSpec().
				Description("Returns a time as RFC 3339 in UTC. Known are the forms of ISO 8601 and RFC 3339, RFC 2822 and 850, those of C, JavaScript and spreadsheets, dates with points, slashes, dashes or the name of a month (English, German, French, Spanish, Italian, Portuguese, Dutch) with a time of 12 or 24 hours, and Unix time in seconds or, by its digits, milli-, micro- or nanoseconds."+onError+"\n\nThe rules are `time`, `time_ambiguous` (03/04/2026, unless `order` tells), `time_range` (31 February), `time_zone` (an abbreviation that means several), `time_gap` (in the hour that summer time skips), `empty` and `too_long`. Years of two digits are 1969 to 2068. An hour that is told twice as summer time ends is the first.").
				Param(bloblang.NewStringParam("zone").Description("The time zone of times that name none.").Default("UTC")).
				Param(bloblang.NewStringParam("order").Description("The order of dates such as 03/04/2026: `dmy` or `mdy`. Empty to refuse those that could be either. Dates with points are day first in any case.").Default("")).
				Param(bloblang.NewAnyParam("layouts").Description("Further layouts, as of Go's time package, that are tried first.").Default([]any{})).
				Example("", `root.at = this.at.clean_timestamp(zone: "Europe/Berlin")`,
					[2]string{`{"at":"2026-01-31 08:30"}`, `{"at":"2026-01-31T07:30:00Z"}`},
					[2]string{`{"at":"31. Juli 2026, 8:30 Uhr"}`, `{"at":"2026-07-31T06:30:00Z"}`},
					[2]string{`{"at":"Sat, 31 Jan 2026 08:30:00 -0500"}`, `{"at":"2026-01-31T13:30:00Z"}`},
					[2]string{`{"at":1769848200000}`, `{"at":"2026-01-31T08:30:00Z"}`},
					[2]string{`{"at":"03/04/2026"}`, `Error("time_ambiguous")`}).
				Example("", `root.at = this.at.clean_timestamp(order: "mdy")`,
					[2]string{`{"at":"03/04/2026 1:15 PM"}`, `{"at":"2026-03-04T13:15:00Z"}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				o, err := timeOptions(args, true)
				return text(func(s string) (string, error) { return cleaning.Timestamp(s, o) }), err
			},
		},
		{
			"clean_date",
			bloblang.NewPluginSpec().
				Description("Returns a day, such as a birthday, as `2006-01-02`: the day that was written, which does not move with a time zone. Forms and rules are those of `clean_timestamp`."+onError).
				Param(bloblang.NewStringParam("order").Description("The order of dates such as 03/04/1980: `dmy` or `mdy`. Empty to refuse those that could be either.").Default("")).
				Param(bloblang.NewAnyParam("layouts").Description("Further layouts, as of Go's time package, that are tried first.").Default([]any{})).
				Example("", `root.birthday = this.birthday.clean_date()`,
					[2]string{`{"birthday":"31.1.1980"}`, `{"birthday":"1980-01-31"}`},
					[2]string{`{"birthday":"1980-01-31T23:30:00-05:00"}`, `{"birthday":"1980-01-31"}`},
					[2]string{`{"birthday":"31.02.1980"}`, `Error("time_range")`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				o, err := timeOptions(args, false)
				return text(func(s string) (string, error) { return cleaning.Date(s, o) }), err
			},
		},
		{
			"clean_money",
			bloblang.NewPluginSpec().
				Description("Returns the amount and the ISO 4217 currency of money as people and shops write it. The amount is a number with the digits that were written; it is never rounded.\n\nA single separator before three digits is one of thousands in a currency of two decimals or none, as `1.234 €` has no other meaning; in one of three decimals it is an error unless `decimal` tells. A symbol that several currencies share is that of `currency` if it is one of them; otherwise `$` is USD, `£` GBP, `¥` JPY, and `kr` an error."+onError+"\n\nThe rules are `money`, `money_ambiguous`, `money_currency`, `money_currency_unknown`, `money_two_currencies`, `money_currency_shared`, `empty` and `too_long`.").
				Param(bloblang.NewStringParam("currency").Description("The currency of amounts that name none. Without it such an amount is an error.").Default("")).
				Param(bloblang.NewStringParam("decimal").Description("The decimal separator, `.` or `,`, of a sender that is known to use one.").Default("")).
				Example("", `root = this.price.clean_money()`,
					[2]string{`{"price":"1.234,56 €"}`, `{"amount":1234.56,"currency":"EUR"}`},
					[2]string{`{"price":"$1,234.56"}`, `{"amount":1234.56,"currency":"USD"}`},
					[2]string{`{"price":"EUR 12"}`, `{"amount":12,"currency":"EUR"}`},
					[2]string{`{"price":"1'234.50 CHF"}`, `{"amount":1234.50,"currency":"CHF"}`},
					[2]string{`{"price":"(£5.00)"}`, `{"amount":-5.00,"currency":"GBP"}`},
					[2]string{`{"price":"12.50"}`, `Error("money_currency")`}).
				Example("", `root = this.price.clean_money(currency: "EUR")`,
					[2]string{`{"price":12.5}`, `{"amount":12.5,"currency":"EUR"}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				code, err := args.GetString("currency")
				if err != nil {
					return nil, err
				}
				decimal, err := args.GetString("decimal")
				o := cleaning.MoneyOptions{Currency: code, Decimal: decimal}
				return func(v any) (any, error) {
					given := o
					s, err := textOf(v)
					if err != nil {
						return nil, err
					}
					// A number of JSON has a point, whatever the sender's texts have.
					if _, isText := v.(string); !isText {
						given.Decimal = "."
					}
					amount, err := cleaning.Money(s, given)
					if err != nil {
						return nil, err
					}
					return map[string]any{"amount": json.Number(amount.Value), "currency": amount.Currency}, nil
				}, err
			},
		},
		{
			"clean_currency",
			bloblang.NewPluginSpec().
				Description("Returns the ISO 4217 code of a currency that is given by code or symbol, by the rules of `clean_money`."+onError).
				Param(bloblang.NewStringParam("given").Description("The currency that is meant by a symbol that several share.").Default("")).
				Example("", `root.currency = this.currency.clean_currency()`,
					[2]string{`{"currency":"€"}`, `{"currency":"EUR"}`},
					[2]string{`{"currency":"eur"}`, `{"currency":"EUR"}`},
					[2]string{`{"currency":"EURX"}`, `Error("money_currency_unknown")`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				given, err := args.GetString("given")
				return text(func(s string) (string, error) { return cleaning.Currency(s, strings.ToUpper(given)) }), err
			},
		},
		{
			"clean_id",
			bloblang.NewPluginSpec().
				Description("Returns an identifier, such as a product number, in the one form it has: in upper case, without white space, and as the pattern and form say."+onError+"\n\nThe rules are `identifier`, `empty` and `too_long`.").
				Param(bloblang.NewStringParam("pattern").Description("What the whole of an identifier in upper case matches, in RE2 syntax.")).
				Param(bloblang.NewStringParam("form").Description("How to write it, with `$1` or `${name}` for the groups of the pattern. Empty to leave it.").Default("")).
				Example("", `root.sku = this.sku.clean_id("([A-Z]{2})[-_]?([0-9]{3,6})", "$1-$2")`,
					[2]string{`{"sku":" kb 220 "}`, `{"sku":"KB-220"}`},
					[2]string{`{"sku":"KB_220"}`, `{"sku":"KB-220"}`},
					[2]string{`{"sku":"keyboard"}`, `Error("identifier")`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				pattern, err := args.GetString("pattern")
				if err != nil {
					return nil, err
				}
				form, err := args.GetString("form")
				if err != nil {
					return nil, err
				}
				ids, err := cleaning.NewIdentifiers(pattern, form)
				if err != nil {
					return nil, fmt.Errorf("pattern: %w; write it in RE2 syntax", err)
				}
				return text(ids.Clean), nil
			},
		},
		{
			"clean_country",
			bloblang.NewPluginSpec().
				Description("Returns the ISO 3166 code of two letters of a country that is given by it, by the code of three letters or digits, or by its name in any of some twenty languages."+onError+"\n\nThe rules are `country`, `country_ambiguous`, `empty` and `too_long`.").
				Example("", `root.countries = this.countries.map_each(c -> c.clean_country())`,
					[2]string{`{"countries":["de","DEU","276","Germany","Deutschland","Allemagne","Alemania"]}`, `{"countries":["DE","DE","DE","DE","DE","DE","DE"]}`},
					[2]string{`{"countries":["UK","U.S.A.","Österreich","Suisse"]}`, `{"countries":["GB","US","AT","CH"]}`},
					[2]string{`{"countries":["Atlantis"]}`, `Error("country")`}),
			func(*bloblang.ParsedParams) (func(any) (any, error), error) { return text(cleaning.Country), nil },
		},
		{
			"clean_language",
			bloblang.NewPluginSpec().
				Description("Returns the BCP 47 tag of a language, in its canonical form, that is given by a tag, a locale, a code of ISO 639 or its name."+onError+"\n\nThe rules are `language`, `empty` and `too_long`.").
				Example("", `root.languages = this.languages.map_each(l -> l.clean_language())`,
					[2]string{`{"languages":["DE","de_AT.UTF-8","deu","German","Deutsch","allemand"]}`, `{"languages":["de","de-AT","de","de","de","de"]}`},
					[2]string{`{"languages":["gibberish"]}`, `Error("language")`}),
			func(*bloblang.ParsedParams) (func(any) (any, error), error) { return text(cleaning.Language), nil },
		},
		{
			"pseudonym",
			bloblang.NewPluginSpec().
				Description("Returns the HMAC-SHA256 of personal data in hex, with a secret key: the same data has the same pseudonym, and nobody without the key can tell whose it is, nor try. Clean the data first, as ` Jo@X.de` and `jo@x.de` have different ones.\n\nThe key is read from an environment variable when it is first needed, and written nowhere. It is an error if it is not set or has fewer than 16 characters. With another key all pseudonyms are others.").
				Param(bloblang.NewStringParam("key_env").Description("The name of the environment variable that holds the key.").Default("PERSONAL_DATA_KEY")).
				Example("With the key 0123456789abcdef.", `root.customer = this.email.clean_email(lowercase: true).pseudonym()`,
					[2]string{`{"email":"Jo@example.com"}`, `{"customer":"` + examplePseudonym + `"}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				env, err := args.GetString("key_env")
				if err != nil {
					return nil, err
				}
				if env == "" {
					return nil, errors.New("key_env must be the name of an environment variable, such as PERSONAL_DATA_KEY")
				}
				p := &pseudonyms{env: env}
				return text(func(s string) (string, error) {
					of, err := p.get()
					if err != nil {
						return "", err
					}
					return of.Of(s), nil
				}), nil
			},
		},
		{
			"is_bot",
			bloblang.NewPluginSpec().
				Description("Tells whether a user agent is a program's rather than that of somebody's browser or app: it names a crawler, an HTTP library, a monitor or a browser without a screen, or is empty. A program that pretends to be a browser is not found out by this.").
				Example("", `root.bot = this.userAgent.is_bot()`,
					[2]string{`{"userAgent":"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}`, `{"bot":true}`},
					[2]string{`{"userAgent":"curl/8.5.0"}`, `{"bot":true}`},
					[2]string{`{"userAgent":"Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0"}`, `{"bot":false}`}),
			func(*bloblang.ParsedParams) (func(any) (any, error), error) {
				return func(v any) (any, error) {
					s, ok := v.(string)
					return ok && cleaning.Bot(s), nil
				}, nil
			},
		},
		{
			"ip_in",
			bloblang.NewPluginSpec().
				Description("Tells whether an IP address is in one of the networks, such as those of the own offices and monitors. What is no address is in none.").
				Param(bloblang.NewAnyParam("networks").Description("Ranges in CIDR notation, or single addresses.")).
				Example("", `root.internal = this.context.ip.ip_in(["10.0.0.0/8", "2001:db8::/32"])`,
					[2]string{`{"context":{"ip":"10.1.2.3"}}`, `{"internal":true}`},
					[2]string{`{"context":{"ip":"203.0.113.7"}}`, `{"internal":false}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				ranges, err := texts(args, "networks")
				if err != nil {
					return nil, err
				}
				networks, err := cleaning.NewNetworks(ranges)
				if err != nil {
					return nil, fmt.Errorf("networks: %w", err)
				}
				return func(v any) (any, error) {
					s, ok := v.(string)
					return ok && networks.Contains(s), nil
				}, nil
			},
		},
	}
}

// examplePseudonym is that of jo@example.com with the key of the example.
const examplePseudonym = "1c1a0b869049ed147ce96f0ca96086558b55c7e23732f52edab526f12481722f"

func isMissing(v any, also []string) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return cleaning.Missing(v, also...)
	}
	return false
}
