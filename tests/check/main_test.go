package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSuiteOutcome(t *testing.T) {
	t.Setenv("SIZE", "")
	t.Setenv("GIVEN", "7")
	for _, c := range []struct {
		name    string
		suite   suite
		short   bool
		outcome outcome
		detail  string
	}{
		{"success", suite{run: "echo one; echo two; echo"}, false, passed, "two"},
		{"failure", suite{run: "echo one; exit 3"}, false, failed, "one"},
		{"failure without output", suite{run: "exit 3"}, false, failed, "exit status 3"},
		{"failure in the middle", suite{run: "false; echo two"}, false, failed, "exit status 1"},
		{"missing input", suite{run: "echo no file; exit 77"}, false, skipped, "no file"},
		{"missing tool", suite{run: "echo", needs: []string{"absent"}}, false, failed, "needs absent: apt-get install absent-deb"},
		{"default of the full form", suite{run: "echo $SIZE", settings: []setting{{"SIZE", "90", "2"}}}, false, passed, "90"},
		{"default of the short form", suite{run: "echo $SIZE", settings: []setting{{"SIZE", "90", "2"}}}, true, passed, "2"},
		{"value of the caller", suite{run: "echo $GIVEN", settings: []setting{{"GIVEN", "90", "2"}}}, true, passed, "7"},
		{"short command", suite{run: "exit 1", short: "echo less"}, true, passed, "less"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tools["absent"] = struct{ probe, deb string }{"command -v there-is-no-such-command", "absent-deb"}
			t.Cleanup(func() { delete(tools, "absent") })
			c.suite.minutes = 1
			r := c.suite.check(t.Context(), c.short, false)
			require.Equal(t, c.outcome, r.outcome)
			require.Equal(t, c.detail, r.detail)
		})
	}
}

func TestReportFailsIfASuiteFails(t *testing.T) {
	for _, c := range []struct {
		outcome  outcome
		required bool
		ok       bool
	}{{passed, true, true}, {failed, true, false}, {failed, false, false}, {skipped, false, true}, {skipped, true, false}} {
		var out bytes.Buffer
		require.Equal(t, c.ok, report(&out, []result{{"first", passed, time.Second, "", true}, {"second", c.outcome, time.Second, "detail", c.required}}))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		require.Regexp(t, fmt.Sprintf(`^second\s+%s\s+1\s+detail$`, c.outcome), lines[len(lines)-1])
	}
}

func TestChooseKeepsTheOrderOfNames(t *testing.T) {
	chosen, err := choose("soak,lint")
	require.NoError(t, err)
	require.Equal(t, "soak", chosen[0].name)
	require.Equal(t, "lint", chosen[1].name)
	_, err = choose("soak,sock")
	require.ErrorContains(t, err, `no suite "sock"`)
}

// The commands of suites are not run here, but their scripts must exist and each
// setting must be used.
func TestSuitesNameExistingScriptsAndSettings(t *testing.T) {
	for _, s := range suites {
		require.NotEmpty(t, s.proves, s.name)
		require.Positive(t, s.minutes, s.name)
		for _, need := range s.needs {
			require.Contains(t, tools, need, s.name)
		}
		for word := range strings.FieldsSeq(s.run + " " + s.short) {
			if strings.HasPrefix(word, "tests/") || strings.HasPrefix(word, "./tests/") {
				_, err := os.Stat("../../" + word)
				require.NoError(t, err, s.name)
			}
		}
		require.NoError(t, exec.Command("bash", "-n", "-c", s.run).Run(), s.name)
	}
}
