package enrich_test

import (
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

func TestLintsNameTheCorrection(t *testing.T) {
	const csv = "csv: { path: a.csv, key_column: sku }"
	for name, c := range map[string]struct{ fields, want string }{
		"no source":        {"", "write one of http, redis, sql, csv, mmdb"},
		"two sources":      {csv + "\nmmdb: { path: a.mmdb }", "keep one of csv, mmdb, and write a second enrich"},
		"budget":           {"http: { url: 'http://a/${! this.key }' }\ntimeout: 2s", "write budget: 2s or more"},
		"no default":       {csv + "\non_absent: default", "write default, such as default: {}"},
		"unused default":   {csv + "\ndefault: {}", "default is not used"},
		"no effect":        {csv + "\ntarget: none", "write traits: { enabled: true }"},
		"target":           {csv + "\ntarget: a..b", "target must be keys joined by dots"},
		"name":             {csv + "\nname: a-b", "name must be letters, digits and _"},
		"policy":           {csv + "\non_failure: drop", "drop"},
		"no timeout":       {csv + "\ntimeout: 0s", "write for example 500ms"},
		"cache size":       {csv + "\ncache: { max_bytes: much }", "max_bytes must be a size such as 64MiB"},
		"url":              {"http: { url: 'ftp://a/${! this.key }' }", "url must begin with http:// or https://"},
		"body of a get":    {"http: { url: 'http://a/', request: root = this.key }", "write verb: POST"},
		"no response":      {"http: { url: 'http://a/${! this.keys.join(\",\") }', bulk: true }", "write response, such as"},
		"no key":           {"http: { url: 'http://a/' }", "write it into the url as ${! this.key }"},
		"two tokens":       {"http: { url: 'http://a/${! this.key }', bearer_token: a, basic_auth: { username: b } }", "keep one of bearer_token, basic_auth and oauth2"},
		"redis url":        {"redis: { url: 127.0.0.1 }", "write for example redis://127.0.0.1:6379"},
		"query":            {"sql: { driver: sqlite, dsn: a.db, query: SELECT 1, key_column: a }", "query must contain {keys} once"},
		"delimiter":        {"csv: { path: a.csv, key_column: sku, delimiter: ',,' }", "delimiter must be one character"},
		"an unknown field": {csv + "\nttl: 1m", "ttl"},
	} {
		t.Run(name, func(t *testing.T) {
			fields := "key: this.userId\n"
			if !strings.Contains(c.fields, "name:") {
				fields += "name: product\n"
			}
			yaml := "enrich:\n  " + strings.ReplaceAll(fields+c.fields, "\n", "\n  ") + "\n"
			err := service.NewStreamBuilder().AddProcessorYAML(yaml)
			require.ErrorContains(t, err, c.want)
		})
	}
}
