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
			driverPostgres: "PostgreSQL, and what speaks its protocol.",
			driverMySQL:    "MySQL and MariaDB.",
			driverSQLite:   "A file of SQLite.",
		}).Description("The kind of database."),
		service.NewStringField(fieldDSN).
			Description("How to reach it: `postgres://user:password@host:5432/database`, `user:password@tcp(host:3306)/database`, or the path of a file such as `file:./catalogue.db?mode=ro`.").
			Secret().
			Example("${CATALOGUE_DSN}").
			LintRule(`root = if this == "" { [ "dsn must say how to reach the database, such as postgres://user:password@host:5432/database" ] }`),
		service.NewStringField(fieldQuery).
			Description("The query, in which `{keys}` stands for the list of keys.").
			Example("SELECT sku, category, margin FROM products WHERE sku IN ({keys})").
			LintRule(`root = if this.string().split("{keys}").length() != 2 { [ "query must have {keys} once, for the keys: write for example SELECT sku, category FROM products WHERE sku IN ({keys})" ] }`),
		service.NewStringField(fieldKeyColumn).
			Description("The column of the result that holds the key. If several rows have the same, the first counts.").
			Example("sku").
			LintRule(`root = if this == "" { [ "key_column must be the name of a column of the result, such as sku" ] }`),
	).Description("An SQL database. A value is an object of the row's other columns. The keys of a call are one query.").Optional()
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
		return nil, errors.New("sql.query must have {keys} once, for the keys")
	}
	name := driver
	if driver == driverPostgres {
		name = "pgx"
	}
	db, err := sql.Open(name, dsn)
	if err != nil {
		// The driver's error may repeat what it was given.
		return nil, fmt.Errorf("sql.dsn is not of the form that %s takes", driver)
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

// statement is the query for n keys, filled up to a power of two so that the
// database sees few different ones.
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
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, sqlError(err)
	}
	at := slices.Index(columns, p.keyColumn)
	if at < 0 {
		return nil, failed("the result of the query has no column as key_column says")
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
		key := string(scalar(fields[at]))
		if _, twice := values[key]; twice || key == "" {
			continue
		}
		v := make(map[string]any, len(columns))
		for i, name := range columns {
			if i != at {
				v[name] = fieldOf(fields[i])
			}
		}
		p.results.put(values, key, v)
	}
	if err := rows.Err(); err != nil {
		return nil, sqlError(err)
	}
	return values, nil
}

// fieldOf makes of a column's value one that mappings know.
func fieldOf(v any) any {
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

// sqlError tells a key that the database cannot make sense of from a failure.
func sqlError(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// 22 is the class of data exceptions, such as a text that is no
		// number for a column of numbers.
		return &lookup.Error{Reason: "PostgreSQL answered " + pg.Code, Refused: strings.HasPrefix(pg.Code, "22")}
	}
	return err
}
