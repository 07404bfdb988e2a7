package cleaning

import (
	"net/netip"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// EmailOptions say how far an address is normalised.
type EmailOptions struct {
	// Lowercase makes the whole address lower case, and not its domain alone.
	// By the letter of RFC 5321 that may be another mailbox; no provider of
	// note has it so.
	Lowercase bool
	// Providers applies the rules of mail providers that give one mailbox many
	// addresses, so that they are one customer: dots and +tags at Gmail, +tags
	// at Outlook, iCloud, Fastmail and Proton. The result is an identity to
	// match by rather than the address to write to.
	Providers bool
}

// The faults of an address.
var (
	errEmailAt      = &Fault{"email_at", "must have one @ with something before and after it"}
	errEmailSpace   = &Fault{"email_space", "has a space or a comma inside; give one address"}
	errEmailLocal   = &Fault{"email_local", "has a character before the @ that an address cannot have there, or a dot at its edge or two in a row"}
	errEmailLong    = &Fault{"email_long", "is longer than 254 characters, or 64 before the @"}
	errEmailDomain  = &Fault{"email_domain", "has a domain that cannot exist"}
	errEmailNoDot   = &Fault{"email_domain_dot", "has a domain without a dot"}
	errEmailAddress = &Fault{"email_domain_address", "has an IP address for a domain"}
	errEmailExample = &Fault{"email_reserved", "has a domain that is reserved and receives no mail"}
)

// Mail to these is never delivered (RFC 2606, RFC 6762). The domains of example
// are left alone: tests and documentation are full of them.
var reservedTLDs = map[string]bool{"test": true, "invalid": true, "localhost": true, "local": true}

// provider says which addresses of a mail provider are one mailbox.
type provider struct {
	domain string // the one its others stand for
	dots   bool   // dots mean nothing
	tag    byte   // what begins a tag
}

var providers = map[string]provider{
	"gmail.com": {"gmail.com", true, '+'}, "googlemail.com": {"gmail.com", true, '+'},
	"outlook.com": {"outlook.com", false, '+'}, "hotmail.com": {"hotmail.com", false, '+'}, "live.com": {"live.com", false, '+'},
	"icloud.com": {"icloud.com", false, '+'}, "me.com": {"icloud.com", false, '+'}, "mac.com": {"icloud.com", false, '+'},
	"fastmail.com": {"fastmail.com", false, '+'},
	"proton.me":    {"proton.me", false, '+'}, "protonmail.com": {"proton.me", false, '+'}, "pm.me": {"proton.me", false, '+'},
}

// mailDomains maps domains as the DNS has them: lower case, punycode, without
// what only a label of a host name may not be.
var mailDomains = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(true), idna.BidiRule(), idna.VerifyDNSLength(true))

// Email returns an address in its normal form: without a display name, "mailto:"
// or white space around it, the domain in lower case and as the DNS has it.
// Whether somebody reads it, only sending a mail to it can tell.
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
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || at == len(s)-1 || strings.IndexByte(s, '@') != at {
		return "", errEmailAt
	}
	local, domain := s[:at], strings.TrimSuffix(s[at+1:], ".")
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

// validLocal tells whether s is a dot-atom of RFC 5322, with the letters of
// RFC 6531. Quoted local parts are legal and a slip of the finger in practice.
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

// EmailIn tells whether an address is of one of the domains, or of a domain
// below one.
func EmailIn(s string, domains []string) bool {
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
