package enrich

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/lookup"
)

const (
	fieldCSV          = "csv"
	fieldKeyColumn    = "key_column"
	fieldDelimiter    = "delimiter"
	fieldMaxFileBytes = "max_file_bytes"
)

func csvField() *service.ConfigField {
	return service.NewObjectField(fieldCSV,
		service.NewStringField(fieldPath).
			Description("The path of the file. It must be in UTF-8, and its first line must contain the names of the columns.").
			Example("./configs/retail/products.csv").
			LintRule(`root = if this == "" { [ "path must name a file, such as ./products.csv" ] }`),
		service.NewStringField(fieldKeyColumn).
			Description("The name of the column with the key. Keys must be unique; rows without a key are ignored.").
			Example("product_id").
			LintRule(`root = if this == "" { [ "key_column must be the name of a column, such as product_id" ] }`),
		service.NewStringField(fieldDelimiter).
			Description("The separator of the fields of a line: one character, such as `;` or a tab.").
			Default(",").
			LintRule(`root = if this.string().length() != 1 { [ "delimiter must be one character, such as , or ;" ] }`),
		service.NewStringField(fieldMaxFileBytes).
			Description("The maximum size of the file. A larger file is not loaded.").
			Default("256MiB").
			Advanced(),
		reloadField(),
	).Description("A CSV file. A value is an object of the other columns, all of them strings. The file is kept in memory and reloaded when it changes.").
		Optional()
}

// table is the content of a CSV file.
type table struct {
	columns []string
	key     int
	rows    map[string][]string
}

var errNoHeader = errors.New("the file is empty: its first line must contain the names of the columns")

func parseTable(raw []byte, keyColumn string, delimiter rune) (table, error) {
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if !utf8.Valid(raw) {
		return table{}, errors.New("the file is not UTF-8")
	}
	r := csv.NewReader(bytes.NewReader(raw))
	r.Comma = delimiter
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return table{}, errNoHeader
	} else if err != nil {
		return table{}, csvError(err)
	}
	t := table{columns: header, key: slices.Index(header, keyColumn), rows: map[string][]string{}}
	if t.key < 0 {
		return table{}, fmt.Errorf("there is no column %q: set key_column to one of the names in the first line", keyColumn)
	}
	seen := map[string]bool{}
	for _, name := range header {
		if seen[name] {
			return table{}, errors.New("two columns have the same name")
		}
		seen[name] = true
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		} else if err != nil {
			return table{}, csvError(err)
		}
		key := row[t.key]
		if key == "" {
			continue
		}
		if _, duplicate := t.rows[key]; duplicate {
			line, _ := r.FieldPos(t.key)
			return table{}, fmt.Errorf("line %d repeats a key of an earlier line", line)
		}
		t.rows[key] = row
	}
}

// csvError returns a reader's error without content of the file.
func csvError(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %w", parse.Line, parse.Err)
	}
	return err
}

// row returns the row of a key as an object.
func (t table) row(key string) (map[string]any, bool) {
	row, ok := t.rows[key]
	if !ok {
		return nil, false
	}
	v := make(map[string]any, len(row))
	for i, field := range row {
		if i != t.key {
			v[t.columns[i]] = field
		}
	}
	return v, true
}

type csvProvider struct {
	*file[table]
	results results
}

func newCSV(conf *service.ParsedConfig, r results, reloaded func(error)) (*csvProvider, error) {
	var path, column, delimiter, size string
	var err error
	for _, field := range []struct {
		into *string
		name string
	}{{&path, fieldPath}, {&column, fieldKeyColumn}, {&delimiter, fieldDelimiter}, {&size, fieldMaxFileBytes}} {
		if *field.into, err = conf.FieldString(field.name); err != nil {
			return nil, err
		}
	}
	interval, err := conf.FieldDuration(fieldReloadInterval)
	if err != nil {
		return nil, err
	}
	maxBytes, err := parseSize(size)
	if err != nil {
		return nil, fmt.Errorf("max_file_bytes: %w", err)
	}
	comma, n := utf8.DecodeRuneInString(delimiter)
	if n != len(delimiter) || n == 0 || comma == '"' || comma == '\n' || comma == '\r' || comma == utf8.RuneError {
		return nil, errors.New("delimiter must be one character, such as , or ;: " + strconv.Quote(delimiter))
	}
	f, err := openFile(path, interval, int64(maxBytes), func(raw []byte) (table, error) {
		return parseTable(raw, column, comma)
	}, reloaded)
	if err != nil {
		return nil, err
	}
	return &csvProvider{f, r}, nil
}

// Lookup implements lookup.Provider.
func (p *csvProvider) Lookup(_ context.Context, keys []string) (map[string]lookup.Value, error) {
	t := p.get()
	values := make(map[string]lookup.Value, len(keys))
	for _, key := range keys {
		if row, ok := t.row(key); ok {
			p.results.put(values, key, row)
		}
	}
	return values, nil
}
