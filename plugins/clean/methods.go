package clean

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/engine/cleaning"
)

// onError is the end of the description of every method that can fail.
const onError = "\n\nA value that cannot be cleaned is an error that contains the broken rule and no part of the value. Append `| deleted()` or `| null` to drop the value, `| this.path` to keep it unchanged, or nothing to send the event to the dead letters."

func methods() []method {
	return []method{
		{
			"clean_text",
			bloblang.NewPluginSpec().
				Description("Normalises text: composed Unicode (NFC), no invisible characters, one space for each run of white space, trimmed. Joiners inside of emoji and of words in Persian or Hindi are kept.").
				Param(bloblang.NewBoolParam("quotes").Description("Whether to replace typographic quotation marks by ASCII ones.").Default(false)).
				Param(bloblang.NewBoolParam("lines").Description("Whether to keep line breaks, for example in the text of a review.").Default(false)).
				Example("A no-break space, a zero-width space, and a decomposed letter.", `root.name = this.name.clean_text()`,
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
				Description("Reports whether a value is missing: null, or a placeholder that forms and exports write for an absent value, in any case: empty text, white space, `-`, `N/A`, `null`, `none`, `undefined`, `NaN`, `unknown`, `(not set)`, `keine Angabe`, `#N/A` and similar words.").
				Param(bloblang.NewAnyParam("also").Description("Additional placeholders, in any case.").Default([]any{})).
				Example("", `root.missing = this.values.map_each(v -> v.is_missing())`,
					[2]string{`{"values":[null,""," n/a ","undefined","0",false,"Nina"]}`, `{"missing":[true,true,true,true,false,false,false]}`}).
				Example("A point of sale that sends zeros for customers without a card.", `root.missing = this.card.is_missing(also: ["0000"])`,
					[2]string{`{"card":"0000"}`, `{"missing":true}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				also, err := texts(args, "also")
				return func(v any) (any, error) { return isMissing(v, also), nil }, err
			},
		},
		{
			"default_missing",
			bloblang.NewPluginSpec().
				Description("Returns the value, or a replacement if `is_missing` reports that it is missing.").
				Param(bloblang.NewAnyParam("value").Description("The replacement for a missing value.").Default(nil)).
				Param(bloblang.NewAnyParam("also").Description("Additional placeholders, in any case.").Default([]any{})).
				Example("", `root = this
root.city = this.city.default_missing()
root.plan = this.plan.default_missing("free")`,
					[2]string{`{"city":"N/A","plan":"-"}`, `{"city":null,"plan":"free"}`},
					[2]string{`{"city":"Bonn","plan":"gold"}`, `{"city":"Bonn","plan":"gold"}`}).
				Example("Drop a missing value.", `root.city = this.city.default_missing(deleted())`,
					[2]string{`{"city":"N/A"}`, `{}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				replacement, err := args.Get("value")
				if err != nil {
					return nil, err
				}
				also, err := texts(args, "also")
				return func(v any) (any, error) {
					if isMissing(v, also) {
						return replacement, nil
					}
					return v, nil
				}, err
			},
		},
		{
			"clean_email",
			bloblang.NewPluginSpec().
				Description("Returns the normal form of an email address: without display name, `mailto:` and white space, with the domain in lower case and in its DNS form (punycode)."+onError+"\n\nThe rules are `email_at`, `email_space`, `email_local`, `email_long`, `email_domain`, `email_domain_dot`, `email_domain_address`, `email_reserved`, `empty` and `too_long`. Only the syntax is checked, not the existence of the mailbox.").
				Param(bloblang.NewBoolParam("lowercase").Description("Whether to convert the part before the @ to lower case as well. RFC 5321 permits case-sensitive mailboxes; no large provider uses them.").Default(false)).
				Param(bloblang.NewBoolParam("providers").Description("Whether to remove the variations that a provider delivers to the same mailbox: dots, +tags and googlemail.com at Gmail; +tags at Outlook, iCloud, Fastmail and Proton. Use the result to match identities, not as the address to send to.").Default(false)).
				Example("", `root.email = this.email.clean_email()`,
					[2]string{`{"email":" Jo.Doe@MÜLLER.de "}`, `{"email":"Jo.Doe@xn--mller-kva.de"}`},
					[2]string{`{"email":"Jo Doe <jo@example.com>"}`, `{"email":"jo@example.com"}`},
					[2]string{`{"email":"jo@example"}`, `Error("email_domain_dot")`}).
				Example("One mailbox, one customer.", `root.mailbox = this.email.clean_email(lowercase: true, providers: true)`,
					[2]string{`{"email":"Jo.Doe+news@GoogleMail.com"}`, `{"mailbox":"jodoe@gmail.com"}`}).
				Example("Keep an invalid address, with the reason.", `root.email = this.email.clean_email() | this.email
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
				Description("Returns the rule of `clean_email` that an email address breaks, or null if it is valid.").
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
				Description("Reports whether the domain of an email address is in a list, for example of the company's own domains, or a subdomain of one in the list. It is false for an invalid address.").
				Param(bloblang.NewAnyParam("domains").Description("The domains.")).
				Example("", `root.internal = this.email.email_in(["example.com"])`,
					[2]string{`{"email":"Jo@Shop.Example.com"}`, `{"internal":true}`},
					[2]string{`{"email":"jo@badexample.com"}`, `{"internal":false}`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				domains, err := texts(args, "domains")
				return func(v any) (any, error) {
					s, ok := v.(string)
					return ok && cleaning.EmailHasDomain(s, domains), nil
				}, err
			},
		},
		{
			"clean_phone",
			bloblang.NewPluginSpec().
				Description("Returns a phone number in E.164 format, validated by the numbering plans of libphonenumber. Extensions are removed: E.164 has none."+onError+"\n\nThe rules are `phone`, `phone_country`, `phone_country_code`, `phone_short`, `phone_long`, `phone_invalid`, `empty` and `too_long`.").
				Param(bloblang.NewStringParam("region").Description("The two-letter country code of numbers without an international prefix. If it is empty, such a number is an error.").Default("")).
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
				Description("Returns a time in RFC 3339 format in UTC. It parses ISO 8601, RFC 3339, RFC 2822 and RFC 850, the formats of C, JavaScript and spreadsheets, dates with dots, slashes, dashes or the name of a month (in English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Swedish, Danish, Norwegian, Finnish, Czech, Hungarian, Romanian, Turkish, Greek, Russian, Ukrainian, Arabic; Chinese, Japanese and Korean dates) with a 12- or 24-hour time before or after it, compact forms such as `202601310830`, weeks of ISO 8601, access-log times, the times of Go, the day numbers of spreadsheets (five digits, with a fraction), and Unix time in seconds or, depending on the number of digits, in milli-, micro- or nanoseconds. Digits of other scripts are converted."+onError+"\n\nThe rules are `time`, `time_ambiguous` (03/04/2026 without `order`; `2026013108`, which is a date or a number of seconds), `time_range` (31 February), `time_zone` (an ambiguous abbreviation), `time_gap` (in the hour that is skipped when daylight saving time begins), `empty` and `too_long`. Two-digit years mean 1969 to 2068. In the hour that is repeated when daylight saving time ends, the first occurrence is meant.").
				Param(bloblang.NewStringParam("zone").Description("The time zone of times without zone or offset.").Default("UTC")).
				Param(bloblang.NewStringParam("order").Description("The order of dates such as 03/04/2026: `dmy` or `mdy`. If it is empty, ambiguous dates are errors. Dates with dots are always day first.").Default("")).
				Param(bloblang.NewAnyParam("layouts").Description("Additional layouts of Go's time package, tried first.").Default([]any{})).
				Example("", `root.at = this.at.clean_timestamp(zone: "Europe/Berlin")`,
					[2]string{`{"at":"2026-01-31 08:30"}`, `{"at":"2026-01-31T07:30:00Z"}`},
					[2]string{`{"at":"31. Juli 2026, 8:30 Uhr"}`, `{"at":"2026-07-31T06:30:00Z"}`},
					[2]string{`{"at":"Sat, 31 Jan 2026 08:30:00 -0500"}`, `{"at":"2026-01-31T13:30:00Z"}`},
					[2]string{`{"at":1769848200000}`, `{"at":"2026-01-31T08:30:00Z"}`},
					[2]string{`{"at":202601310830}`, `{"at":"2026-01-31T07:30:00Z"}`},
					[2]string{`{"at":46053.5}`, `{"at":"2026-01-31T11:00:00Z"}`},
					[2]string{`{"at":"2026-W05-6"}`, `{"at":"2026-01-30T23:00:00Z"}`},
					[2]string{`{"at":"31/Jan/2026:08:30:00 +0000"}`, `{"at":"2026-01-31T08:30:00Z"}`},
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
				Description("Returns a day, such as a birthday, as `2006-01-02`. It is the day in the text, independent of the time zone. Formats and rules are those of `clean_timestamp`, except that a two-digit year is the latest one that is not in the future: `31.1.45` is in 1945."+onError).
				Param(bloblang.NewStringParam("order").Description("The order of dates such as 03/04/1980: `dmy` or `mdy`. If it is empty, ambiguous dates are errors.").Default("")).
				Param(bloblang.NewAnyParam("layouts").Description("Additional layouts of Go's time package, tried first.").Default([]any{})).
				Param(bloblang.NewBoolParam("past").Description("Whether a day in the future is an error, with the rule `time_future`. Set it for birthdays.").Default(false)).
				Example("", `root.birthday = this.birthday.clean_date()`,
					[2]string{`{"birthday":"31.1.1980"}`, `{"birthday":"1980-01-31"}`},
					[2]string{`{"birthday":"1980-01-31T23:30:00-05:00"}`, `{"birthday":"1980-01-31"}`},
					[2]string{`{"birthday":"31.1.45"}`, `{"birthday":"1945-01-31"}`},
					[2]string{`{"birthday":"31.02.1980"}`, `Error("time_range")`}).
				Example("", `root.birthday = this.birthday.clean_date(past: true)`,
					[2]string{`{"birthday":"2199-01-31"}`, `Error("time_future")`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				o, err := timeOptions(args, false)
				if err != nil {
					return nil, err
				}
				o.Past, err = args.GetBool("past")
				return text(func(s string) (string, error) { return cleaning.Date(s, o) }), err
			},
		},
		{
			"clean_money",
			bloblang.NewPluginSpec().
				Description("Returns the amount and the ISO 4217 currency of a price. The amount is a number with exactly the digits of the text; it is never rounded.\n\nA single separator before three digits separates thousands if the currency has at most two decimals, because `1.234 €` has no other meaning; in a currency with three decimals it is an error without `decimal`. A symbol that several currencies share is resolved to `currency` if that is one of them; otherwise `$` is USD, `£` GBP, `¥` JPY, and `kr` is an error."+onError+"\n\nThe rules are `money`, `money_ambiguous`, `money_currency`, `money_currency_unknown`, `money_two_currencies`, `money_currency_shared`, `empty` and `too_long`.").
				Param(bloblang.NewStringParam("currency").Description("The currency of amounts without a currency. If it is empty, such an amount is an error.").Default("")).
				Param(bloblang.NewStringParam("decimal").Description("The decimal separator of the sender, `.` or `,`. If it is empty, it is derived from each amount.").Default("")).
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
					// JSON numbers use a point, independent of the sender's texts.
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
				Description("Returns the ISO 4217 code of a currency code or symbol, by the rules of `clean_money`."+onError).
				Param(bloblang.NewStringParam("given").Description("The meaning of a symbol that several currencies share.").Default("")).
				Example("", `root.currency = this.currency.clean_currency()`,
					[2]string{`{"currency":"€"}`, `{"currency":"EUR"}`},
					[2]string{`{"currency":"eur"}`, `{"currency":"EUR"}`},
					[2]string{`{"currency":"EURX"}`, `Error("money_currency_unknown")`}),
			func(args *bloblang.ParsedParams) (func(any) (any, error), error) {
				preferred, err := args.GetString("given")
				return text(func(s string) (string, error) { return cleaning.Currency(s, strings.ToUpper(preferred)) }), err
			},
		},
		{
			"clean_id",
			bloblang.NewPluginSpec().
				Description("Returns the canonical form of an identifier, such as a product number: in upper case, without white space, rewritten by `pattern` and `form`."+onError+"\n\nThe rules are `identifier`, `empty` and `too_long`.").
				Param(bloblang.NewStringParam("pattern").Description("A regular expression in RE2 syntax that matches the whole identifier in upper case.")).
				Param(bloblang.NewStringParam("form").Description("The result, with `$1` or `${name}` for groups of the pattern. If it is empty, the identifier is kept.").Default("")).
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
				Description("Returns the two-letter ISO 3166 code of a country. The input is that code, the code of three letters or digits, the English short or official name of ISO 3166, or the name in one of about twenty languages. The result is one of the 249 countries of ISO 3166, or `XK` for Kosovo."+onError+"\n\nThe rules are `country`, `country_ambiguous`, `empty` and `too_long`.").
				Example("", `root.countries = this.countries.map_each(c -> c.clean_country())`,
					[2]string{`{"countries":["de","DEU","276","Germany","Deutschland","Allemagne","Alemania"]}`, `{"countries":["DE","DE","DE","DE","DE","DE","DE"]}`},
					[2]string{`{"countries":["UK","U.S.A.","Österreich","Suisse"]}`, `{"countries":["GB","US","AT","CH"]}`},
					[2]string{`{"countries":["Atlantis"]}`, `Error("country")`}),
			func(*bloblang.ParsedParams) (func(any) (any, error), error) { return text(cleaning.Country), nil },
		},
		{
			"clean_language",
			bloblang.NewPluginSpec().
				Description("Returns the canonical BCP 47 tag of a language. The input is a tag, a locale, an ISO 639 code or a name."+onError+"\n\nThe rules are `language`, `empty` and `too_long`.").
				Example("", `root.languages = this.languages.map_each(l -> l.clean_language())`,
					[2]string{`{"languages":["DE","de_AT.UTF-8","deu","German","Deutsch","allemand"]}`, `{"languages":["de","de-AT","de","de","de","de"]}`},
					[2]string{`{"languages":["gibberish"]}`, `Error("language")`}),
			func(*bloblang.ParsedParams) (func(any) (any, error), error) { return text(cleaning.Language), nil },
		},
		{
			"pseudonym",
			bloblang.NewPluginSpec().
				Description("Returns the HMAC-SHA256 of personal data in hex, with a secret key: equal data has equal pseudonyms, and the data cannot be found by trial without the key. Clean the data first: ` Jo@X.de` and `jo@x.de` have different pseudonyms.\n\nThe key is read from an environment variable on first use and never written. A key that is not set or has fewer than 16 characters is an error. A different key changes all pseudonyms.").
				Param(bloblang.NewStringParam("key_env").Description("The name of the environment variable with the key.").Default("PERSONAL_DATA_KEY")).
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
					pseudonym, err := p.get()
					if err != nil {
						return "", err
					}
					return pseudonym.Hash(s), nil
				}), nil
			},
		},
		{
			"is_bot",
			bloblang.NewPluginSpec().
				Description("Reports whether a user agent identifies a program instead of a person's browser or app: a crawler, an HTTP library, a monitor, a headless browser, or the proxy with which a mail program loads images. An empty user agent and null are programs too. The patterns are those of the package crawler-user-agents and some of our own. It does not detect programs that send the user agent of a browser.").
				Example("", `root.bot = this.userAgent.is_bot()`,
					[2]string{`{"userAgent":"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}`, `{"bot":true}`},
					[2]string{`{"userAgent":"curl/8.5.0"}`, `{"bot":true}`},
					[2]string{`{"userAgent":null}`, `{"bot":true}`},
					[2]string{`{"userAgent":"Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0"}`, `{"bot":false}`}),
			func(*bloblang.ParsedParams) (func(any) (any, error), error) {
				return func(v any) (any, error) {
					if v == nil {
						return true, nil
					}
					s, ok := v.(string)
					return ok && cleaning.IsBot(s), nil
				}, nil
			},
		},
		{
			"ip_in",
			bloblang.NewPluginSpec().
				Description("Reports whether an IP address is in one of the networks, for example those of the company's own offices and monitors. It is false for an invalid address.").
				Param(bloblang.NewAnyParam("networks").Description("Ranges in CIDR notation or single addresses.")).
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

// examplePseudonym is the pseudonym of jo@example.com with the key of the example.
const examplePseudonym = "1c1a0b869049ed147ce96f0ca96086558b55c7e23732f52edab526f12481722f"

func isMissing(v any, also []string) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return cleaning.IsMissing(v, also...)
	}
	return false
}
