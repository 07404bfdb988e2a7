package trackingplan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func mustCompile(t require.TestingT, schema any, draft *jsonschema.Draft) *program {
	p, err := compileSchema(t, schema, draft)
	require.NoError(t, err)
	return p
}

// compileSchema compiles a schema like a plan does, without a file.
func compileSchema(t require.TestingT, schema any, draft *jsonschema.Draft) (*program, error) {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(draft)
	c.AssertFormat()
	c.RegisterFormat(strictEmail)
	c.RegisterFormat(internationalEmail)
	require.NoError(t, c.AddResource("schema.json", schema))
	s, err := c.Compile("schema.json")
	if err != nil {
		return nil, err
	}
	return newProgram(s), nil
}

// agree compares our evaluator with the library for one value, and reports whether ours
// was sure.
func agree(t require.TestingT, p *program, value []byte) bool {
	s := &scratch{}
	v, fault := s.reader.read(value, MaxMaxDepth)
	require.Nil(t, fault, "%s", value)
	generic, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	require.NoError(t, err)
	want := p.lib.Validate(generic) == nil
	got := p.valid(&s.evaluator, v)
	if p.fast == nil || s.evaluator.unsure {
		require.False(t, got)
		return false
	}
	require.Equal(t, want, got, "%s", value)
	return true
}

// Schemas and instances are made of few values, so that they often match.
var (
	genName   = rapid.SampledFrom([]string{"a", "b", "ab", "aé", "", "a.b", "a\\b", "x", "y"})
	genString = rapid.SampledFrom([]string{
		"", "a", "ab", "é", "😀", "😀é", "abc", "a\"\\\n", "1", "1.0", "true", "a@b.c", "a@b", "@b.c", "a..b@c.d", "x.y-z_1+t@mail.example.com",
		"2026-01-31", "2026-02-30", "2024-02-29", "2026-13-01", "2026-01-31T08:30:00Z", "2026-01-31T08:30:00.5+01:00", "2026-01-31t08:30:00z",
		"2026-01-31T23:59:60Z", "2026-01-31T24:00:00Z", "2026-01-31T08:30:00.Z", "2026-01-31T08:30:00+25:00", "192.0.2.1", "550e8400-e29b-41d4-a716-446655440000",
	})
	genNumber = rapid.SampledFrom([]string{
		"0", "-0", "0.0", "1", "1.0", "1e0", "10e-1", "0.1e1", "-1", "2", "3", "0.5", "0.50", "5e-1", "0.01", "0.015", "1.5", "19.99", "100", "1e2", "1E+2",
		"123456789012345678", "1234567890123456789", "12345678901234567890", "12345678901234567891", "0.1234567890123456789", "9007199254740993",
		"1e300", "-1e300", "1e-300", "1.7976931348623157e308", "5e-324", "0e400", "1e-400", "99999999999999999999999999", "3.3333333333333335",
	})
	genFormat  = rapid.SampledFrom([]string{"date-time", "date", "email", "ipv4", "uuid", "regex", "uri", "unknown"})
	genPattern = rapid.SampledFrom([]string{"^a", "b$", "é", "^$", "[0-9]+", ".", "^.$"})
	genType    = rapid.SampledFrom(typeNames)
)

func genValue(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		most := 6
		if depth <= 0 {
			most = 4
		}
		switch rapid.IntRange(0, most).Draw(t, "kind of value") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return genString.Draw(t, "string")
		case 3, 4:
			return json.Number(genNumber.Draw(t, "number"))
		case 5:
			return rapid.SliceOfN(genValue(depth-1), 0, 4).Draw(t, "array")
		default:
			return rapid.MapOfN(genName, genValue(depth-1), 0, 5).Draw(t, "object")
		}
	})
}

var genCount = rapid.Custom(func(t *rapid.T) any { return json.Number(fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "count"))) })

// keywords generates values of keywords, for schemas of this nesting depth.
var keywords map[string]func(t *rapid.T, depth int, draft7 bool) any

func init() {
	keywords = map[string]func(t *rapid.T, depth int, draft7 bool) any{
		"type": func(t *rapid.T, _ int, _ bool) any {
			if rapid.Bool().Draw(t, "one") {
				return genType.Draw(t, "type")
			}
			return anySlice(rapid.SliceOfNDistinct(genType, 1, 3, rapid.ID).Draw(t, "types"))
		},
		"const": func(t *rapid.T, _ int, _ bool) any { return genValue(2).Draw(t, "const") },
		"enum": func(t *rapid.T, _ int, _ bool) any {
			if rapid.Bool().Draw(t, "strings") {
				return anySlice(rapid.SliceOfNDistinct(genString, 1, 12, rapid.ID).Draw(t, "enum"))
			}
			return rapid.SliceOfN(genValue(1), 1, 4).Draw(t, "enum")
		},
		"format":               func(t *rapid.T, _ int, _ bool) any { return genFormat.Draw(t, "format") },
		"pattern":              func(t *rapid.T, _ int, _ bool) any { return genPattern.Draw(t, "pattern") },
		"minLength":            drawCount,
		"maxLength":            drawCount,
		"minItems":             drawCount,
		"maxItems":             drawCount,
		"minProperties":        drawCount,
		"maxProperties":        drawCount,
		"minContains":          drawCount,
		"maxContains":          drawCount,
		"minimum":              drawNumber,
		"maximum":              drawNumber,
		"exclusiveMinimum":     drawNumber,
		"exclusiveMaximum":     drawNumber,
		"multipleOf":           drawMultiple,
		"uniqueItems":          func(t *rapid.T, _ int, _ bool) any { return true },
		"required":             func(t *rapid.T, _ int, _ bool) any { return someNames(t) },
		"properties":           schemaMap,
		"patternProperties":    patternMap,
		"additionalProperties": oneSchema,
		"propertyNames":        oneSchema,
		"contains":             oneSchema,
		"not":                  oneSchema,
		"if":                   oneSchema,
		"then":                 oneSchema,
		"else":                 oneSchema,
		"allOf":                schemaList,
		"anyOf":                schemaList,
		"oneOf":                schemaList,
		"prefixItems":          schemaList,
		"items": func(t *rapid.T, depth int, draft7 bool) any {
			if draft7 && rapid.Bool().Draw(t, "list") {
				return schemaList(t, depth, draft7)
			}
			return oneSchema(t, depth, draft7)
		},
		"additionalItems":   oneSchema,
		"dependentSchemas":  schemaMap,
		"dependentRequired": func(t *rapid.T, _ int, _ bool) any { return map[string]any{genName.Draw(t, "name"): someNames(t)} },
		"dependencies": func(t *rapid.T, depth int, draft7 bool) any {
			return map[string]any{genName.Draw(t, "name"): someNames(t), genName.Draw(t, "name"): oneSchema(t, depth, draft7)}
		},
		"$ref": func(t *rapid.T, _ int, _ bool) any {
			return rapid.SampledFrom([]string{"#/definitions/d", "#/definitions/e"}).Draw(t, "ref")
		},
		"unevaluatedProperties": oneSchema,
	}
}

func anySlice[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

func someNames(t *rapid.T) any {
	return anySlice(rapid.SliceOfNDistinct(genName, 0, 3, rapid.ID).Draw(t, "names"))
}
func drawCount(t *rapid.T, _ int, _ bool) any  { return genCount.Draw(t, "count") }
func drawNumber(t *rapid.T, _ int, _ bool) any { return json.Number(genNumber.Draw(t, "number")) }
func drawMultiple(t *rapid.T, _ int, _ bool) any {
	return json.Number(rapid.SampledFrom([]string{"1", "2", "0.01", "0.5", "0.015", "3", "1e-30", "1e30", "12345678901234567891", "0.1234567890123456789"}).Draw(t, "multiple"))
}
func oneSchema(t *rapid.T, depth int, draft7 bool) any { return drawSchema(t, depth-1, draft7) }
func schemaList(t *rapid.T, depth int, draft7 bool) any {
	list := make([]any, rapid.IntRange(1, 3).Draw(t, "length"))
	for i := range list {
		list[i] = drawSchema(t, depth-1, draft7)
	}
	return list
}
func schemaMap(t *rapid.T, depth int, draft7 bool) any {
	m := map[string]any{}
	for range rapid.IntRange(1, 5).Draw(t, "length") {
		m[genName.Draw(t, "name")] = drawSchema(t, depth-1, draft7)
	}
	return m
}
func patternMap(t *rapid.T, depth int, draft7 bool) any {
	return map[string]any{genPattern.Draw(t, "pattern"): drawSchema(t, depth-1, draft7)}
}

func drawSchema(t *rapid.T, depth int, draft7 bool) any {
	if depth <= 0 || rapid.IntRange(0, 9).Draw(t, "boolean schema") == 0 {
		return rapid.IntRange(0, 3).Draw(t, "bool") > 0
	}
	s := map[string]any{}
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(sortedKeys(keywords)), 1, 4, rapid.ID).Draw(t, "keywords") {
		if k == "unevaluatedProperties" && rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
			continue
		}
		s[k] = keywords[k](t, depth, draft7)
	}
	if _, ok := s["if"]; ok && rapid.Bool().Draw(t, "whole condition") {
		s["then"], s["else"] = oneSchema(t, depth, draft7), oneSchema(t, depth, draft7)
	}
	return s
}

// TestEvaluatorAgreesWithLibrary is the model test: for any schema and value, our
// evaluator agrees with the library.
func TestEvaluatorAgreesWithLibrary(t *testing.T) {
	known, valid := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		draft7 := rapid.Bool().Draw(t, "draft-07")
		draft := jsonschema.Draft2020
		if draft7 {
			draft = jsonschema.Draft7
		}
		root, ok := drawSchema(t, 4, draft7).(map[string]any)
		if !ok {
			root = map[string]any{}
		}
		root["definitions"] = map[string]any{"d": drawSchema(t, 2, draft7), "e": drawSchema(t, 2, draft7)}
		schema, err := json.Marshal(root)
		require.NoError(t, err)
		t.Log("schema:", string(schema))
		p, err := compileSchema(t, mustUnmarshal(t, schema), draft)
		if err != nil {
			t.Skip("not a valid schema, such as one with equal values in an enum")
		}
		for range 8 {
			value, err := json.Marshal(genValue(3).Draw(t, "value"))
			require.NoError(t, err)
			if agree(t, p, value) {
				known++
				if p.lib.Validate(mustUnmarshal(t, value)) == nil {
					valid++
				}
			}
		}
	})
	require.NotZero(t, known)
	require.NotZero(t, valid)
	t.Logf("our evaluator knew the answer %d times, and it was yes %d times", known, valid)
}

func mustUnmarshal(t require.TestingT, data []byte) any {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	require.NoError(t, err)
	return v
}

// TestDecimal compares decimals with exact arithmetic.
func TestDecimal(t *testing.T) {
	literal := rapid.OneOf(
		genNumber,
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,2})?`),
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?`),
	)
	both := 0
	rapid.Check(t, func(t *rapid.T) {
		a, b := literal.Draw(t, "a"), literal.Draw(t, "b")
		if scanNumber([]byte(a)) != numberFine || scanNumber([]byte(b)) != numberFine {
			t.Skip()
		}
		x, xok := parseDecimal([]byte(a))
		y, yok := parseDecimal([]byte(b))
		ra, rb := rat([]byte(a)), rat([]byte(b))
		if xok {
			require.Equal(t, ra.IsInt(), x.isInteger())
			if d, ok := decimalOf(ra); ok {
				require.Equal(t, x, d)
			}
		}
		if !xok || !yok {
			return
		}
		both++
		require.Equal(t, ra.Cmp(rb), x.compare(y))
		require.Equal(t, ra.Cmp(rb) == 0, x == y)
		if rb.Sign() > 0 {
			if is, known := x.multipleOf(y); known {
				require.Equal(t, new(big.Rat).Quo(ra, rb).IsInt(), is)
			}
		}
	})
	require.NotZero(t, both)
}

// TestPropertyTable compares the table with a map.
func TestPropertyTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.OneOf(genName, rapid.StringMatching(`[ab_]{0,6}`), rapid.String()), rapid.ID[string]).Draw(t, "names")
		m := map[string]property{}
		for i, name := range names {
			m[name] = property{bit: uint64(i + 1)}
		}
		table := newPropertyTable(m)
		for name, want := range m {
			require.Equal(t, want, table.get([]byte(name)))
		}
		other := rapid.String().Draw(t, "other")
		require.Equal(t, m[other], table.get([]byte(other)))
	})
}

func TestUnsupportedKeywordsUseTheLibrary(t *testing.T) {
	for schema, fast := range map[string]bool{
		`{"properties":{"a":{"type":"string"}}}`:                    true,
		`{"$ref":"#/$defs/a","$defs":{"a":{"items":{"$ref":"#"}}}}`: true,
		`{"properties":{"a":{"unevaluatedProperties":false}}}`:      false,
		`{"items":{"unevaluatedItems":false}}`:                      false,
		`{"$dynamicRef":"#a","$defs":{"a":{"$dynamicAnchor":"a"}}}`: false,
		`{"$ref":"#"}`: false,
		`{"anyOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"not":{"$ref":"#"}}}}`:                                                             false,
		`{"$ref":"#/$defs/old","$defs":{"old":{"$schema":"http://json-schema.org/draft-04/schema#","id":"old","$id":"old","minimum":1}}}`: false,
	} {
		p := mustCompile(t, mustUnmarshal(t, []byte(schema)), jsonschema.Draft2020)
		require.Equal(t, fast, p.fast != nil, schema)
		for _, value := range []string{`{}`, `{"a":"x"}`, `{"a":1}`, `{"a":{"b":1}}`, `[[1]]`, `0`} {
			agree(t, p, []byte(value))
		}
	}
}

// TestUnsureIsNotInvalid checks that an unsure result does not count as invalid, which "not"
// would turn into valid.
func TestUnsureIsNotInvalid(t *testing.T) {
	list := make([]int, manyItems+1)
	for i := range list {
		list[i] = i
	}
	value, err := json.Marshal(list)
	require.NoError(t, err)
	for _, schema := range []string{`{"uniqueItems":true}`, `{"not":{"uniqueItems":true}}`} {
		p := mustCompile(t, mustUnmarshal(t, []byte(schema)), jsonschema.Draft2020)
		require.NotNil(t, p.fast)
		require.False(t, agree(t, p, value), schema)
		require.True(t, agree(t, p, []byte(`[1,2]`)))
		require.True(t, agree(t, p, []byte(`[1,1.0]`)))
	}
}

// TestManyRequiredProperties exceeds the number of required properties that a visit can record.
func TestManyRequiredProperties(t *testing.T) {
	required, properties, event := []any{}, map[string]any{}, map[string]any{}
	for i := range 70 {
		name := fmt.Sprint("p", i)
		required = append(required, name)
		properties[name] = map[string]any{"type": "number"}
		event[name] = i
	}
	p := mustCompile(t, map[string]any{"required": required, "properties": properties}, jsonschema.Draft2020)
	whole, err := json.Marshal(event)
	require.NoError(t, err)
	require.True(t, agree(t, p, whole))
	delete(event, "p69")
	part, err := json.Marshal(event)
	require.NoError(t, err)
	require.True(t, agree(t, p, part))
}

// TestPlainFormats compares the quick checks of formats with the library: it must
// accept every string that they accept.
func TestPlainFormats(t *testing.T) {
	formats := map[string]struct {
		plain   func([]byte) bool
		strings *rapid.Generator[string]
	}{
		"email":     {plainEmail, rapid.StringMatching(`[a-b0_.+@-]{0,5}@?([a-b0_-]{0,3}\.?){0,3}|a{60,66}@b|a@b{60,66}|a@[b-]{1,3}\.[b-]{1,3}|a@(b{50}\.){4,6}`)},
		"date":      {func(s []byte) bool { return len(s) == 10 && plainDate(s) }, rapid.StringMatching(`[0-9]{4}[-/][0-1][0-9]-[0-3][0-9].?`)},
		"date-time": {plainDateTime, rapid.StringMatching(`[0-9]{3}[0-9x]-[0-1][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,3})?([Zz]|[+-][0-2][0-9]:?[0-6][0-9])?`)},
	}
	for name, format := range formats {
		p := mustCompile(t, map[string]any{"format": name}, jsonschema.Draft7)
		taken := 0
		rapid.Check(t, func(t *rapid.T) {
			for range 50 {
				s := format.strings.Draw(t, name)
				if format.plain([]byte(s)) {
					taken++
					require.NoError(t, p.lib.Validate(s), "%q", s)
				}
			}
		})
		require.NotZero(t, taken, name)
	}
}
