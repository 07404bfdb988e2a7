package content

import (
	"bytes"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// page follows HTML as it is written, and knows in which part of it the next
// value lands. What is safe in a text is not in an address or in a tag, so the
// part decides how a value is escaped, or that none may stand there.
//
// It follows what was written, not what was meant: whichever branch a template
// takes and however often it loops, the part is right.
type page struct {
	in    part
	tag   []byte // the name of the tag that is, or was last, open
	close bool   // it is an end tag
	attr  []byte // the name of the attribute
	value []byte // what there is of its value, up to maxValue
	quote byte
	match int // of a mark that is looked for, how much was found
}

type part uint8

const (
	inText part = iota
	inTagStart
	inTagName
	inTag
	inAttribute
	afterAttribute
	beforeValue
	inQuoted
	inBare
	inDeclaration
	inComment
	inElementText // of script, style, title, textarea
)

const maxValue = 512

// textElements are read as text up to their end tag.
var textElements = map[string]bool{"script": true, "style": true, "title": true, "textarea": true, "xmp": true, "iframe": true, "noembed": true, "noframes": true, "noscript": false}

// read takes in what the template, not a profile, has written.
func (p *page) read(s string) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch p.in {
		case inText:
			at := strings.IndexByte(s[i:], '<')
			if at < 0 {
				return
			}
			i += at
			p.in, p.close, p.tag, p.match = inTagStart, false, p.tag[:0], 0
		case inTagStart:
			switch {
			case c == '/' && !p.close && p.match == 0:
				p.close = true
			case c == '!' && p.match == 0:
				p.in, p.value = inDeclaration, append(p.value[:0], '!')
			case c == '?' && p.match == 0:
				p.in, p.value = inDeclaration, append(p.value[:0], '?')
			case isLetter(c):
				p.in, p.tag = inTagName, append(p.tag[:0], lower(c))
			case c == '<':
				p.close, p.match = false, 0
			default:
				p.in = inText
			}
		case inTagName:
			switch {
			case isSpace(c) || c == '/':
				p.in = inTag
			case c == '>':
				p.endTag()
			case len(p.tag) < 64:
				p.tag = append(p.tag, lower(c))
			}
		case inTag:
			switch {
			case c == '>':
				p.endTag()
			case isSpace(c) || c == '/':
			default:
				p.in, p.attr = inAttribute, append(p.attr[:0], lower(c))
			}
		case inAttribute:
			switch {
			case c == '=':
				p.in = beforeValue
			case c == '>':
				p.endTag()
			case c == '/':
				p.in = inTag
			case isSpace(c):
				p.in = afterAttribute
			case len(p.attr) < 64:
				p.attr = append(p.attr, lower(c))
			}
		case afterAttribute:
			switch {
			case c == '=':
				p.in = beforeValue
			case c == '>':
				p.endTag()
			case c == '/':
				p.in = inTag
			case isSpace(c):
			default:
				p.in, p.attr = inAttribute, append(p.attr[:0], lower(c))
			}
		case beforeValue:
			switch {
			case c == '"' || c == '\'':
				p.in, p.quote, p.value = inQuoted, c, p.value[:0]
			case c == '>':
				p.endTag()
			case !isSpace(c):
				p.in = inBare
			}
		case inQuoted:
			if c == p.quote {
				p.in = inTag
			} else if len(p.value) < maxValue {
				p.value = append(p.value, c)
			}
		case inBare:
			switch {
			case c == '>':
				p.endTag()
			case isSpace(c):
				p.in = inTag
			}
		case inDeclaration:
			p.declaration(c)
		case inComment:
			// "-->" ends it; value holds its last bytes.
			p.value = append(p.value, c)
			if bytes.HasSuffix(p.value, []byte("-->")) || bytes.HasSuffix(p.value, []byte("--!>")) {
				p.in = inText
			} else if len(p.value) > 8 {
				p.value = append(p.value[:0], p.value[len(p.value)-4:]...)
			}
		case inElementText:
			p.elementText(c)
		}
	}
}

// declaration reads what begins with <! or <?. Mail programs read the content
// of conditional comments, <!--[if mso]> … <![endif]-->, so it is followed as
// any other.
func (p *page) declaration(c byte) {
	p.value = append(p.value, c)
	v := string(p.value)
	switch {
	case strings.HasPrefix(v, "!--"):
		switch {
		case v == "!-->" || v == "!--->":
			p.in = inText
		case strings.HasPrefix(v, "!--["):
			if strings.HasSuffix(v, "]>") {
				p.in = inText
			} else if strings.HasSuffix(v, "-->") {
				p.in = inText
			} else if len(p.value) > 200 {
				p.in, p.value = inComment, p.value[len(p.value)-4:]
			}
		case len(v) > 4 || len(v) == 4 && v != "!---":
			p.in, p.value = inComment, append(p.value[:0], v[3:]...)
		}
	case c == '>':
		p.in = inText
	case len(p.value) > maxValue:
		p.value = append(p.value[:0], "!x"...)
	}
}

// elementText looks for the end tag of a script, style, title or the like.
func (p *page) elementText(c byte) {
	end := "</" + string(p.tag)
	switch {
	case p.match == len(end):
		p.match = 0
		switch {
		case c == '>':
			p.in = inText
		case isSpace(c) || c == '/':
			p.in, p.close = inTag, true
		}
	case lower(c) == end[p.match]:
		p.match++
	case c == '<':
		p.match = 1
	default:
		p.match = 0
	}
}

func (p *page) endTag() {
	p.in = inText
	if !p.close && textElements[string(p.tag)] {
		p.in, p.match = inElementText, 0
	}
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isSpace(c byte) bool  { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' }
func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 0x20
	}
	return c
}

// form says what a text is besides text.
type form uint8

const (
	formText form = iota
	// formHTML is escaped already, formURL encoded for the query of an address.
	formHTML
	formURL
	// formRaw is to be written as it is, by the author's word.
	formRaw
)

// markup is a text that a filter has made safe, or the author vouches for.
type markup struct {
	text string
	form form
}

// admit returns a value as it may be written where the page is, and takes it
// in; the problem says why none may be.
func (p *page) admit(m markup) (text, problem string) {
	if m.form == formRaw {
		p.read(m.text)
		return m.text, ""
	}
	switch p.in {
	case inText:
		if m.form != formText {
			p.read(m.text)
			return m.text, ""
		}
		return escapeHTML(m.text), ""
	case inComment:
		// Escaped, it can hold neither the end of the comment nor a tag.
		return strings.ReplaceAll(escapeHTML(m.text), "-", "&#45;"), ""
	case inQuoted:
		return p.attribute(m)
	case inElementText:
		switch string(p.tag) {
		case "title", "textarea":
			return escapeHTML(m.text), ""
		case "style":
			return cssValue(m.text), ""
		}
		return "", "a value cannot stand inside <" + string(p.tag) + ">"
	case beforeValue, inBare:
		return "", `a value in a tag needs quotes around it: write name="{{ … }}"`
	case inDeclaration:
		return "", "a value cannot stand inside a <! … > declaration"
	}
	return "", "a value cannot stand inside a tag, other than as the quoted value of an attribute"
}

// addresses are the attributes that hold one.
var addresses = []string{"href", "src", "action", "formaction", "poster", "background", "cite", "data", "longdesc", "usemap", "manifest", "ping", "lowsrc", "dynsrc", "codebase", "profile", "icon"}

func (p *page) attribute(m markup) (text, problem string) {
	name := string(p.attr)
	if at := strings.LastIndexByte(name, ':'); at >= 0 {
		name = name[at+1:] // v:src, xlink:href
	}
	switch {
	case strings.HasPrefix(name, "on"):
		return "", "a value cannot stand in " + name + ", which is a script"
	case name == "srcdoc" || name == "srcset" || name == "imagesrcset":
		return "", "a value cannot stand in " + name + "; write src"
	case name == "content" && string(p.tag) == "meta":
		return "", "a value cannot stand in the content of a <meta>, which may be an address to go to"
	case name == "style":
		return escapeHTML(cssValue(m.text)), ""
	case slices.Contains(addresses, name):
		return p.address(m)
	}
	if m.form == formHTML {
		// Escaped for text already; a quote in it is of the author's.
		return strings.NewReplacer(`"`, "&#34;", "'", "&#39;", "<", "&lt;", ">", "&gt;").Replace(m.text), ""
	}
	return escapeHTML(m.text), ""
}

// schemes are those an address made of a value may have.
var schemes = []string{"http", "https", "mailto", "tel", "sms"}

var (
	schemeForm = regexp.MustCompile(`^[^/?#]*?:`)
	webScheme  = regexp.MustCompile(`^(?i:https?):`)
	unfinished = regexp.MustCompile(`^[a-zA-Z]+:/{0,2}$|^[a-zA-Z]+://[^/?#]*$|^//[^/?#]*$`)
	cssForm    = regexp.MustCompile(`^[A-Za-z0-9#%., +_-]*$`)
)

// refusedLink stands for an address that a mail must not lead to.
const refusedLink = "#"

// address returns a value as (a part of) an address.
func (p *page) address(m markup) (text, problem string) {
	before := strings.TrimSpace(string(p.value))
	defer func() {
		// What was written counts for what comes after.
		room := maxValue - len(p.value)
		p.value = append(p.value, text[:min(room, len(text))]...)
	}()
	value := m.text
	if before == "" {
		value = strings.TrimFunc(value, func(r rune) bool { return r <= ' ' })
		if scheme := schemeForm.FindString(value); scheme != "" && !slices.Contains(schemes, strings.ToLower(strings.TrimSuffix(scheme, ":"))) {
			return refusedLink, ""
		}
		return escapeHTML(encode(value, ":/?#[]@!$&'()*+,;=%")), ""
	}
	if scheme := schemeForm.FindString(before); scheme != "" && !slices.Contains(schemes, strings.ToLower(strings.TrimSuffix(scheme, ":"))) {
		return "", "a value cannot stand in an address that begins with " + scheme
	}
	switch {
	case (webScheme.MatchString(before) || strings.HasPrefix(before, "//")) && unfinished.MatchString(before) &&
		!(strings.HasPrefix(value, "/") && !strings.HasSuffix(before, "/") && !strings.HasSuffix(before, ":")):
		return "", "a value cannot be part of a host name; write the host and a / before it"
	case m.form == formURL:
		return escapeHTML(value), ""
	case strings.ContainsAny(before, "?#"):
		return url.QueryEscape(value), ""
	}
	return encode(value, "/@"), ""
}

// encode percent-encodes all but letters, digits, -._~ and what is kept. A
// percent sign is kept, if at all, only where it encodes something.
func encode(s, keep string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case isLetter(c) || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0,
			c != '%' && strings.IndexByte(keep, c) >= 0,
			c == '%' && strings.IndexByte(keep, c) >= 0 && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// cssValue returns a value that is one of CSS and nothing more, else nothing.
func cssValue(s string) string {
	if !cssForm.MatchString(s) {
		return ""
	}
	return s
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;", "\x00", "\uFFFD", "`", "&#96;")

func escapeHTML(s string) string { return htmlEscaper.Replace(s) }

// check follows the template through every branch, and says where a value may
// not stand and where the branches of a tag leave the page in different parts.
func (p *page) check(nodes []node, fail func(line int, message string)) {
	for _, n := range nodes {
		switch n := n.(type) {
		case textNode:
			p.read(string(n))
		case outputNode:
			if _, problem := p.admit(markup{text: "x"}); problem != "" {
				fail(n.line, problem)
			}
		case cycleNode:
			p.read(n.Values[0])
		case captureNode:
			(&page{}).check(n.body, fail)
		case forNode:
			end := p.clone()
			end.check(n.body, fail)
			other := p.clone()
			other.check(n.not, fail)
			if !end.like(p) || !other.like(p) {
				fail(n.line, "a for must leave the page where it found it: close in it the tags and quotes that it opens")
			}
		case ifNode:
			bodies, whole := [][]node{}, false
			for _, b := range n.branches {
				bodies, whole = append(bodies, b.body), whole || b.when == nil
			}
			p.branches(bodies, whole, n.line, fail)
		case caseNode:
			bodies, whole := [][]node{}, false
			for _, b := range n.branches {
				bodies, whole = append(bodies, b.body), whole || len(b.when) == 0
			}
			p.branches(bodies, whole, n.line, fail)
		}
	}
}

func (p *page) branches(bodies [][]node, whole bool, line int, fail func(int, string)) {
	if !whole {
		bodies = append(bodies, nil)
	}
	ends := make([]*page, len(bodies))
	for i, body := range bodies {
		ends[i] = p.clone()
		ends[i].check(body, fail)
		if !ends[i].like(ends[0]) {
			fail(line, "the branches end in different parts of the page: close in each the tags and quotes that it opens")
		}
	}
	*p = *ends[0]
}

func (p *page) clone() *page {
	c := *p
	c.tag, c.attr, c.value = bytes.Clone(p.tag), bytes.Clone(p.attr), bytes.Clone(p.value)
	return &c
}

// like tells whether the next value would land in the same part.
func (p *page) like(o *page) bool {
	if p.in == inText && o.in == inText {
		return true
	}
	return p.in == o.in && bytes.Equal(p.tag, o.tag) && p.close == o.close &&
		(p.in < inAttribute || p.in > inBare || bytes.Equal(p.attr, o.attr)) && (p.in != inQuoted || p.quote == o.quote)
}
