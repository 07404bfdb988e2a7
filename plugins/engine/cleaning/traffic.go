package cleaning

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
)

// botMarks are lower-case substrings of the user agents of programs: generic words
// such as "bot" and "crawl", and names of HTTP libraries, link previews, mail proxies,
// monitors and headless browsers. They include programs that the list of crawlers does
// not have.
var botMarks = []string{
	"bot", "crawl", "spider", "slurp", "scrap", "fetch", "archiver", "preview", "monitor", "headless", "validator", "checker", "scanner", "feed",
	"curl/", "wget/", "python", "httpx", "aiohttp", "java/", "okhttp", "apache-httpclient", "go-http-client", "axios", "got (", "undici",
	"libwww", "lwp::", "perl", "ruby", "php/", "guzzle", "httpclient", "http_request", "postman", "insomnia", "k6/", "jmeter", "gatling",
	"phantomjs", "puppeteer", "playwright", "selenium", "webdriver", "lighthouse", "pagespeed", "gtmetrix", "pingdom", "uptime", "statuscake", "site24x7", "newrelic", "datadog", "catchpoint",
	"facebookexternalhit", "facebookcatalog", "whatsapp/", "embedly", "quora link", "outbrain", "pinterest/0", "vkshare", "w3c_", "mediapartners-google", "google-", "googleother", "google favicon", "yahoo!", "duckduckgo-favicons", "ia_archiver", "nmap", "nikto", "sqlmap", "zgrab", "masscan", "+http://", "+https://",
	"googleimageproxy", "ggpht.com", "yahoomailproxy", "yahoo mail proxy", "mailproxy", "imageproxy", "image proxy", "mail.ru/proxy", "barracuda", "mimecast", "proofpoint", "symantec", "safelinks",
}

// notBots removes names of phones and apps that contain a bot mark.
var notBots = strings.NewReplacer("cubot", "", "google-tr", "", "feedback", "")

// crawlerList is the list of the package crawler-user-agents, see crawlers/README.md.
//
//go:embed crawlers/crawler-user-agents.json
var crawlerList []byte

// crawlers are the patterns of the list. Nearly all patterns are literal texts. These
// are found by their first three bytes, so that a user agent is searched once for all
// of them. Any other pattern is evaluated only if the user agent has the longest text
// in it.
type crawlers struct {
	literals map[[3]byte][]string
	patterns []crawlerPattern
}

type crawlerPattern struct {
	required string
	pattern  *regexp.Regexp
}

// knownCrawlers is parsed on first use, which takes about 10 ms.
var knownCrawlers = sync.OnceValue(func() *crawlers {
	var list []struct{ Pattern string }
	if err := json.Unmarshal(crawlerList, &list); err != nil {
		panic(err) // the list is part of the program
	}
	c := &crawlers{literals: map[[3]byte][]string{}}
	for _, item := range list {
		parsed, err := syntax.Parse(item.Pattern, syntax.Perl)
		if err != nil {
			panic(err)
		}
		c.add(parsed)
	}
	return c
})

func (c *crawlers) add(re *syntax.Regexp) {
	if re.Op == syntax.OpAlternate {
		for _, alternative := range re.Sub {
			c.add(alternative)
		}
		return
	}
	text := longestLiteral(re)
	if re.Op != syntax.OpLiteral || len(text) < 3 {
		c.patterns = append(c.patterns, crawlerPattern{text, regexp.MustCompile(re.String())})
		return
	}
	prefix := [3]byte([]byte(text))
	c.literals[prefix] = append(c.literals[prefix], text)
}

// longestLiteral returns the longest text that every match of a pattern contains.
func longestLiteral(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return string(re.Rune)
		}
	case syntax.OpConcat:
		longest := ""
		for _, part := range re.Sub {
			if text := longestLiteral(part); len(text) > len(longest) {
				longest = text
			}
		}
		return longest
	case syntax.OpCapture:
		return longestLiteral(re.Sub[0])
	}
	return ""
}

func (c *crawlers) match(userAgent string) bool {
	for i := 0; i+3 <= len(userAgent); i++ {
		for _, literal := range c.literals[[3]byte([]byte(userAgent[i:i+3]))] {
			if strings.HasPrefix(userAgent[i:], literal) {
				return true
			}
		}
	}
	for _, p := range c.patterns {
		if strings.Contains(userAgent, p.required) && p.pattern.MatchString(userAgent) {
			return true
		}
	}
	return false
}

// IsBot reports whether a user agent identifies a program instead of a person's
// browser or app, or is empty: a crawler, an HTTP library, a monitor, or the proxy with
// which a mail program loads images. It does not detect programs that send the user
// agent of a browser.
func IsBot(userAgent string) bool {
	if len(userAgent) > 4*maxLength {
		return true // no browser sends a user agent of this length
	}
	userAgent = strings.TrimSpace(userAgent)
	if userAgent == "" || userAgent == "Mozilla/5.0" {
		return true // the latter is the proxy of Apple Mail
	}
	s := notBots.Replace(strings.ToLower(userAgent))
	for _, mark := range botMarks {
		if strings.Contains(s, mark) {
			return true
		}
	}
	return knownCrawlers().match(userAgent)
}

// Networks is a set of IP ranges, for example of the company's own offices.
type Networks struct{ prefixes []netip.Prefix }

// NewNetworks parses ranges in CIDR notation and single addresses.
func NewNetworks(ranges []string) (*Networks, error) {
	n := &Networks{}
	for _, r := range ranges {
		prefix, err := netip.ParsePrefix(r)
		if err != nil {
			address, err := netip.ParseAddr(r)
			if err != nil {
				return nil, fmt.Errorf("%q is not a network; write a range such as 10.0.0.0/8 or an address", r)
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		n.prefixes = append(n.prefixes, prefix.Masked())
	}
	return n, nil
}

// Contains reports whether s is an address in one of the ranges. It ignores a port
// and the brackets around an IPv6 address.
func (n *Networks) Contains(s string) bool {
	if len(s) > maxLength {
		return false
	}
	s = strings.TrimSpace(s)
	address, err := netip.ParseAddr(s)
	if err != nil {
		port, err := netip.ParseAddrPort(s)
		if err != nil {
			return false
		}
		address = port.Addr()
	}
	address = address.Unmap().WithZone("")
	for _, p := range n.prefixes {
		if p.Contains(address) {
			return true
		}
	}
	return false
}
