package content

import (
	"fmt"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// The lexer splits a template into texts, outputs {{ … }} and tags {% … %}. For
// example
//
//	Hi {{ name -}} !{% if vip %}
//
// becomes: text "Hi ", output "name", text "!", tag "if" with the arguments "vip".
// A dash at a mark removes the white space beside it.
//
// As in Liquid, an output ends at the first }} and a tag at the first %}, even
// inside of a quoted text.

type tokenKind uint8

const (
	textToken tokenKind = iota
	outputToken
	tagToken
)

// token is a part of a template.
type token struct {
	kind tokenKind
	line int
	// text is the text, the content of an output, or the arguments of a tag.
	text string
	// name is the name of a tag, and argsLine the line of its arguments.
	name     string
	argsLine int
}

const whiteSpace = " \t\r\n\f\v"

// lex splits a template. line is the line number of its first line.
func lex(source string, line int) ([]token, *finding.Finding) {
	l := lexer{source: source, line: line}
	for l.pos < len(l.source) {
		if problem := l.next(); problem != nil {
			return nil, problem
		}
	}
	return l.tokens, nil
}

type lexer struct {
	source string
	pos    int
	line   int
	tokens []token
	// trim is set after a mark that removes the white space behind it.
	trim bool
}

// advance moves to an offset of the source and counts lines.
func (l *lexer) advance(to int) {
	l.line += strings.Count(l.source[l.pos:to], "\n")
	l.pos = to
}

func (l *lexer) text(s string, trimEnd bool) {
	line := l.line
	if l.trim {
		s = strings.TrimLeft(s, whiteSpace)
	}
	if trimEnd {
		s = strings.TrimRight(s, whiteSpace)
	}
	if s != "" {
		l.tokens = append(l.tokens, token{kind: textToken, line: line, text: s})
	}
}

func (l *lexer) next() *finding.Finding {
	rest := l.source[l.pos:]
	open := strings.IndexByte(rest, '{')
	for open >= 0 && (open+1 >= len(rest) || rest[open+1] != '{' && rest[open+1] != '%') {
		more := strings.IndexByte(rest[open+1:], '{')
		if more < 0 {
			open = -1
			break
		}
		open += 1 + more
	}
	if open < 0 {
		l.text(rest, false)
		l.advance(len(l.source))
		return nil
	}
	isTag := rest[open+1] == '%'
	trimBefore := open+2 < len(rest) && rest[open+2] == '-'
	l.text(rest[:open], trimBefore)
	l.advance(l.pos + open)
	start := l.pos + 2
	if trimBefore {
		start++
	}
	mark, end := "{{", "}}"
	if isTag {
		mark, end = "{%", "%}"
	}
	length := strings.Index(l.source[min(start, len(l.source)):], end)
	if length < 0 {
		return &finding.Finding{Line: l.line, Message: fmt.Sprintf("%s is never closed; write %s", mark, end)}
	}
	inner := l.source[start : start+length]
	l.trim = strings.HasSuffix(inner, "-")
	inner = strings.TrimSuffix(inner, "-")
	t := token{kind: outputToken, line: l.line, text: inner}
	if isTag {
		t.kind = tagToken
		t.name, t.text = splitTag(inner)
		t.argsLine = l.line + strings.Count(inner[:max(strings.Index(inner, t.text), 0)], "\n")
	}
	l.advance(start + length + 2)
	l.tokens = append(l.tokens, t)
	if isTag && (t.name == "raw" || t.name == "doc" || t.name == "comment") {
		return l.verbatim(t)
	}
	return nil
}

// splitTag splits the content of a tag into its name and arguments.
func splitTag(s string) (name, args string) {
	s = strings.Trim(s, whiteSpace)
	if strings.HasPrefix(s, "#") {
		return "#", s[1:]
	}
	end := 0
	for end < len(s) && (isNameStart(s[end]) || isDigit(s[end]) || s[end] == '-') {
		end++
	}
	return s[:end], strings.Trim(s[end:], whiteSpace)
}

// verbatim reads the content of a raw, doc or comment tag, in which no other tags
// are parsed, and its end tag. Comments nest, and may contain raw.
func (l *lexer) verbatim(open token) *finding.Finding {
	depth, inRaw := 1, false
	for from := l.pos; ; {
		start := strings.Index(l.source[from:], "{%")
		if start < 0 {
			return &finding.Finding{Line: open.line, Message: fmt.Sprintf("{%% %s %%} is never closed; write {%% end%s %%}", open.name, open.name)}
		}
		start += from
		length := strings.Index(l.source[min(start+2, len(l.source)):], "%}")
		if length < 0 {
			from = len(l.source)
			continue
		}
		inner := l.source[start+2 : start+2+length]
		name, args := splitTag(strings.TrimSuffix(strings.TrimPrefix(inner, "-"), "-"))
		from = start + length + 4
		switch {
		case open.name != "comment" && name != "end"+open.name:
			// A {% without an end of its own may precede the end tag.
			from = start + 2
			if open.name == "doc" && name == "doc" {
				return &finding.Finding{Line: open.line, Message: "doc tags do not nest"}
			}
			continue
		case open.name != "comment":
		case inRaw:
			inRaw = name != "endraw"
			continue
		case name == "raw":
			inRaw = true
			continue
		case name == "comment":
			depth++
			continue
		case name == "endcomment":
			if depth--; depth > 0 {
				continue
			}
		default:
			continue
		}
		if open.name == "raw" {
			l.text(l.source[l.pos:start], strings.HasPrefix(inner, "-"))
		}
		l.advance(start)
		l.tokens = append(l.tokens, token{kind: tagToken, line: l.line, name: name, text: args, argsLine: l.line})
		l.trim = strings.HasSuffix(inner, "-")
		l.advance(from)
		return nil
	}
}

// lexLines splits the content of a liquid tag, in which each line is a tag.
func lexLines(source string, line int) []token {
	var tokens []token
	for text := range strings.SplitSeq(source, "\n") {
		name, args := splitTag(text)
		if strings.Trim(text, whiteSpace) != "" {
			tokens = append(tokens, token{kind: tagToken, line: line, name: name, text: args, argsLine: line})
		}
		line++
	}
	return tokens
}
