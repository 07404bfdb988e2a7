// Package schemasuite reads the official JSON-Schema-Test-Suite for the tests of
// tracking plans.
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

// Env is the environment variable with the path of the suite.
const Env = "JSON_SCHEMA_TEST_SUITE"

// Draft is a version of JSON Schema that the suite has tests for.
type Draft struct {
	// Folder is its name in the suite, URL its metaschema.
	Folder, URL string
}

// The drafts that tracking plans support.
var (
	Draft7    = Draft{"draft7", "http://json-schema.org/draft-07/schema#"}
	Draft2020 = Draft{"draft2020-12", "https://json-schema.org/draft/2020-12/schema"}
)

// Group is a schema with its tests.
type Group struct {
	// File is the path below the folder of the draft, such as optional/bignum.json.
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

// Optional reports whether implementations may fail the group.
func (g *Group) Optional() bool { return strings.HasPrefix(g.File, "optional/") }

// Format reports whether the group requires that formats are checked, which plans do by
// default.
func (g *Group) Format() bool { return strings.HasPrefix(g.File, "optional/format/") }

// Folder returns the path of the suite, and skips the test if it does not exist.
func Folder(t testing.TB) string {
	t.Helper()
	folder := os.Getenv(Env)
	if folder == "" {
		_, self, _, _ := runtime.Caller(0)
		root := filepath.Join(filepath.Dir(self), "..", "..", "..", "..")
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

// PlanFolder returns a new folder for the plans of WritePlan. It contains the schemas
// that the suite refers to by URL.
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

// WritePlan writes a plan in which the properties of the event "Case" have the schema
// of the group, and returns its path.
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

// Event returns an event with the value of the test as its properties.
func (test *Test) Event() []byte {
	return []byte(`{"type":"track","event":"Case","properties":` + string(test.Data) + `}`)
}
