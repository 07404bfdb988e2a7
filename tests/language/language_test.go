package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMeasureCountsProseOnly(t *testing.T) {
	for _, c := range []struct {
		name, file, content               string
		lines, verbs, pronouns, sentences int
	}{
		{"comment", "a.go", "package a\n\n// It tells who came.\nvar tells = 1\n", 1, 1, 1, 0},
		{"comment after code", "a.go", "package a\n\nvar b = 1 // nobody\n", 1, 0, 1, 0},
		{"block comment", "a.go", "package a\n\n/* One.\nWho is second? */\n", 2, 0, 1, 0},
		{"sentence over two lines", "a.go", "package a\n\n// It returns\n// What it found.\n", 2, 0, 0, 0},
		{"new paragraph", "a.go", "package a\n\n// It returns.\n//\n// What it found is kept.\n", 2, 0, 0, 1},
		{"second sentence", "a.go", "package a\n\n// It returns. What it found is kept.\n", 1, 0, 0, 1},
		{"question", "a.go", "package a\n\n// What does it cost?\n", 1, 0, 0, 0},
		{"directive and code", "a.go", "package a\n\n//go:generate tell who\n// Run:\n//\n//\ttell who\n", 1, 0, 0, 0},
		{"short string", "a.go", "package a\n\nvar b = \"told who\"\n", 0, 0, 0, 0},
		{"description", "a.go", "package a\n\nvar b = \"What is told to whom at last.\"\n", 1, 1, 1, 1},
		{"configuration in a string", "a.go", "package a\n\nvar b = `name: { who: a, tells: b, c: d, e: f }`\n", 0, 0, 0, 0},
		{"Markdown", "a.md", "# Who\n\nWhat is told.\nWho\n\n- Whoever comes\n\n    who tells\n\n```\nwho\n```\n`who` is a field\n", 5, 1, 3, 2},
		{"YAML", "a.yaml", "# What is sent\na: 1 # nobody\nb: { description: \"tells who\" }\nwho: told\n", 3, 1, 2, 1},
		{"shell", "a.sh", "#!/bin/sh\n# Tells\nwho=1\n", 1, 1, 0, 0},
		{"other file", "a.json", "{\"who\": \"told\"}", 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(root, c.file), []byte(c.content), 0o600))
			r, err := measure(root, []string{c.file, "absent"})
			require.NoError(t, err)
			require.Equal(t, count{"total", c.lines, c.verbs, c.pronouns, c.sentences}, r.total(), r.findings)
		})
	}
}

func TestCheckComparesWithTheLimits(t *testing.T) {
	require.NoError(t, (&report{counts: []count{{"a", 1000, 2, 6, 0}}}).check())
	require.ErrorContains(t, (&report{counts: []count{{"a", 500, 2, 0, 0}}}).check(), "told: 4.0 in 1,000 lines")
	require.ErrorContains(t, (&report{counts: []count{{"a", 500, 0, 4, 0}}}).check(), "nobody: 8.0 in 1,000 lines")
	require.ErrorContains(t, (&report{counts: []count{{"a", 1000, 0, 0, 1}}}).check(), "1 sentences begin with What")
}

func TestCommentsAndDocumentsAreWithinTheLimits(t *testing.T) {
	r, err := measure("../..", parts)
	require.NoError(t, err)
	t.Logf("\n%s", r.table())
	require.Greater(t, r.total().lines, 10_000, "the repository was not found")
	require.NoError(t, r.check(), "go run ./tests/language -list prints the lines")
}
