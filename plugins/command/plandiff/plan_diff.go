// Package plandiff implements the plan-diff command, which reports the breaking changes
// between two versions of a tracking plan.
package plandiff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/command/lint"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
)

const (
	flagDefinition = "definition"
	flagFormat     = "format"
)

// report is the JSON output of the command.
type report struct {
	Old         string                    `json:"old"`
	New         string                    `json:"new"`
	Breaking    bool                      `json:"breaking"`
	Differences []trackingplan.Difference `json:"differences"`
	// Definitions lists what the given definitions need and the new plan lacks.
	Definitions []finding.Finding `json:"definitions,omitempty"`
}

// Command returns the command, which reports whether a change of a tracking plan breaks
// the senders of events or the readers of profiles.
func Command(binary string) *cli.Command {
	return &cli.Command{
		Name:      "plan-diff",
		Usage:     "Compare two tracking plans and report what the change from one to the other breaks",
		ArgsUsage: "OLD NEW",
		Description: fmt.Sprintf(`
Exits with a status code 1 if the change breaks something, 2 if a plan cannot be
read, and 0 otherwise:

  %[1]s plan-diff old/plan.yaml ./configs/retail/plan.yaml
  %[1]s plan-diff --definition ./configs/retail/profile.yaml old/plan.yaml ./configs/retail/plan.yaml

A change breaks readers if an event or property is removed or can have values
that it could not have before. It breaks senders if an event that was valid is
now invalid. Profile definitions are checked against the new plan. In a git
repository, before a commit:

  git worktree add --detach /tmp/old HEAD
  %[1]s plan-diff /tmp/old/configs/retail/plan.yaml ./configs/retail/plan.yaml`, binary)[1:],
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: flagDefinition, Usage: "A profile definition to check against the new plan. Repeat the flag for several."},
			&cli.StringFlag{Name: flagFormat, Value: "text", Usage: "The format of the report: text or json."},
		},
		Action: func(c *cli.Context) error {
			breaking, err := comparePlans(c.Args().Slice(), c.StringSlice(flagDefinition), c.String(flagFormat), c.App.Writer)
			switch {
			case err != nil:
				return cli.Exit(err.Error(), 2)
			case breaking:
				return cli.Exit("", 1)
			}
			return nil
		},
	}
}

func comparePlans(plans, definitions []string, format string, out io.Writer) (breaking bool, err error) {
	if len(plans) != 2 {
		return false, errors.New("name two tracking plans, the old one and the new one, after the flags")
	}
	if format != "text" && format != "json" {
		return false, fmt.Errorf("--%s must be text or json", flagFormat)
	}
	var loaded [2]*trackingplan.Plan
	for i, path := range plans {
		if loaded[i], err = trackingplan.Load(path); err != nil {
			return false, err
		}
	}
	r := report{Old: planName(loaded[0]), New: planName(loaded[1]), Differences: trackingplan.Compare(loaded[0], loaded[1])}
	for _, path := range definitions {
		findings, err := lint.CheckDefinition(path, loaded[1])
		if err != nil {
			return false, err
		}
		r.Definitions = append(r.Definitions, findings...)
	}
	r.Breaking = len(r.Definitions) > 0
	for _, d := range r.Differences {
		r.Breaking = r.Breaking || d.Breaking()
	}
	if format == "json" {
		if r.Differences == nil {
			r.Differences = []trackingplan.Difference{}
		}
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return r.Breaking, enc.Encode(r)
	}
	counts := map[trackingplan.Affects]int{}
	for _, d := range r.Differences {
		counts[d.Affects]++
		label := "breaks " + string(d.Affects)
		if !d.Breaking() {
			label = "compatible"
		}
		if _, err := fmt.Fprintf(out, "%-14s  %s\n", label, d); err != nil {
			return false, err
		}
	}
	for _, f := range r.Definitions {
		if _, err := fmt.Fprintf(out, "%-14s  %s\n", "breaks readers", f); err != nil {
			return false, err
		}
	}
	_, err = fmt.Fprintf(out, "From %s to %s: %d for readers, %d for senders, %d compatible.\n", r.Old, r.New,
		counts[trackingplan.Readers]+len(r.Definitions), counts[trackingplan.Senders], counts[trackingplan.Compatible])
	return r.Breaking, err
}

func planName(p *trackingplan.Plan) string { return p.Name + " " + p.Version }
