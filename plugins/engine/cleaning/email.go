package cleaning

import (
	"net/netip"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// EmailOptions configures how far Email normalises an address.
type EmailOptions struct {
	// Lowercase converts the local part to lower case as well as the domain.
	// RFC 5321 permits case-sensitive local parts; no large provider uses them.
	Lowercase bool
	// Providers removes the variations that a mail provider delivers to the same
	// mailbox, so that they identify one customer: dots and +tags at Gmail,
	// +tags at Outlook, iCloud, Fastmail and Proton. Use the result to match
	// identities, not as the address to send to.
	Providers bool
}

// Faults of an email address.
var (
	errEmailAt      = &Fault{"email_at", "must have one @ with something before and after it"}
	errEmailSpace   = &Fault{"email_space", "has a space or a comma inside; give one address"}
	errEmailLocal   = &Fault{"email_local", "has a character before the @ that is not permitted there, or a leading, trailing or doubled dot"}
	errEmailLong    = &Fault{"email_long", "is longer than 254 characters, or 64 before the @"}
	errEmailDomain  = &Fault{"email_domain", "has a domain that cannot exist"}
	errEmailNoDot   = &Fault{"email_domain_dot", "has a domain without a dot"}
	errEmailAddress = &Fault{"email_domain_address", "has an IP address instead of a domain"}
	errEmailExample = &Fault{"email_reserved", "has a domain that is reserved and receives no mail"}
)

// reservedTLDs never receive mail (RFC 2606, RFC 6762). example.com and its
// siblings are accepted, because tests and documentation use them.
var reservedTLDs = map[string]bool{"test": true, "invalid": true, "localhost": true, "local": true}

// provider describes which addresses of a mail provider are the same mailbox.
type provider struct {
	domain string // canonical domain of the provider's aliases
	dots   bool   // dots in the local part are ignored
	tag    byte   // first character of a tag
}

var providers = map[string]provider{
	"gmail.com": {"gmail.com", true, '+'}, "googlemail.com": {"gmail.com", true, '+'},
	"outlook.com": {"outlook.com", false, '+'}, "hotmail.com": {"hotmail.com", false, '+'}, "live.com": {"live.com", false, '+'},
	"icloud.com": {"icloud.com", false, '+'}, "me.com": {"icloud.com", false, '+'}, "mac.com": {"icloud.com", false, '+'},
	"fastmail.com": {"fastmail.com", false, '+'},
	"proton.me":    {"proton.me", false, '+'}, "protonmail.com": {"proton.me", false, '+'}, "pm.me": {"proton.me", false, '+'},
}

// mailDomains converts domains to their DNS form: lower case and punycode, with
// the rules for host names enforced.
var mailDomains = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(true), idna.BidiRule(), idna.VerifyDNSLength(true))

// Email returns the normal form of an address: without display name, "mailto:"
// and surrounding white space, and with the domain in its DNS form. It checks
// the syntax only; it does not check that the mailbox exists.
func Email(s string, o EmailOptions) (string, error) {
	if len(s) > maxLength {
		return "", errLong
	}
	s = Text(s, TextOptions{})
	// Jo Doe <jo@example.com>
	if open := strings.LastIndexByte(s, '<'); open >= 0 && strings.HasSuffix(s, ">") {
		s = strings.TrimSpace(s[open+1 : len(s)-1])
	}
	if len(s) >= 7 && strings.EqualFold(s[:7], "mailto:") {
		s, _, _ = strings.Cut(s[7:], "?")
	}
	if s == "" {
		return "", errEmpty
	}
	separator := strings.LastIndexByte(s, '@')
	if separator <= 0 || separator == len(s)-1 || strings.IndexByte(s, '@') != separator {
		return "", errEmailAt
	}
	local, domain := s[:separator], strings.TrimSuffix(s[separator+1:], ".")
	if strings.ContainsAny(s, " ,;") {
		return "", errEmailSpace
	}
	if !validLocal(local) {
		return "", errEmailLocal
	}
	if strings.HasPrefix(domain, "[") {
		return "", errEmailAddress
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		return "", errEmailAddress
	}
	domain, err := mailDomains.ToASCII(domain)
	if err != nil || domain == "" {
		return "", errEmailDomain
	}
	dot := strings.LastIndexByte(domain, '.')
	if dot < 0 {
		return "", errEmailNoDot
	}
	tld := domain[dot+1:]
	if !strings.ContainsFunc(tld, func(r rune) bool { return r < '0' || r > '9' }) {
		return "", errEmailDomain
	}
	if reservedTLDs[tld] {
		return "", errEmailExample
	}
	if o.Lowercase {
		local = strings.ToLower(local)
	}
	if p, ok := providers[domain]; ok && o.Providers {
		local = strings.ToLower(local)
		if i := strings.IndexByte(local, p.tag); i > 0 {
			local = local[:i]
		}
		if p.dots {
			local = strings.ReplaceAll(local, ".", "")
		}
		domain = p.domain
	}
	if len(local) > 64 || len(local)+1+len(domain) > 254 {
		return "", errEmailLong
	}
	return local + "@" + domain, nil
}

// validLocal reports whether s is a dot-atom of RFC 5322, extended by the letters
// of RFC 6531. Quoted local parts are legal, but in practice they are typing
// errors, so they are rejected.
func validLocal(s string) bool {
	if s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", r):
		case r >= 0x80 && r != unicode.ReplacementChar && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r)):
		default:
			return false
		}
	}
	return true
}

// EmailHasDomain reports whether the domain of an address is one of domains or a
// subdomain of one.
func EmailHasDomain(s string, domains []string) bool {
	address, err := Email(s, EmailOptions{})
	if err != nil {
		return false
	}
	_, domain, _ := strings.Cut(address, "@")
	for _, d := range domains {
		d = strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(d, "@"), "."))
		if ascii, err := mailDomains.ToASCII(d); err == nil {
			d = ascii
		}
		if d != "" && (domain == d || strings.HasSuffix(domain, "."+d)) {
			return true
		}
	}
	return false
}
