package content

import (
	"bytes"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// page tracks the position in HTML while it is written. The position decides how a
// value is escaped, or that no value is permitted. In
//
//	<a href="https://shop.example/?q={{ a }}" title="{{ b }}">{{ c }}</a>
//
// a is in the query of a URL and is percent-encoded, b is in a quoted attribute and c
// in text, so both are escaped by entities.
//
// The tracker is a state machine over the bytes that are actually written, so the
// position is right for every branch and every repetition of a loop. check runs it
// over all branches when a block is linted.
type page struct {
	in    part
	tag   []byte // name of the current or last tag
	close bool   // the tag is an end tag
	attr  []byte // name of the attribute
	value []byte // value of the attribute so far, up to maxValue
	quote byte
	match int // length of the matched prefix of an end tag
	// isBroken is set if text follows a join of branches without the white space
	// that it needs.
	isBroken bool
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
	// inTagJoin is in a tag after branches of which some end in the tag's name or
	// an attribute and others behind it: <td{% if x %} class="a"{% endif %}>. Only
	// white space, / or > may follow.
	inTagJoin
)

const maxValue = 512

// textElements contain text up to their end tag.
var textElements = map[string]bool{"script": true, "style": true, "title": true, "textarea": true, "xmp": true, "iframe": true, "noembed": true, "noframes": true, "noscript": false}

// read advances over text of the template.
func (p *page) read(s string) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch p.in {
		case inText:
			open := strings.IndexByte(s[i:], '<')
			if open < 0 {
				return
			}
			i += open
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
		case inTagJoin:
			if isSpace(c) || c == '/' {
				p.in = inTag
			} else if c == '>' {
				p.endTag()
			} else {
				p.isBroken, p.in = true, inTag
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
			// "-->" ends the comment; value contains its last bytes.
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

// declaration advances in a declaration, <! or <?. The content of a conditional
// comment, <!--[if mso]> … <![endif]-->, is HTML for some mail programs, so it is
// tracked like the rest of the page.
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

// elementText searches for the end tag of a script, style, title or textarea.
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

// form is the escaping that a text already has.
type form uint8

const (
	formText form = iota
	// formHTML is HTML, formURL is encoded for the query of a URL.
	formHTML
	formURL
	// formRaw is written unchanged, at the author's request.
	formRaw
)

// markup is a text with an escaping.
type markup struct {
	text string
	form form
}

// admit returns a value with the escaping for the current position and advances over
// it. If no value is permitted at this position, it returns the reason.
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
		// After the escaping it contains neither the end of the comment nor a tag.
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

// addresses are the attributes with a URL.
var addresses = []string{"href", "src", "action", "formaction", "poster", "background", "cite", "data", "longdesc", "usemap", "manifest", "ping", "lowsrc", "dynsrc", "codebase", "profile", "icon"}

func (p *page) attribute(m markup) (text, problem string) {
	name := string(p.attr)
	if colon := strings.LastIndexByte(name, ':'); colon >= 0 {
		name = name[colon+1:] // v:src, xlink:href
	}
	switch {
	case strings.HasPrefix(name, "on"):
		return "", "a value cannot stand in " + name + ", which is a script"
	case name == "srcdoc" || name == "srcset" || name == "imagesrcset":
		return "", "a value cannot stand in " + name + "; write src"
	case name == "content" && string(p.tag) == "meta":
		return "", "a value cannot stand in the content of a <meta>, which may be a URL to redirect to"
	case name == "style":
		return escapeHTML(cssValue(m.text)), ""
	case slices.Contains(addresses, name):
		return p.address(m)
	}
	if m.form == formHTML {
		// Entities are escaped already; quotes and tags are the author's.
		return strings.NewReplacer(`"`, "&#34;", "'", "&#39;", "<", "&lt;", ">", "&gt;").Replace(m.text), ""
	}
	return escapeHTML(m.text), ""
}

// schemes are the permitted schemes of URLs from values.
var schemes = []string{"http", "https", "mailto", "tel", "sms"}

var (
	schemeForm = regexp.MustCompile(`^[^/?#]*?:`)
	webScheme  = regexp.MustCompile(`^(?i:https?):`)
	unfinished = regexp.MustCompile(`^[a-zA-Z]+:/{0,2}$|^[a-zA-Z]+://[^/?#]*$|^//[^/?#]*$`)
	cssForm    = regexp.MustCompile(`^[A-Za-z0-9#%., +_-]*$`)
)

// refusedLink replaces a URL with a scheme that is not permitted.
const refusedLink = "#"

// address returns a value as a URL or a part of one.
func (p *page) address(m markup) (text, problem string) {
	before := strings.TrimSpace(string(p.value))
	defer func() {
		// The value is a part of the attribute for the values after it.
		free := maxValue - len(p.value)
		p.value = append(p.value, text[:min(free, len(text))]...)
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
		return "", "a value cannot stand in a URL that begins with " + scheme
	}
	switch {
	case (webScheme.MatchString(before) || strings.HasPrefix(before, "//")) && unfinished.MatchString(before) &&
		!(strings.HasPrefix(value, "/") && !strings.HasSuffix(before, "/") && !strings.HasSuffix(before, ":")):
		return "", "a value cannot be part of a host name; write the host and a / before it"
	case m.form == formURL:
		return escapeHTML(value), ""
	case strings.Contains(before, "#"):
		return strings.ReplaceAll(url.QueryEscape(value), "+", "%20"), ""
	case strings.Contains(before, "?"):
		return url.QueryEscape(value), ""
	}
	return encode(value, "/@"), ""
}

// encode percent-encodes all bytes except letters, digits, -._~ and those in keep. A
// percent sign in keep is kept only as the start of an encoded byte.
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

// cssValue returns s if it is a single CSS value, else "".
func cssValue(s string) string {
	if !cssForm.MatchString(s) {
		return ""
	}
	return s
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;", "\x00", "\uFFFD", "`", "&#96;")

func escapeHTML(s string) string { return htmlEscaper.Replace(s) }

// check tracks the template through every branch. It reports values at positions
// where none is permitted, and branches that end at different positions.
func (p *page) check(nodes []node, line int, fail func(line int, message string)) {
	for _, n := range nodes {
		switch n := n.(type) {
		case textNode:
			p.read(string(n))
			if p.isBroken {
				p.isBroken = false
				fail(line, "white space is missing between the attributes of a tag: write a space behind the {% end… %} in it")
			}
		case outputNode:
			line = n.line
			p.checkValue(n.line, fail)
		case counterNode:
			p.checkValue(line, fail)
		case cycleNode:
			line = n.line
			p.checkCycle(n, fail)
		case captureNode:
			(&page{}).check(n.body, line, fail)
		case changedNode:
			p.branches([][]node{n.body}, false, line, fail)
		case rowNode:
			line = n.line
			p.read("<tr><td>")
			p.repeat(n.body, n.line, fail)
			p.read("</td></tr>")
		case forNode:
			line = n.line
			before := p.clone()
			p.repeat(n.body, n.line, fail)
			before.repeat(n.otherwise, n.line, fail)
		case ifNode:
			line = n.line
			bodies, isComplete := [][]node{}, false
			for _, b := range n.branches {
				bodies, isComplete = append(bodies, b.body), isComplete || b.when == nil
			}
			p.branches(bodies, isComplete, n.line, fail)
		case caseNode:
			line = n.line
			bodies, isComplete := [][]node{}, false
			for _, b := range n.branches {
				bodies, isComplete = append(bodies, b.body), isComplete || b.isElse
			}
			p.branches(bodies, isComplete, n.line, fail)
		}
	}
}

// checkValue checks an output at the current position.
func (p *page) checkValue(line int, fail func(int, string)) {
	if _, problem := p.admit(markup{text: "x"}); problem != "" {
		fail(line, problem)
	}
}

// checkCycle checks every value of a cycle. Literal values are text of the template.
func (p *page) checkCycle(n cycleNode, fail func(int, string)) {
	var ends []*page
	for _, value := range n.values {
		end := p.clone()
		if text, ok := value.(literal); ok {
			end.read(plain(text.value))
		} else {
			end.checkValue(n.line, fail)
		}
		ends = append(ends, end)
	}
	p.join(ends, n.line, fail)
}

// repeat checks the body of a loop, which must end at the position where it begins.
func (p *page) repeat(body []node, line int, fail func(int, string)) {
	end := p.clone()
	end.check(body, line, fail)
	if !end.like(p) && !end.joins(p) {
		fail(line, "the body of a loop must end where it begins in the page: close the tags and quotes that it opens")
		return
	}
	if end.joins(p) {
		p.in = inTagJoin
	}
}

func (p *page) branches(bodies [][]node, isComplete bool, line int, fail func(int, string)) {
	if !isComplete {
		bodies = append(bodies, nil)
	}
	ends := make([]*page, len(bodies))
	for i, body := range bodies {
		ends[i] = p.clone()
		ends[i].check(body, line, fail)
	}
	p.join(ends, line, fail)
}

// join continues at the position at which all branches end.
func (p *page) join(ends []*page, line int, fail func(int, string)) {
	if len(ends) == 0 {
		return
	}
	isJoin := false
	for _, end := range ends {
		switch {
		case end.like(ends[0]):
		case end.joins(ends[0]):
			isJoin = true
		default:
			fail(line, "the branches end at different positions of the page: close in each branch the tags and quotes that it opens")
		}
	}
	*p = *ends[0]
	if isJoin {
		p.in = inTagJoin
	}
}

// joins reports whether two positions are the same for white space, / and >: both
// are in the same tag, outside of quotes.
func (p *page) joins(o *page) bool {
	return p.isBetween() && o.isBetween() && bytes.Equal(p.tag, o.tag) && p.close == o.close
}

func (p *page) isBetween() bool {
	return p.in == inTagName || p.in == inTag || p.in == inTagJoin || p.in == inAttribute || p.in == afterAttribute
}

func (p *page) clone() *page {
	c := *p
	c.tag, c.attr, c.value = bytes.Clone(p.tag), bytes.Clone(p.attr), bytes.Clone(p.value)
	return &c
}

// like reports whether two positions are the same for the next value.
func (p *page) like(o *page) bool {
	if p.in == inText && o.in == inText {
		return true
	}
	return p.in == o.in && bytes.Equal(p.tag, o.tag) && p.close == o.close &&
		(p.in < inAttribute || p.in > inBare || bytes.Equal(p.attr, o.attr)) && (p.in != inQuoted || p.quote == o.quote)
}

var entityForm = regexp.MustCompile(`&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});`)

// decodeEntities replaces the entities of HTML that end with a semicolon.
func decodeEntities(s string) string {
	return entityForm.ReplaceAllStringFunc(s, html.UnescapeString)
}
