package enrich

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"

	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/lookup"
)

const fieldMMDB = "mmdb"

func mmdbField() *service.ConfigField {
	return service.NewObjectField(fieldMMDB,
		service.NewStringField(fieldPath).
			Description("The path of the file, such as GeoLite2-City.mmdb.").
			Example("${GEOIP_MMDB:./data/GeoLite2-City.mmdb}").
			LintRule(`root = if this == "" { [ "path must name a file, such as ./data/GeoLite2-City.mmdb" ] }`),
		service.NewStringField(fieldMaxFileBytes).
			Description("The maximum size of the file. A larger file is not loaded.").
			Default("1GiB").
			Advanced(),
		reloadField(),
	).Description("A file in MaxMind's format. The key is an IP address; the value is the record of its network. The file is kept in memory and reloaded when it changes.").
		Optional()
}

type mmdbProvider struct {
	*file[*maxminddb.Reader]
	results results
}

func newMMDB(conf *service.ParsedConfig, r results, reloaded func(error)) (*mmdbProvider, error) {
	path, err := conf.FieldString(fieldPath)
	if err != nil {
		return nil, err
	}
	size, err := conf.FieldString(fieldMaxFileBytes)
	if err != nil {
		return nil, err
	}
	maxBytes, err := parseSize(size)
	if err != nil {
		return nil, fmt.Errorf("max_file_bytes: %w", err)
	}
	interval, err := conf.FieldDuration(fieldReloadInterval)
	if err != nil {
		return nil, err
	}
	f, err := openFile(path, interval, int64(maxBytes), func(raw []byte) (*maxminddb.Reader, error) {
		reader, err := maxminddb.OpenBytes(raw)
		if err != nil {
			return nil, errors.New("the file is not in MaxMind's format, or is truncated")
		}
		return reader, nil
	}, reloaded)
	if err != nil {
		return nil, err
	}
	return &mmdbProvider{f, r}, nil
}

// Lookup implements lookup.Provider. A key that is not an IP address has no value.
func (p *mmdbProvider) Lookup(_ context.Context, keys []string) (map[string]lookup.Value, error) {
	reader := p.get()
	values := make(map[string]lookup.Value, len(keys))
	for _, key := range keys {
		addr, err := netip.ParseAddr(key)
		if err != nil {
			continue
		}
		found := reader.Lookup(addr.Unmap().WithZone(""))
		if !found.Found() && found.Err() == nil {
			continue
		}
		var v any
		if err := found.Decode(&v); err != nil {
			values[key] = lookup.Value{Refused: true}
			continue
		}
		p.results.put(values, key, plain(v))
	}
	return values, nil
}

// plain converts a decoded value to the types that mappings support.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, item := range v {
			v[name] = plain(item)
		}
	case []any:
		for i, item := range v {
			v[i] = plain(item)
		}
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case int32:
		return int64(v)
	case int:
		return int64(v)
	case float32:
		return float64(v)
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
		return float64(v)
	case *big.Int:
		return v.String()
	}
	return v
}
