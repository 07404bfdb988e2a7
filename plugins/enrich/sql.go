package enrich

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	_ "github.com/go-sql-driver/mysql" // registers mysql
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // registers pgx
	"github.com/redpanda-data/benthos/v4/public/service"
	_ "modernc.org/sqlite" // registers sqlite

	"github.com/connect-personalize/connect-personalize/plugins/engine/lookup"
)

const (
	fieldSQL    = "sql"
	fieldDriver = "driver"
	fieldDSN    = "dsn"
	fieldQuery  = "query"

	driverPostgres = "postgres"
	driverMySQL    = "mysql"
	driverSQLite   = "sqlite"

	keysMark = "{keys}"
)

func sqlField() *service.ConfigField {
	return service.NewObjectField(fieldSQL,
		service.NewStringAnnotatedEnumField(fieldDriver, map[string]string{
			driverPostgres: "PostgreSQL and compatible databases.",
			driverMySQL:    "MySQL and MariaDB.",
			driverSQLite:   "A SQLite file.",
		}).Description("The kind of database."),
		service.NewStringField(fieldDSN).
			Description("The connection string: `postgres://user:password@host:5432/database`, `user:password@tcp(host:3306)/database`, or the path of a file such as `file:./catalogue.db?mode=ro`.").
			Secret().
			Example("${CATALOGUE_DSN}").
			LintRule(`root = if this == "" { [ "dsn must be a connection string, such as postgres://user:password@host:5432/database" ] }`),
		service.NewStringField(fieldQuery).
			Description("The query. `{keys}` is replaced by the list of keys.").
			Example("SELECT sku, category, margin FROM products WHERE sku IN ({keys})").
			LintRule(`root = if this.string().split("{keys}").length() != 2 { [ "query must contain {keys} once: write for example SELECT sku, category FROM products WHERE sku IN ({keys})" ] }`),
		service.NewStringField(fieldKeyColumn).
			Description("The column of the result with the key. If several rows have the same key, the first one is used.").
			Example("sku").
			LintRule(`root = if this == "" { [ "key_column must be the name of a column of the result, such as sku" ] }`),
	).Description("An SQL database. A value is an object of the row's other columns. A call is one query.").Optional()
}

type sqlProvider struct {
	db            *sql.DB
	before, after string
	numbered      bool // placeholders are $1, not ?
	maxKeys       int
	keyColumn     string
	results       results
}

func newSQL(conf *service.ParsedConfig, r results, maxKeys, inFlight int) (*sqlProvider, error) {
	var driver, dsn, query, column string
	var err error
	for _, field := range []struct {
		into *string
		name string
	}{{&driver, fieldDriver}, {&dsn, fieldDSN}, {&query, fieldQuery}, {&column, fieldKeyColumn}} {
		if *field.into, err = conf.FieldString(field.name); err != nil {
			return nil, err
		}
	}
	before, after, ok := strings.Cut(query, keysMark)
	if !ok || strings.Contains(after, keysMark) {
		return nil, errors.New("sql.query must contain {keys} once")
	}
	name := driver
	if driver == driverPostgres {
		name = "pgx"
	}
	db, err := sql.Open(name, dsn)
	if err != nil {
		// The driver's error may contain the connection string.
		return nil, fmt.Errorf("sql.dsn is not a valid connection string for %s", driver)
	}
	db.SetMaxOpenConns(inFlight)
	db.SetMaxIdleConns(inFlight)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return &sqlProvider{
		db: db, before: before, after: after, numbered: driver == driverPostgres,
		maxKeys: maxKeys, keyColumn: column, results: r,
	}, nil
}

func (p *sqlProvider) close() { _ = p.db.Close() }

// statement returns the query for n keys. The number of placeholders is rounded up
// to a power of two, so that the database prepares few distinct statements.
func (p *sqlProvider) statement(n int) (query string, places int) {
	places = min(1<<bits.Len(uint(n-1)), max(p.maxKeys, n))
	var b strings.Builder
	b.WriteString(p.before)
	for i := range places {
		if i > 0 {
			b.WriteByte(',')
		}
		if p.numbered {
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(i + 1))
		} else {
			b.WriteByte('?')
		}
	}
	b.WriteString(p.after)
	return b.String(), places
}

// Lookup implements lookup.Provider.
func (p *sqlProvider) Lookup(ctx context.Context, keys []string) (map[string]lookup.Value, error) {
	query, places := p.statement(len(keys))
	args := make([]any, places)
	for i := range args {
		args[i] = keys[min(i, len(keys)-1)]
	}
	rows, err := p.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, sqlError(err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, sqlError(err)
	}
	keyIndex := slices.Index(columns, p.keyColumn)
	if keyIndex < 0 {
		return nil, failed("the result of the query has no column key_column")
	}
	values := make(map[string]lookup.Value, len(keys))
	fields := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range fields {
		into[i] = &fields[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, sqlError(err)
		}
		key := string(scalar(fields[keyIndex]))
		if _, duplicate := values[key]; duplicate || key == "" {
			continue
		}
		v := make(map[string]any, len(columns))
		for i, name := range columns {
			if i != keyIndex {
				v[name] = columnValue(fields[i])
			}
		}
		p.results.put(values, key, v)
	}
	if err := rows.Err(); err != nil {
		return nil, sqlError(err)
	}
	return values, nil
}

// columnValue converts a column's value to the types that mappings support.
func columnValue(v any) any {
	switch v := v.(type) {
	case []byte:
		if utf8.Valid(v) {
			return string(v)
		}
		return slices.Clone(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return v
}

// sqlError distinguishes a key that the database rejects from a failure.
func sqlError(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Class 22 contains data exceptions, such as a text for a numeric column.
		return &lookup.Error{Reason: "PostgreSQL answered " + pg.Code, Refused: strings.HasPrefix(pg.Code, "22")}
	}
	return err
}
