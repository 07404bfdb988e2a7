package main

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// release is the version in CHANGELOG.md that this tree leads to.
const release = "0.1.0"

// The commit and its date, set by the linker (see the Makefile). Without it
// they are what the Go tool recorded, if it did.
var commit, date string

// buildVersion returns the version, with the commit where it is known, and the
// commit's date.
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

// moduleVersion tells which version of a library was linked.
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
