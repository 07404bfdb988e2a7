package eventcollector

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
)

// The settings that SDKs load before they send. Analytics.js and the mobile SDKs of
// Segment request /v1/projects/{key}/settings, those of RudderStack /sourceConfig
// with the key as user name or in the query. Both contain only this collector as
// destination.
const (
	settingsPrefix = "/projects/"
	settingsSuffix = "/settings"
	sourceConfig   = "/sourceConfig"
)

// settingsKey returns the write key of a request for Segment's settings.
func settingsKey(path string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(path, "/v1"), settingsPrefix)
	if !ok {
		return "", false
	}
	key, ok = strings.CutSuffix(rest, settingsSuffix)
	return key, ok && key != "" && !strings.Contains(key, "/")
}

// serveSettings responds to GET of settings and reports whether the path is one.
func (c *collector) serveSettings(w http.ResponseWriter, r *http.Request, path string) bool {
	key, segment := settingsKey(path)
	if !segment {
		if path != sourceConfig {
			return false
		}
		var basic bool
		if key, basic = basicUser(r.Header.Get("Authorization")); !basic {
			key = r.URL.Query().Get("writeKey")
		}
	}
	const name = "settings"
	from, known := c.conf.keys.source([]byte(key))
	if !known {
		c.respond(w, name, failKey)
		return true
	}
	var settings any
	if segment {
		settings = c.segmentSettings(r, key)
	} else {
		settings = rudderSettings(from.name, key)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		c.respond(w, name, failPanic)
		return true
	}
	c.metrics.countRequest(name, http.StatusOK)
	setHeaders(w.Header())
	_, _ = w.Write(text)
	return true
}

type object = map[string]any

// segmentSettings has the members that analytics-next, analytics-kotlin and
// analytics-swift read.
func (c *collector) segmentSettings(r *http.Request, key string) object {
	scheme := "http"
	if r.TLS != nil || c.forwardedTLS(r) {
		scheme = "https"
	}
	enabled := object{"__default": object{"enabled": true, "integrations": object{}}}
	return object{
		"integrations": object{"Segment.io": object{
			"apiKey": key, "apiHost": r.Host + "/v1", "protocol": scheme,
			"unbundledIntegrations": []string{}, "addBundledMetadata": true, "maybeBundledConfigIds": object{},
			"versionSettings": object{"version": "4.4.7", "componentTypes": []string{"browser"}},
		}},
		"plan":               object{"track": enabled, "identify": enabled, "group": enabled},
		"edgeFunction":       object{},
		"middlewareSettings": object{},
		"enabledMiddleware":  object{},
		"remotePlugins":      []string{},
		// The SDK sends metrics of its own to /v1/m otherwise.
		"metrics":                   object{"sampleRate": 0},
		"analyticsNextEnabled":      true,
		"legacyVideoPluginsEnabled": false,
	}
}

// forwardedTLS reports whether a trusted proxy in front of the collector terminates
// TLS.
func (c *collector) forwardedTLS(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && r.Header.Get("X-Forwarded-Proto") == "https" && isProxy(peer.Addr().Unmap().WithZone(""), c.conf.proxies)
}

// rudderSettings has the members that RudderStack's browser and mobile SDKs read.
func rudderSettings(source, key string) object {
	const updatedAt = "2026-01-01T00:00:00.000Z"
	return object{
		"source": object{
			"id": source, "name": source, "writeKey": key, "enabled": true, "workspaceId": source,
			"config": object{"statsCollection": object{
				"errors": object{"enabled": false}, "metrics": object{"enabled": false},
			}},
			"destinations": []object{}, "connections": []object{}, "dataplanes": object{},
			"updatedAt": updatedAt,
		},
		"updatedAt": updatedAt,
	}
}
