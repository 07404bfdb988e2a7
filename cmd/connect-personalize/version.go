package main

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// release is the next version in CHANGELOG.md.
const release = "0.1.0"

// The commit and its date. The linker sets them (see the Makefile); otherwise they are
// those that the Go tool recorded, if any.
var commit, date string

// buildVersion returns the version, with the commit if it is known, and the date of
// the commit.
func buildVersion() (string, string) {
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value[:min(12, len(s.Value))]
			case "vcs.time":
				date = s.Value
			}
		}
	}
	if commit == "" {
		return release, "unknown"
	}
	return release + "+" + commit, date
}

// moduleVersion returns the linked version of a library.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return strings.TrimPrefix(m.Version, "v")
			}
		}
	}
	return "unknown"
}

func versionText() string {
	version, date := buildVersion()
	return fmt.Sprintf("%s %s\nDate: %s\nBenthos: %s\nRedpanda Connect: %s\n", name, version, date,
		moduleVersion("github.com/redpanda-data/benthos/v4"),
		moduleVersion("github.com/redpanda-data/connect/v4"))
}
