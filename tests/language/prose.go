package main

import (
	"go/scanner"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// line is a line of prose, and its place.
type line struct {
	number int
	text   string
	// starts is set where a paragraph begins, and with it a sentence.
	starts bool
}

// prose returns the comments and documentation of a file: Markdown outside of
// code blocks, comments, and those string literals in Go and descriptions in
// YAML that are sentences.
func prose(path string, content string) []line {
	switch filepath.Ext(path) {
	case ".go":
		return goProse(content)
	case ".md", ".tmpl":
		return markdownProse(content)
	case ".js", ".mjs":
		return commentProse(content, "//")
	case ".lua", ".sql":
		return commentProse(content, "--")
	case ".yaml", ".yml", ".sh", ".py", ".blobl", ".toml":
		return commentProse(content, "#")
	}
	switch filepath.Base(path) {
	case "Makefile", "Dockerfile":
		return commentProse(content, "#")
	}
	return nil
}

// minWords is the length from which a string literal counts as prose.
const minWords = 5

func goProse(content string) (lines []line) {
	var s scanner.Scanner
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(content))
	s.Init(file, []byte(content), nil, scanner.ScanComments)
	lastComment := -1 // the line on which the previous comment ended
	for {
		pos, tok, literal := s.Scan()
		if tok == token.EOF {
			return lines
		}
		first := file.Line(pos)
		switch tok {
		case token.COMMENT:
			text := strings.TrimSuffix(strings.TrimPrefix(literal, "/*"), "*/")
			for i, part := range strings.Split(text, "\n") {
				part = strings.TrimPrefix(part, "//")
				// Directives, and code in documentation comments.
				if strings.HasPrefix(part, "go:") || strings.HasPrefix(part, "\t") {
					lastComment = -1
					continue
				}
				part = strings.TrimSpace(part)
				lines = add(lines, line{first + i, part, first+i != lastComment+1})
				if lastComment = first + i; part == "" {
					lastComment = -1
				}
			}
		case token.STRING:
			text, err := strconv.Unquote(literal)
			if err != nil || len(strings.Fields(text)) < minWords {
				continue
			}
			paragraph := true
			for i, part := range strings.Split(text, "\n") {
				if strings.HasPrefix(literal, `"`) {
					i = 0
				}
				part = strings.TrimSpace(part)
				// Configuration, code and queries in a literal are no prose.
				if len(strings.Fields(part)) < minWords || strings.ContainsAny(part, "{}=<>|") {
					paragraph = true
					continue
				}
				lines = add(lines, line{first + i, part, paragraph})
				paragraph = false
			}
		}
	}
}

func markdownProse(content string) (lines []line) {
	fenced, paragraph := false, true
	for i, text := range strings.Split(content, "\n") {
		trimmed := strings.TrimSpace(text)
		switch {
		case strings.HasPrefix(trimmed, "```") || strings.HasPrefix(trimmed, "~~~"):
			fenced = !fenced
			continue
		case fenced, strings.HasPrefix(text, "    ") && paragraph: // code
			continue
		case trimmed == "":
			paragraph = true
			continue
		}
		isItem := false
		for _, mark := range []string{"- ", "* ", "| ", "> "} {
			if rest, ok := strings.CutPrefix(trimmed, mark); ok {
				trimmed, isItem = strings.TrimSpace(rest), true
			}
		}
		lines = add(lines, line{i + 1, trimmed, paragraph || isItem})
		paragraph = strings.HasPrefix(trimmed, "#")
	}
	return lines
}

// commentProse returns comments that a mark begins, and descriptions in YAML.
func commentProse(content, mark string) (lines []line) {
	previous := -2
	for i, text := range strings.Split(content, "\n") {
		trimmed := strings.TrimSpace(text)
		comment := ""
		if rest, ok := strings.CutPrefix(trimmed, mark); ok {
			comment = strings.TrimSpace(rest)
		} else if _, rest, ok := strings.Cut(text, " "+mark+" "); ok {
			comment = strings.TrimSpace(rest)
		} else if _, rest, ok := strings.Cut(trimmed, "description:"); ok && mark == "#" {
			comment = strings.Trim(strings.TrimSpace(rest), `"'`)
		}
		if comment == "" || strings.HasPrefix(comment, "!/") {
			previous = -2
			continue
		}
		lines = add(lines, line{i + 1, comment, i != previous+1})
		previous = i
	}
	return lines
}

func add(lines []line, l line) []line {
	if l.text == "" {
		return lines
	}
	return append(lines, l)
}
