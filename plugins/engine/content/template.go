package content

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/osteele/liquid/expressions"
	"github.com/osteele/liquid/parser"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// The library parses a template and evaluates its expressions. What stands
// between, the tree of tags and its rendering, is ours: the library's renderer
// can neither be stopped by time nor by size, opens files for {% include %},
// and does not know which part of an HTML page a value lands in.

// node is a part of a compiled template.
type node interface {
	render(r *run) error
}

type (
	textNode   string
	outputNode struct {
		expr expressions.Expression
		line int
	}
	branch struct {
		when expressions.Expression // nil for else
		body []node
	}
	ifNode struct {
		branches []branch
		line     int
	}
	caseNode struct {
		of       expressions.Expression
		branches []caseBranch
		line     int
	}
	caseBranch struct {
		when []expressions.Expression // none for else
		body []node
	}
	forNode struct {
		loop      expressions.Loop
		body, not []node
		line      int
	}
	assignNode struct {
		name string
		expr expressions.Expression
		line int
	}
	captureNode struct {
		name string
		body []node
	}
	cycleNode struct {
		expressions.Cycle
		line int
	}
	jumpNode struct{ err error }
)

var (
	errBreak    = errors.New("break outside a for")
	errContinue = errors.New("continue outside a for")
)

// maxNesting is how deep tags may stand inside each other.
const maxNesting = 50

// syntax tells the library's parser how tags go together.
type syntax struct {
	name    string
	clause  bool
	endOf   string
	parents []string
}

func (s *syntax) IsBlock() bool        { return true }
func (s *syntax) IsBlockEnd() bool     { return s.endOf != "" }
func (s *syntax) IsBlockStart() bool   { return !s.clause && s.endOf == "" }
func (s *syntax) IsClause() bool       { return s.clause }
func (s *syntax) ParentTags() []string { return s.parents }
func (s *syntax) RequiresParent() bool { return s.clause || s.endOf != "" }
func (s *syntax) TagName() string      { return s.name }
func (s *syntax) CanHaveParent(p parser.BlockSyntax) bool {
	return !s.RequiresParent() || p != nil && slices.Contains(s.parents, p.TagName())
}

type grammar map[string]*syntax

func (g grammar) BlockSyntax(name string) (parser.BlockSyntax, bool) {
	s, ok := g[name]
	return s, ok
}

var blockTags = func() grammar {
	g := grammar{
		"else":  {name: "else", clause: true, parents: []string{"if", "unless", "case", "for"}},
		"elsif": {name: "elsif", clause: true, parents: []string{"if", "unless"}},
		"when":  {name: "when", clause: true, parents: []string{"case"}},
	}
	for _, name := range []string{"if", "unless", "case", "for", "capture", "comment", "raw"} {
		g[name] = &syntax{name: name}
		g["end"+name] = &syntax{name: "end" + name, endOf: name, parents: []string{name}}
	}
	return g
}()

// tagNames are the tags a template may use.
var tagNames = []string{"assign", "break", "capture", "case", "comment", "continue", "cycle", "else", "elsif", "for", "if", "raw", "unless", "when"}

// compiler makes nodes of a parsed template and notes what is wrong with it.
type compiler struct {
	problems []finding.Finding
	names    *scope
	depth    int
	loops    int
}

func (c *compiler) fail(line int, format string, args ...any) {
	c.problems = append(c.problems, finding.Finding{Line: line, Message: fmt.Sprintf(format, args...)})
}

// compile makes a template of its source, whose first line has a number.
func compile(source string, line int, names *scope) (nodes []node, problems []finding.Finding) {
	c := &compiler{names: names}
	defer func() {
		// The library panics on some malformed expressions.
		if v := recover(); v != nil {
			nodes, problems = nil, append(c.problems, finding.Finding{Line: line, Message: "the template cannot be parsed; look for a malformed number or expression"})
		}
	}()
	loc := parser.SourceLoc{LineNo: line}
	if at, what := unclosed(source, loc); what != "" {
		return nil, []finding.Finding{{Line: at, Message: what}}
	}
	conf := parser.NewConfig(blockTags)
	root, err := conf.Parse(source, loc)
	if err != nil {
		return nil, []finding.Finding{{Line: max(err.LineNumber(), line), Message: plainError(err)}}
	}
	seq, ok := root.(*parser.ASTSeq)
	if !ok {
		return nil, []finding.Finding{{Line: line, Message: "the template cannot be parsed"}}
	}
	nodes = c.sequence(seq.Children)
	return nodes, c.problems
}

// plainError is the library's message without its frame.
func plainError(err parser.Error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, "): "); ok {
		text = after
	}
	text = strings.TrimPrefix(text, "Liquid error: ")
	if strings.HasPrefix(text, "unterminated ") {
		name := strings.Trim(strings.Fields(text)[1], `"`)
		return fmt.Sprintf("{%% %s %%} is never closed; write {%% end%s %%}", name, name)
	}
	if at := strings.LastIndex(text, " in {"); at > 0 {
		text = text[:at]
	}
	return text
}

// unclosed finds what the parser passes over: tags that were never closed.
func unclosed(source string, loc parser.SourceLoc) (int, string) {
	open, line := "", 0
	for _, token := range parser.Scan(source, loc, nil) {
		switch {
		case token.Type == parser.TagTokenType && open == "" && (token.Name == "comment" || token.Name == "raw"):
			open, line = token.Name, token.SourceLoc.LineNo
		case token.Type == parser.TagTokenType && open != "" && token.Name == "end"+open:
			open = ""
		case token.Type == parser.TextTokenType && open == "":
			for _, mark := range []struct{ open, close string }{{"{{", "}}"}, {"{%", "%}"}} {
				if at := strings.Index(token.Source, mark.open); at >= 0 {
					return token.SourceLoc.LineNo + strings.Count(token.Source[:at], "\n"),
						fmt.Sprintf("%s is empty, malformed or never closed by %s", mark.open, mark.close)
				}
			}
		}
	}
	if open != "" {
		return line, fmt.Sprintf("{%% %s %%} is never closed; write {%% end%s %%}", open, open)
	}
	return 0, ""
}

func (c *compiler) sequence(list []parser.ASTNode) []node {
	if c.depth++; c.depth > maxNesting {
		c.depth--
		c.fail(firstLine(list), "tags are nested more than %d deep", maxNesting)
		return nil
	}
	defer func() { c.depth-- }()
	var nodes []node
	trimNext := false
	text := func(s string) {
		if trimNext {
			s = strings.TrimLeftFunc(s, unicode.IsSpace)
		}
		trimNext = false
		if s != "" {
			nodes = append(nodes, textNode(s))
		}
	}
	for _, n := range list {
		switch n := n.(type) {
		case *parser.ASTTrim:
			if n.TrimDirection == parser.Right {
				trimNext = true
			} else if len(nodes) > 0 {
				if t, ok := nodes[len(nodes)-1].(textNode); ok {
					nodes[len(nodes)-1] = textNode(strings.TrimRightFunc(string(t), unicode.IsSpace))
				}
			}
			continue
		case *parser.ASTText:
			text(n.Source)
			continue
		case *parser.ASTRaw:
			nodes = append(nodes, textNode(strings.Join(n.Slices, "")))
		case *parser.ASTObject:
			c.names.expression(c, n.SourceLoc.LineNo, n.Args)
			nodes = append(nodes, outputNode{n.Expr, n.SourceLoc.LineNo})
		case *parser.ASTTag:
			nodes = c.tag(nodes, n)
		case *parser.ASTBlock:
			nodes = c.block(nodes, n)
		}
		trimNext = false
	}
	return nodes
}

func firstLine(list []parser.ASTNode) int {
	for _, n := range list {
		switch n := n.(type) {
		case *parser.ASTText:
			return n.SourceLoc.LineNo
		case *parser.ASTBlock:
			return n.SourceLoc.LineNo
		case *parser.ASTObject:
			return n.SourceLoc.LineNo
		case *parser.ASTTag:
			return n.SourceLoc.LineNo
		}
	}
	return 0
}

func (c *compiler) tag(nodes []node, n *parser.ASTTag) []node {
	line := n.SourceLoc.LineNo
	switch n.Name {
	case "assign":
		stmt, err := expressions.ParseStatement(expressions.AssignStatementSelector, n.Args)
		if err != nil || len(stmt.Path) > 1 {
			c.fail(line, "assign is not understood; write {%% assign name = value %%}")
			return nodes
		}
		_, value, _ := strings.Cut(n.Args, "=")
		c.names.expression(c, line, value)
		c.names.define(c, line, stmt.Assignment.Variable)
		return append(nodes, assignNode{stmt.Assignment.Variable, stmt.ValueFn, line})
	case "cycle":
		stmt, err := expressions.ParseStatement(expressions.CycleStatementSelector, n.Args)
		switch {
		case err != nil:
			c.fail(line, `cycle is not understood; write {%% cycle "one", "two" %%}`)
			return nodes
		case c.loops == 0:
			c.fail(line, "cycle stands outside a for")
			return nodes
		}
		return append(nodes, cycleNode{stmt.Cycle, line})
	case "break", "continue":
		if c.loops == 0 {
			c.fail(line, "%s stands outside a for", n.Name)
			return nodes
		}
		err := errBreak
		if n.Name == "continue" {
			err = errContinue
		}
		return append(nodes, jumpNode{err})
	case "include", "render", "layout":
		c.fail(line, "a block stands for itself: %s is not available; write its text here", n.Name)
	default:
		c.fail(line, "there is no tag %q; use one of %s%s", n.Name, strings.Join(tagNames, ", "), spelling.Hint(n.Name, tagNames))
	}
	return nodes
}

func (c *compiler) parse(line int, source string) expressions.Expression {
	c.names.expression(c, line, source)
	expr, err := expressions.Parse(source)
	if err != nil {
		c.fail(line, "%v", err)
	}
	return expr
}

func (c *compiler) block(nodes []node, n *parser.ASTBlock) []node {
	line := n.SourceLoc.LineNo
	switch n.Name {
	case "if", "unless":
		out := ifNode{line: line}
		first := c.parse(line, n.Args)
		if n.Name == "unless" && first != nil {
			first = expressions.Not(first)
		}
		out.branches = append(out.branches, branch{first, c.sequence(n.Body)})
		for _, clause := range n.Clauses {
			b := branch{}
			if clause.Name == "elsif" {
				b.when = c.parse(clause.SourceLoc.LineNo, clause.Args)
			}
			b.body = c.sequence(clause.Body)
			out.branches = append(out.branches, b)
		}
		return append(nodes, out)
	case "case":
		out := caseNode{of: c.parse(line, n.Args), line: line}
		for _, clause := range n.Clauses {
			b := caseBranch{}
			if clause.Name == "when" {
				stmt, err := expressions.ParseStatement(expressions.WhenStatementSelector, clause.Args)
				if err != nil {
					c.fail(clause.SourceLoc.LineNo, `when is not understood; write {%% when "one", "two" %%}`)
					continue
				}
				c.names.expression(c, clause.SourceLoc.LineNo, clause.Args)
				b.when = stmt.Exprs
			}
			b.body = c.sequence(clause.Body)
			out.branches = append(out.branches, b)
		}
		return append(nodes, out)
	case "for":
		stmt, err := expressions.ParseStatement(expressions.LoopStatementSelector, n.Args)
		if err != nil || stmt.Cols != nil {
			c.fail(line, "for is not understood; write {%% for item in list limit: 3 %%}")
			return nodes
		}
		_, list, _ := strings.Cut(n.Args, " in ")
		c.names.expression(c, line, list)
		out := forNode{loop: stmt.Loop, line: line}
		c.names.within(stmt.Loop.Variable, func() {
			c.loops++
			out.body = c.sequence(n.Body)
			c.loops--
		})
		for _, clause := range n.Clauses {
			out.not = append(out.not, c.sequence(clause.Body)...)
		}
		return append(nodes, out)
	case "capture":
		name := strings.Trim(strings.TrimSpace(n.Args), `"'`)
		if !isName(name) {
			c.fail(line, "capture needs a name; write {%% capture name %%}")
			return nodes
		}
		body := c.sequence(n.Body)
		c.names.define(c, line, name)
		return append(nodes, captureNode{name, body})
	}
	return nodes
}
