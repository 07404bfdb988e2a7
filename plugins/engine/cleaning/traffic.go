package cleaning

import (
	"fmt"
	"net/netip"
	"strings"
)

// botMarks are lower-case substrings of the user agents of programs: generic words
// such as "bot" and "crawl", and names of HTTP libraries, link previews, monitors
// and headless browsers.
var botMarks = []string{
	"bot", "crawl", "spider", "slurp", "scrap", "fetch", "archiver", "preview", "monitor", "headless", "validator", "checker", "scanner", "feed",
	"curl/", "wget/", "python", "httpx", "aiohttp", "java/", "okhttp", "apache-httpclient", "go-http-client", "axios", "got (", "undici",
	"libwww", "lwp::", "perl", "ruby", "php/", "guzzle", "httpclient", "http_request", "postman", "insomnia", "k6/", "jmeter", "gatling",
	"phantomjs", "puppeteer", "playwright", "selenium", "webdriver", "lighthouse", "pagespeed", "gtmetrix", "pingdom", "uptime", "statuscake", "site24x7", "newrelic", "datadog", "catchpoint",
	"facebookexternalhit", "facebookcatalog", "whatsapp/", "embedly", "quora link", "outbrain", "pinterest/0", "vkshare", "w3c_", "mediapartners-google", "google-", "googleother", "google favicon", "yahoo!", "duckduckgo-favicons", "ia_archiver", "nmap", "nikto", "sqlmap", "zgrab", "masscan", "+http://", "+https://",
}

// notBots removes names of phones and apps that contain a bot mark.
var notBots = strings.NewReplacer("cubot", "", "google-tr", "", "feedback", "")

// IsBot reports whether a user agent identifies a program instead of a person's
// browser or app, or is empty. It does not detect programs that send the user
// agent of a browser.
func IsBot(userAgent string) bool {
	if len(userAgent) > 4*maxLength {
		return true // no browser sends a user agent of this length
	}
	s := strings.ToLower(strings.TrimSpace(userAgent))
	if s == "" {
		return true
	}
	s = notBots.Replace(s)
	for _, mark := range botMarks {
		if strings.Contains(s, mark) {
			return true
		}
	}
	return false
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
