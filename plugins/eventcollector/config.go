package eventcollector

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

type config struct {
	address           string
	keys              writeKeys
	certFile, keyFile string
	origins           origins
	proxies           []netip.Prefix
	timeout           time.Duration
	retryAfter        time.Duration
	limits            limits
}

type limits struct {
	eventBytes, batchBytes, batchEvents               int
	depth, idBytes                                    int
	inFlight, bufferedBytes, connections, headerBytes int
	headerTimeout, readTimeout, idleTimeout           time.Duration
	customerRate                                      float64
}

// sourceName is the syntax of source names. They need no escape in JSON.
var sourceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// parseConfig repeats the checks of the lint rules, because a pipeline may run
// without linting.
func parseConfig(conf *service.ParsedConfig) (c config, err error) {
	if c.address, err = conf.FieldString(fieldAddress); err != nil {
		return c, err
	}
	host, _, err := net.SplitHostPort(c.address)
	if err != nil {
		return c, fmt.Errorf("%s must be a host and a port such as 127.0.0.1:8080: %w", fieldAddress, err)
	}
	if c.keys, err = parseWriteKeys(conf); err != nil {
		return c, err
	}
	if len(c.keys.keys) == 0 && !c.keys.anonymous {
		return c, errors.New(lintNoKeys)
	}
	if c.keys.anonymous && !isLoopback(host) {
		return c, errors.New(lintAnonymousLoopback)
	}

	if c.certFile, err = conf.FieldString(fieldTLS, fieldCertFile); err != nil {
		return c, err
	}
	if c.keyFile, err = conf.FieldString(fieldTLS, fieldKeyFile); err != nil {
		return c, err
	}
	if (c.certFile == "") != (c.keyFile == "") {
		return c, fmt.Errorf("%s needs both %s and %s, or neither", fieldTLS, fieldCertFile, fieldKeyFile)
	}
	patterns, err := conf.FieldStringList(fieldCORS, fieldAllowedOrigins)
	if err != nil {
		return c, err
	}
	if c.origins, err = parseOrigins(patterns); err != nil {
		return c, err
	}
	proxies, err := conf.FieldStringList(fieldTrustedProxies)
	if err != nil {
		return c, err
	}
	if c.proxies, err = parseProxies(proxies); err != nil {
		return c, err
	}

	for _, f := range []struct {
		into *time.Duration
		path []string
	}{
		{&c.timeout, []string{fieldTimeout}},
		{&c.retryAfter, []string{fieldRetryAfter}},
		{&c.limits.headerTimeout, []string{fieldLimits, fieldHeaderTimeout}},
		{&c.limits.readTimeout, []string{fieldLimits, fieldReadTimeout}},
		{&c.limits.idleTimeout, []string{fieldLimits, fieldIdleTimeout}},
	} {
		if *f.into, err = conf.FieldDuration(f.path...); err != nil {
			return c, err
		}
		if *f.into <= 0 {
			return c, fmt.Errorf("%s must be more than 0", f.path[len(f.path)-1])
		}
	}
	if c.limits.customerRate, err = conf.FieldFloat(fieldLimits, fieldCustomerRate); err != nil {
		return c, err
	}
	if c.limits.customerRate < 0 {
		return c, fmt.Errorf("%s.%s must be 0 for no limit, or more", fieldLimits, fieldCustomerRate)
	}
	for _, f := range []struct {
		into *int
		name string
	}{
		{&c.limits.eventBytes, fieldEventBytes},
		{&c.limits.batchBytes, fieldBatchBytes},
		{&c.limits.batchEvents, fieldBatchEvents},
		{&c.limits.depth, fieldDepth},
		{&c.limits.idBytes, fieldIDBytes},
		{&c.limits.inFlight, fieldInFlight},
		{&c.limits.bufferedBytes, fieldBufferedBytes},
		{&c.limits.connections, fieldConnections},
		{&c.limits.headerBytes, fieldHeaderBytes},
	} {
		if *f.into, err = conf.FieldInt(fieldLimits, f.name); err != nil {
			return c, err
		}
		if *f.into < 1 {
			return c, fmt.Errorf("%s.%s must be at least 1", fieldLimits, f.name)
		}
	}
	return c, nil
}

func parseWriteKeys(conf *service.ParsedConfig) (keys writeKeys, err error) {
	if keys.anonymous, err = conf.FieldBool(fieldAllowAnonymous); err != nil {
		return keys, err
	}
	if keys.anonymousSource.name, err = conf.FieldString(fieldAnonymousSource); err != nil {
		return keys, err
	}
	if !sourceName.MatchString(keys.anonymousSource.name) {
		return keys, fmt.Errorf("%s must be 1 to 64 letters, digits, dots, dashes and underscores", fieldAnonymousSource)
	}
	entries, err := conf.FieldObjectList(fieldWriteKeys)
	if err != nil {
		return keys, err
	}
	for i, entry := range entries {
		key, err := entry.FieldString(fieldKey)
		if err != nil {
			return keys, err
		}
		var from source
		if from.name, err = entry.FieldString(fieldSource); err != nil {
			return keys, err
		}
		if from.serverSide, err = entry.FieldBool(fieldServerSide); err != nil {
			return keys, err
		}
		rate, err := entry.FieldFloat(fieldKeyRate)
		if err != nil {
			return keys, err
		}
		if rate < 0 {
			return keys, fmt.Errorf("%s[%d]: %s must be 0 for no limit, or more", fieldWriteKeys, i, fieldKeyRate)
		}
		if rate > 0 {
			from.rate = &keyRate{rate: rate}
		}
		if key == "" {
			return keys, fmt.Errorf("%s[%d]: the key is empty: set its environment variable", fieldWriteKeys, i)
		}
		if !sourceName.MatchString(from.name) {
			return keys, fmt.Errorf("%s[%d]: source must be 1 to 64 letters, digits, dots, dashes and underscores", fieldWriteKeys, i)
		}
		if !keys.add(key, from) {
			return keys, fmt.Errorf("%s[%d]: an earlier entry has the same key: use one key for one source", fieldWriteKeys, i)
		}
	}
	return keys, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
