package content

import (
	"fmt"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// The compiler builds a tree of nodes from the tokens of a template. For example
//
//	{% if traits.vip %}Gold{% else %}{{ traits.tier | upcase }}{% endif %}
//
// becomes
//
//	ifNode
//	  branch when path(traits.vip): textNode("Gold")
//	  branch (else):                outputNode(filterCall(path(traits.tier), upcase))
//
// It reports every problem with its line: unknown tags, filters and names, wrong
// numbers of arguments, and tags that are not closed. Nothing of a template is
// parsed while it is rendered.

// node is a part of a compiled template.
type node interface {
	render(r *run) error
}

type (
	textNode   string
	outputNode struct {
		expr expression
		line int
	}
	branch struct {
		when expression // nil for else
		body []node
	}
	ifNode struct {
		branches []branch
		line     int
	}
	caseNode struct {
		subject  expression
		branches []caseBranch
		line     int
	}
	caseBranch struct {
		isElse bool
		when   []expression
		body   []node
	}
	// loopHead is the head of for and tablerow.
	loopHead struct {
		variable string
		// name identifies the loop for offset: continue.
		name          string
		list          expression
		limit, offset expression // nil without
		continues     bool       // offset: continue
		reversed      bool
		columns       expression // of tablerow, nil without
		line          int
	}
	forNode struct {
		loopHead
		body, otherwise []node
	}
	rowNode struct {
		loopHead
		body []node
	}
	assignNode struct {
		name string
		expr expression
		line int
	}
	captureNode struct {
		name string
		body []node
	}
	cycleNode struct {
		group  expression // nil if the values identify the cycle
		name   string
		values []expression
		line   int
	}
	counterNode struct {
		name string
		step int64
	}
	changedNode struct{ body []node }
	jumpNode    struct{ err error }
)

// maxNesting is the maximum depth of nested tags.
const maxNesting = 50

// tagNames are all tags that a template may use.
var tagNames = strings.Fields("assign break capture case comment continue cycle decrement doc echo else elsif endcapture endcase endcomment endfor endif endifchanged endraw endtablerow endunless for if ifchanged increment liquid raw tablerow unless when")

// compiler builds the nodes of a template and collects its problems.
type compiler struct {
	problems []finding.Finding
	names    *scope
	tokens   []token
	pos      int
	depth    int
	// loops is the number of enclosing for and tablerow tags.
	loops int
}

func (c *compiler) fail(line int, format string, args ...any) {
	c.problems = append(c.problems, finding.Finding{Line: line, Message: fmt.Sprintf(format, args...)})
}

// compile compiles a template. line is the line number of its first line.
func compile(source string, line int, names *scope) ([]node, []finding.Finding) {
	tokens, problem := lex(source, line)
	if problem != nil {
		return nil, []finding.Finding{*problem}
	}
	c := &compiler{names: names, tokens: tokens}
	nodes, _, _ := c.body(token{})
	return nodes, c.problems
}

// clauses are the tags that divide the body of a block.
var clauses = map[string][]string{
	"if": {"elsif", "else"}, "unless": {"elsif", "else"}, "case": {"when", "else"}, "for": {"else"},
}

// body compiles the nodes up to the end tag of a block, or up to a clause of it, and
// returns that tag. isBlank reports whether the nodes write white space at most.
func (c *compiler) body(block token) (nodes []node, end token, isBlank bool) {
	isBlank = true
	if c.depth++; c.depth > maxNesting {
		if c.depth == maxNesting+1 {
			c.fail(block.line, "tags are nested more than %d deep", maxNesting)
		}
	}
	defer func() { c.depth-- }()
	for c.pos < len(c.tokens) {
		t := c.tokens[c.pos]
		c.pos++
		switch t.kind {
		case textToken:
			nodes = append(nodes, textNode(t.text))
			isBlank = isBlank && strings.Trim(t.text, whiteSpace) == ""
			continue
		case outputToken:
			isBlank = false
			nodes = append(nodes, c.output(t.text, t.line))
			continue
		}
		if block.name != "" && t.name == "end"+block.name {
			return nodes, t, isBlank
		}
		for _, clause := range clauses[block.name] {
			if t.name == clause {
				return nodes, t, isBlank
			}
		}
		n, blankTag := c.tag(t)
		isBlank = isBlank && blankTag
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	if block.name != "" {
		c.fail(block.line, "{%% %s %%} is never closed; write {%% end%s %%}", block.name, block.name)
	}
	return nodes, token{}, isBlank
}

// block compiles all of a block that has no clauses.
func (c *compiler) block(t token) (nodes []node, isBlank bool) {
	nodes, _, isBlank = c.body(t)
	return nodes, isBlank
}

func (c *compiler) output(source string, line int) node {
	if strings.Trim(source, whiteSpace) == "" {
		c.fail(line, "{{ }} is empty; write a value such as {{ traits.firstName }}")
		return textNode("")
	}
	e := c.parser(source, line).filtered()
	if c.names.isObjectList(e) {
		c.adviseObjectList(line)
	}
	return outputNode{e, line}
}

// withoutBlanks removes the text nodes of a body that writes only white space. Liquid
// writes nothing for such a body.
func withoutBlanks(nodes []node) []node {
	kept := nodes[:0]
	for _, n := range nodes {
		if _, isText := n.(textNode); !isText {
			kept = append(kept, n)
		}
	}
	return kept
}

// tag compiles a tag. isBlank reports whether it writes nothing, or white space at
// most.
func (c *compiler) tag(t token) (n node, isBlank bool) {
	line := t.line
	switch t.name {
	case "if", "unless":
		return c.conditional(t)
	case "case":
		return c.caseTag(t)
	case "for":
		return c.forTag(t)
	case "tablerow":
		head, ok := c.loopHead(t)
		var body []node
		c.names.within(head.variable, "tablerowloop", func() {
			c.loops++
			body, _ = c.block(t)
			c.loops--
		})
		if !ok {
			return nil, false
		}
		return rowNode{head, body}, false
	case "assign":
		name, value, found := strings.Cut(t.text, "=")
		name = strings.Trim(name, whiteSpace)
		if !found || !isVariable(name) {
			c.fail(line, "assign is not understood; write {%% assign name = value %%}")
			return nil, true
		}
		e := c.parser(value, t.argsLine).filtered()
		c.names.define(c, line, name)
		return assignNode{name, e, line}, true
	case "capture":
		name := strings.Trim(t.text, whiteSpace+`"'`)
		if !isVariable(name) {
			c.fail(line, "capture needs a name; write {%% capture name %%}")
		}
		body, _ := c.block(t)
		c.names.define(c, line, name)
		return captureNode{name, body}, true
	case "increment", "decrement":
		if !isVariable(t.text) {
			c.fail(line, "%s needs a name; write {%% %s name %%}", t.name, t.name)
			return nil, false
		}
		c.names.define(c, line, t.text)
		if t.name == "increment" {
			return counterNode{t.text, 1}, false
		}
		return counterNode{t.text, -1}, false
	case "cycle":
		return c.cycleTag(t), false
	case "ifchanged":
		body, _ := c.block(t)
		return changedNode{body}, false
	case "echo":
		if t.text == "" {
			return nil, false
		}
		return c.output(t.text, t.argsLine), false
	case "liquid":
		tokens := lexLines(t.text, t.argsLine)
		c.tokens = append(append(append([]token(nil), c.tokens[:c.pos]...), tokens...), c.tokens[c.pos:]...)
		return nil, true
	case "#":
		for i, text := range strings.Split(t.text, "\n") {
			if text = strings.Trim(text, whiteSpace); i > 0 && text != "" && text[0] != '#' {
				c.fail(line+i, "every line of an inline comment begins with #")
			}
		}
		return nil, true
	case "comment":
		c.comment(t)
		return nil, true
	case "doc":
		if t.text != "" {
			c.fail(line, "doc has no arguments; write {%% doc %%}")
		}
		c.body(t)
		return nil, true
	case "raw":
		nodes, isBlank := c.block(t)
		if len(nodes) == 0 {
			return nil, isBlank
		}
		return nodes[0], false
	case "break", "continue":
		if c.loops == 0 {
			c.fail(line, "%s stands outside of a for loop", t.name)
		}
		if t.name == "break" {
			return jumpNode{errBreak}, false
		}
		return jumpNode{errContinue}, false
	}
	c.unknown(t)
	return nil, true
}

func (c *compiler) unknown(t token) {
	switch t.name {
	case "":
		c.fail(t.line, "a tag begins with its name, such as {%% if … %%}")
	case "include", "render", "layout", "extends", "section", "block":
		c.fail(t.line, "there is no tag %q: a block contains all of its content and reads no other files", t.name)
	case "else", "elsif", "when":
		c.fail(t.line, "{%% %s %%} stands outside of its block", t.name)
	default:
		for _, name := range tagNames {
			if t.name == name {
				c.fail(t.line, "{%% %s %%} closes no {%% %s %%}", t.name, strings.TrimPrefix(t.name, "end"))
				return
			}
		}
		c.fail(t.line, "there is no tag %q%s", t.name, spelling.Hint(t.name, tagNames))
	}
}

// comment skips the tokens of a comment. Only the lines of a liquid tag have tokens
// inside of a comment; the lexer skips all others.
func (c *compiler) comment(open token) {
	for depth := 1; c.pos < len(c.tokens); {
		t := c.tokens[c.pos]
		c.pos++
		switch {
		case t.kind != tagToken:
		case t.name == "comment":
			depth++
		case t.name == "endcomment":
			if depth--; depth == 0 {
				return
			}
		}
	}
	c.fail(open.line, "{%% comment %%} is never closed; write {%% endcomment %%}")
}

// isVariable reports whether a name can be assigned. Digits alone are a name that
// cannot be read again; Liquid permits that.
func isVariable(s string) bool {
	for i := range len(s) {
		if !isNameStart(s[i]) && !isDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return s != ""
}

func (c *compiler) conditional(t token) (node, bool) {
	out := ifNode{line: t.line}
	when := c.parser(t.text, t.argsLine).condition()
	if t.name == "unless" {
		when = negation{when}
	}
	isBlank, hasElse := true, false
	for end := t; ; {
		body, next, bodyIsBlank := c.body(token{name: t.name, line: t.line})
		isBlank = isBlank && bodyIsBlank
		// Clauses behind else are never evaluated.
		if !hasElse {
			out.branches = append(out.branches, branch{when, body})
			hasElse = when == nil
		}
		if end = next; end.name != "elsif" && end.name != "else" {
			break
		}
		when = nil
		if end.name == "elsif" {
			when = c.parser(end.text, end.argsLine).condition()
		}
	}
	if isBlank {
		for i := range out.branches {
			out.branches[i].body = withoutBlanks(out.branches[i].body)
		}
	}
	return out, isBlank
}

func (c *compiler) caseTag(t token) (node, bool) {
	out := caseNode{line: t.line}
	p := c.parser(t.text, t.argsLine)
	out.subject = p.value()
	p.end()
	// Text between case and the first when is never written.
	_, end, _ := c.body(t)
	isBlank := true
	for end.name == "when" || end.name == "else" {
		b := caseBranch{isElse: end.name == "else"}
		if !b.isElse {
			b.when = c.parser(end.text, end.argsLine).alternatives()
		}
		var bodyIsBlank bool
		b.body, end, bodyIsBlank = c.body(token{name: "case", line: t.line})
		isBlank = isBlank && bodyIsBlank
		out.branches = append(out.branches, b)
	}
	if isBlank {
		for i := range out.branches {
			out.branches[i].body = withoutBlanks(out.branches[i].body)
		}
	}
	return out, isBlank
}

// alternatives parses the values of when, separated by commas or or.
func (p *parser) alternatives() (values []expression) {
	for {
		values = append(values, p.value())
		if p.failed || !p.accept(",") && !p.accept("or") {
			break
		}
	}
	if p.peek().is("and") {
		p.fail(`when has values only; write {%% when "one", "two" %%}`)
	}
	p.end()
	return values
}

func (c *compiler) forTag(t token) (node, bool) {
	head, ok := c.loopHead(t)
	out := forNode{loopHead: head}
	var end token
	var isBlank bool
	c.names.within(head.variable, "forloop", func() {
		c.loops++
		out.body, end, isBlank = c.body(t)
		c.loops--
	})
	for end.name == "else" {
		var elseIsBlank bool
		out.otherwise, end, elseIsBlank = c.body(token{name: "for", line: t.line})
		isBlank = isBlank && elseIsBlank
	}
	if isBlank {
		out.body, out.otherwise = withoutBlanks(out.body), withoutBlanks(out.otherwise)
	}
	if !ok {
		return nil, isBlank
	}
	return out, isBlank
}

// loopHead parses "item in list limit: 3 offset: continue reversed cols: 2".
func (c *compiler) loopHead(t token) (head loopHead, ok bool) {
	p := c.parser(t.text, t.argsLine)
	head.line = t.line
	misread := func() (loopHead, bool) {
		p.fail("%s is not understood; write {%% %s item in list limit: 3 %%}", t.name, t.name)
		return head, false
	}
	name := p.next()
	if name.kind != nameLexeme || !p.accept("in") {
		return misread()
	}
	head.variable = name.text
	from := p.pos
	head.list = p.value()
	head.name = name.text + "-" + spell(p.lexemes[from:min(p.pos, len(p.lexemes))])
	for !p.failed && p.peek().kind != endLexeme {
		switch {
		case p.accept(","):
			continue
		case p.accept("reversed"):
			head.reversed = true
			continue
		}
		option := p.next()
		if !p.accept(":") {
			p.pos--
			return misread()
		}
		switch {
		case option.is("limit"):
			head.limit = p.value()
		case option.is("offset") && p.accept("continue"):
			head.continues = true
		case option.is("offset"):
			head.offset = p.value()
		case option.is("cols") && t.name == "tablerow":
			head.columns = p.value()
		default:
			p.fail("%s has no %q; write limit:, offset: or reversed", t.name, option.text)
		}
	}
	return head, !p.failed
}

// spell writes lexemes without white space.
func spell(lexemes []lexeme) string {
	var b strings.Builder
	for _, l := range lexemes {
		if l.kind == textLexeme {
			b.WriteString(`"` + l.text + `"`)
			continue
		}
		b.WriteString(l.text)
	}
	return b.String()
}

// cycleTag parses "one, two" or "group: one, two".
func (c *compiler) cycleTag(t token) node {
	p := c.parser(t.text, t.argsLine)
	out := cycleNode{name: spell(p.lexemes), line: t.line}
	first := p.cycleName()
	if p.accept(":") {
		out.group = first
	} else {
		out.values = append(out.values, first)
		if !p.accept(",") {
			p.end()
			return out
		}
	}
	for !p.failed && p.peek().kind != endLexeme {
		out.values = append(out.values, p.value())
		if !p.accept(",") {
			break
		}
	}
	p.end()
	if len(out.values) == 0 {
		c.fail(t.line, `cycle needs values; write {%% cycle "one", "two" %%}`)
	}
	return out
}

// cycleName parses the first value of a cycle. A name in front of a colon need not
// be defined.
func (p *parser) cycleName() expression {
	if l := p.peek(); l.kind == nameLexeme && p.pos+1 < len(p.lexemes) && p.lexemes[p.pos+1].is(":") {
		p.pos++
		return &path{name: l.text}
	}
	return p.value()
}
