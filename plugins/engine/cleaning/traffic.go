package cleaning

import (
	"fmt"
	"net/netip"
	"strings"
)

// botMarks are what programs say of themselves in the user agent, in lower case.
// Most say "bot", "crawl" or "spider"; the rest are the names of HTTP libraries,
// of the previews of messengers, of monitors and of browsers without a screen.
var botMarks = []string{
	"bot", "crawl", "spider", "slurp", "scrap", "fetch", "archiver", "preview", "monitor", "headless", "validator", "checker", "scanner", "feed",
	"curl/", "wget/", "python", "httpx", "aiohttp", "java/", "okhttp", "apache-httpclient", "go-http-client", "axios", "got (", "undici",
	"libwww", "lwp::", "perl", "ruby", "php/", "guzzle", "httpclient", "http_request", "postman", "insomnia", "k6/", "jmeter", "gatling",
	"phantomjs", "puppeteer", "playwright", "selenium", "webdriver", "lighthouse", "pagespeed", "gtmetrix", "pingdom", "uptime", "statuscake", "site24x7", "newrelic", "datadog", "catchpoint",
	"facebookexternalhit", "facebookcatalog", "whatsapp/", "embedly", "quora link", "outbrain", "pinterest/0", "vkshare", "w3c_", "mediapartners-google", "google-", "googleother", "google favicon", "yahoo!", "duckduckgo-favicons", "ia_archiver", "nmap", "nikto", "sqlmap", "zgrab", "masscan", "+http://", "+https://",
}

// notBots are the marks of people's phones and apps that contain one of a bot.
var notBots = strings.NewReplacer("cubot", "", "google-tr", "", "feedback", "")

// Bot tells whether a user agent is that of a program rather than of somebody's
// browser or app: it says so itself, or it is empty. A program that wants to be
// taken for a browser is not told from one by this.
func Bot(userAgent string) bool {
	if len(userAgent) > 4*maxLength {
		return true // no browser says so much
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

// Networks are ranges of IP addresses, such as those of the own offices.
type Networks struct{ prefixes []netip.Prefix }

// NewNetworks reads ranges in CIDR notation and single addresses.
func NewNetworks(ranges []string) (*Networks, error) {
	n := &Networks{}
	for _, r := range ranges {
		prefix, err := netip.ParsePrefix(r)
		if err != nil {
			address, err := netip.ParseAddr(r)
			if err != nil {
				return nil, fmt.Errorf("%q is no network; write a range such as 10.0.0.0/8 or an address", r)
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

// Contains tells whether s is an address in one of the ranges. A port and the
// brackets of IPv6 are no part of it.
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
