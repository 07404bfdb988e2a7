// Package engine holds the test that keeps the packages below it pure.
package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/connect-personalize/connect-personalize/"

// impure are the packages, and all below them, that no package below plugins/engine
// imports, directly or indirectly. Packages of the engine only compute: the adapters
// (plugins/NAME) connect them to Redpanda Connect, the stores to databases;
// plugins/store itself is only the contract.
var impure = []string{
	"github.com/redpanda-data",
	"github.com/redis",
	"github.com/cockroachdb/pebble",
	"github.com/twmb/franz-go",
	"database/sql",
	"github.com/lib/pq",
	"github.com/jackc",
	"github.com/go-sql-driver",
	"modernc.org/sqlite",
	module + "plugins/store/redis",
	module + "plugins/store/embedded",
}

type listed struct {
	ImportPath string
	Dir        string
	Imports    []string
}

func TestEnginePackagesImportNeitherConnectNorADatabaseOrNetworkClient(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Imports", "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	require.NoError(t, err)
	packages := map[string]listed{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		packages[p.ImportPath] = p
		if strings.HasPrefix(p.ImportPath, module) {
			// Without this go test would not notice changed files and serve a cached result.
			_, err := os.ReadDir(p.Dir)
			require.NoError(t, err)
		}
	}
	checked := 0
	for name := range packages {
		if strings.HasPrefix(name, module+"plugins/engine/") {
			checked++
			if chain := impureImport(packages, name, map[string]bool{}); chain != nil {
				t.Errorf("%s", strings.Join(chain, "\n\timports "))
			}
		}
	}
	require.Greater(t, checked, 10, "no engine package was checked")
}

// impureImport returns the chain of imports from a package to an impure one, nil if
// there is none. seen holds the packages without such a chain.
func impureImport(packages map[string]listed, name string, seen map[string]bool) []string {
	if seen[name] {
		return nil
	}
	seen[name] = true
	for _, imported := range packages[name].Imports {
		if isImpure(imported) || imported == "net/http" {
			return []string{name, imported}
		}
		if chain := impureImport(packages, imported, seen); chain != nil {
			return append([]string{name}, chain...)
		}
	}
	return nil
}

func isImpure(name string) bool {
	for _, p := range impure {
		if strings.HasPrefix(name+"/", p+"/") {
			return true
		}
	}
	return false
}
