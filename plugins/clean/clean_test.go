package clean

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/stretchr/testify/require"
)

// run executes a mapping on a JSON document and returns the result as JSON.
func run(t *testing.T, mapping, input string) (string, error) {
	t.Helper()
	exec, err := bloblang.Parse(mapping)
	require.NoError(t, err, mapping)
	dec := json.NewDecoder(strings.NewReader(input))
	dec.UseNumber()
	var doc any
	require.NoError(t, dec.Decode(&doc))
	made, err := exec.Query(doc)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(made))
	return strings.TrimSpace(out.String()), nil
}

func TestDocumentedExamplesAreCorrect(t *testing.T) {
	t.Setenv("PERSONAL_DATA_KEY", "0123456789abcdef")
	ours := map[string]bool{}
	for _, m := range methods() {
		ours[m.name] = true
	}
	count := 0
	bloblang.GlobalEnvironment().WalkMethods(func(name string, view *bloblang.MethodView) {
		if !ours[name] {
			return
		}
		examples := view.TemplateData().Examples
		require.NotEmpty(t, examples, "%s has no example", name)
		for _, e := range examples {
			require.NotEmpty(t, e.Results, "an example of %s has no results", name)
			for _, result := range e.Results {
				count++
				got, err := run(t, e.Mapping, result[0])
				if rule, fails := strings.CutPrefix(result[1], `Error("`); fails {
					require.ErrorContains(t, err, strings.TrimSuffix(rule, `")`)+": ", "%s: %s", name, result[0])
					continue
				}
				require.NoError(t, err, "%s: %s", name, result[0])
				require.JSONEq(t, result[1], got, "%s: %s", name, result[0])
			}
		}
	})
	require.Greater(t, count, 40)
}

// An amount keeps its digits even if a float64 cannot represent them.
func TestAmountsAreExact(t *testing.T) {
	got, err := run(t, `root = this.clean_money("EUR").amount`, `"123.456.789.012.345.678,10"`)
	require.NoError(t, err)
	require.Equal(t, "123456789012345678.10", got)
	got, err = run(t, `root = this.clean_money("EUR").amount == 12.5 && this.clean_money("EUR").amount + 1 == 13.5`, `"12,50"`)
	require.NoError(t, err)
	require.Equal(t, "true", got)
	got, err = run(t, `root = this.clean_money(currency: "EUR", decimal: ",").amount`, `12.345`)
	require.NoError(t, err, "a JSON number uses a point independent of decimal")
	require.Equal(t, "12.345", got)
}

func TestInvalidArgumentsNameTheCorrection(t *testing.T) {
	for mapping, want := range map[string]string{
		`root = this.clean_timestamp(zone: "Berlin")`:  "Europe/Berlin",
		`root = this.clean_timestamp(order: "ymd")`:    "dmy, mdy",
		`root = this.clean_timestamp(layouts: "2006")`: "layouts must be a list",
		`root = this.clean_id("(")`:                    "RE2",
		`root = this.ip_in(["10.0.0.0/33"])`:           "10.0.0.0/8",
		`root = this.ip_in("10.0.0.0/8")`:              "networks must be a list",
		`root = this.email_in([1])`:                    "domains must be a list",
		`root = this.pseudonym(key_env: "")`:           "PERSONAL_DATA_KEY",
	} {
		_, err := bloblang.Parse(mapping)
		require.ErrorContains(t, err, want, mapping)
	}
}

// Values are personal data, and errors are logged.
func TestErrorsContainNoValue(t *testing.T) {
	for _, m := range methods() {
		call := map[string]string{"clean_id": `("[0-9]+")`, "email_in": `(["a.b"])`, "ip_in": `(["10.0.0.0/8"])`}[m.name]
		if call == "" {
			call = "()"
		}
		for _, input := range []string{`"secret-value"`, `["secret-value"]`, `{"secret-value":"secret-value"}`, `true`, `1e400`, `null`} {
			if _, err := run(t, "root = this."+m.name+call, input); err != nil {
				require.NotContains(t, err.Error(), "secret-value", m.name)
			}
		}
	}
}

func TestPseudonymNeedsItsKey(t *testing.T) {
	exec, err := bloblang.Parse(`root = this.pseudonym(key_env: "NO_SUCH_KEY")`)
	require.NoError(t, err, "a config can be linted without the key")
	_, err = exec.Query("jo@example.com")
	require.ErrorContains(t, err, "NO_SUCH_KEY")
	t.Setenv("NO_SUCH_KEY", "short-secret")
	_, err = exec.Query("jo@example.com")
	require.ErrorContains(t, err, "16 characters")
	require.NotContains(t, err.Error(), "short-secret")
	t.Setenv("NO_SUCH_KEY", "0123456789abcdef")
	got, err := exec.Query("jo@example.com")
	require.NoError(t, err)
	require.Equal(t, examplePseudonym, got)
}
