package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
)

// parts are the measured folders and files.
var parts = []string{"plugins", "cmd", "docs", "tests", "configs", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}

// The limits per 1,000 lines of prose; no sentence may begin with a pronoun as
// its subject.
const (
	maxVerbs    = 2.0
	maxPronouns = 6.0
)

var (
	verbs    = regexp.MustCompile(`(?i)\b(tells?|told|telling)\b`)
	pronouns = regexp.MustCompile(`(?i)\b(somebody|nobody|whoever|who|whom|whose)\b`)
	code     = regexp.MustCompile("`[^`]*`")
	// A sentence begins at the start of a paragraph and after these marks.
	subject       = regexp.MustCompile(`[.:;!?]["')]?\s+(What|Who|Whoever|Whatever)\b`)
	subjectAtHead = regexp.MustCompile(`^(What|Who|Whoever|Whatever)\b`)
)

// count is what was found in one part of the repository.
type count struct {
	part                             string
	lines, verbs, pronouns, subjects int
}

type report struct {
	counts   []count
	findings []string
}

// measure counts in the named parts of a repository.
func measure(root string, parts []string) (*report, error) {
	r := &report{}
	for _, part := range parts {
		c := count{part: part}
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			// This program quotes the words that it counts.
			case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || d.Name() == "language"):
				return fs.SkipDir
			case !d.Type().IsRegular():
				return nil
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, l := range prose(path, string(content)) {
				if kinds := c.add(l); kinds != "" {
					r.findings = append(r.findings, fmt.Sprintf("%s:%d: [%s] %s", path, l.number, kinds, l.text))
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		r.counts = append(r.counts, c)
	}
	return r, nil
}

// add counts a line, and returns the kinds of findings in it.
func (c *count) add(l line) string {
	c.lines++
	// Code, names of metrics and quoted text keep their words.
	text := code.ReplaceAllString(l.text, "``")
	var kinds []string
	if verbs.MatchString(text) {
		c.verbs++
		kinds = append(kinds, "tell")
	}
	if pronouns.MatchString(text) {
		c.pronouns++
		kinds = append(kinds, "who")
	}
	question := strings.HasSuffix(strings.TrimSpace(text), "?")
	if !question && (subject.MatchString(text) || l.starts && subjectAtHead.MatchString(text)) {
		c.subjects++
		kinds = append(kinds, "subject")
	}
	return strings.Join(kinds, ",")
}

func (c count) perThousand(n int) float64 { return 1000 * float64(n) / float64(max(c.lines, 1)) }

func (r *report) total() (t count) {
	t.part = "total"
	for _, c := range r.counts {
		t.lines += c.lines
		t.verbs += c.verbs
		t.pronouns += c.pronouns
		t.subjects += c.subjects
	}
	return t
}

func (r *report) table() string {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tlines\ttell, told\tper 1,000\twho, somebody …\tper 1,000\tsentences with What, Who\t")
	for _, c := range append(r.counts, r.total()) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%d\t%.1f\t%d\t\n", c.part, c.lines, c.verbs, c.perThousand(c.verbs), c.pronouns, c.perThousand(c.pronouns), c.subjects)
	}
	fmt.Fprintf(w, "at most\t\t\t%.0f\t\t%.0f\t0\t\n", maxVerbs, maxPronouns)
	w.Flush()
	return out.String()
}

// check returns an error for each count above its limit.
func (r *report) check() error {
	t := r.total()
	var errs []error
	if rate := t.perThousand(t.verbs); rate > maxVerbs {
		errs = append(errs, fmt.Errorf("tell, tells, told: %.1f in 1,000 lines, at most %.0f are allowed", rate, maxVerbs))
	}
	if rate := t.perThousand(t.pronouns); rate > maxPronouns {
		errs = append(errs, fmt.Errorf("who, whoever, somebody, nobody: %.1f in 1,000 lines, at most %.0f are allowed", rate, maxPronouns))
	}
	if t.subjects > 0 {
		errs = append(errs, fmt.Errorf("%d sentences begin with What, Who or Whoever", t.subjects))
	}
	return errors.Join(errs...)
}
