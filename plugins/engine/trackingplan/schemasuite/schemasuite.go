// Package schemasuite reads the official JSON-Schema-Test-Suite, so that tests
// can hold tracking plans against it.
package schemasuite

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Env names the environment variable that says where the suite is.
const Env = "JSON_SCHEMA_TEST_SUITE"

// Draft is a version of JSON Schema that the suite has tests for.
type Draft struct {
	// Folder is its name in the suite, and URL its metaschema.
	Folder, URL string
}

// The drafts that tracking plans may be written in.
var (
	Draft7    = Draft{"draft7", "http://json-schema.org/draft-07/schema#"}
	Draft2020 = Draft{"draft2020-12", "https://json-schema.org/draft/2020-12/schema"}
)

// Group is a schema with its tests.
type Group struct {
	// File is the path below the draft's folder, such as optional/bignum.json.
	File        string
	Description string
	Schema      json.RawMessage
	Tests       []Test
}

// Test is a value and whether it is valid.
type Test struct {
	Description string
	Data        json.RawMessage
	Valid       bool
}

// Optional tells whether implementations are free to fail the group.
func (g *Group) Optional() bool { return strings.HasPrefix(g.File, "optional/") }

// Format tells whether the group is about formats being checked, which plans
// do unless they are told otherwise.
func (g *Group) Format() bool { return strings.HasPrefix(g.File, "optional/format/") }

// Folder returns where the suite is, and skips the test if it is not there.
func Folder(t testing.TB) string {
	t.Helper()
	folder := os.Getenv(Env)
	if folder == "" {
		_, self, _, _ := runtime.Caller(0)
		root := filepath.Join(filepath.Dir(self), "..", "..", "..")
		folder = filepath.Join(root, "..", "shared", "data", "json-schema-test-suite")
	}
	if _, err := os.Stat(filepath.Join(folder, "tests")); err != nil {
		t.Skipf("there is no JSON-Schema-Test-Suite at %s; set %s to a clone of it to run this test", folder, Env)
	}
	return folder
}

// Groups returns all groups of a draft in the order of their files.
func Groups(t testing.TB, draft Draft) []Group {
	t.Helper()
	base := filepath.Join(Folder(t), "tests", draft.Folder)
	var groups []Group
	err := filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".json" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var inFile []Group
		if err := json.Unmarshal(data, &inFile); err != nil {
			return err
		}
		rel, err := filepath.Rel(base, path)
		for i := range inFile {
			inFile[i].File = filepath.ToSlash(rel)
		}
		groups = append(groups, inFile...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) == 0 {
		t.Fatalf("the suite has no tests in %s", base)
	}
	return groups
}

// PlanFolder returns a new folder in which the plans that WritePlan writes
// find the schemas that the suite refers to by URL.
func PlanFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	remotes, err := filepath.Abs(filepath.Join(Folder(t), "remotes"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(remotes, filepath.Join(dir, "remotes")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// WritePlan writes a plan in whose event "Case" the properties have the
// group's schema, and returns its path.
func WritePlan(t testing.TB, dir string, draft Draft, g *Group) string {
	t.Helper()
	formats := "annotate"
	if g.Format() {
		formats = "assert"
	}
	plan := `name: suite
version: 1
$schema: ` + draft.URL + `
formats: ` + formats + `
schema_urls: { "http://localhost:1234/": remotes }
events:
  Case:
    properties: { $ref: schema.json }
`
	path := filepath.Join(dir, "plan.yaml")
	for name, data := range map[string][]byte{path: []byte(plan), filepath.Join(dir, "schema.json"): g.Schema} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Event returns an event that has the test's value as its properties.
func (test *Test) Event() []byte {
	return []byte(`{"type":"track","event":"Case","properties":` + string(test.Data) + `}`)
}
