package lint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
)

const (
	flagDefinition = "definition"
	flagFormat     = "format"
)

// planDiff is what plan-diff prints as JSON.
type planDiff struct {
	Old         string                    `json:"old"`
	New         string                    `json:"new"`
	Breaking    bool                      `json:"breaking"`
	Differences []trackingplan.Difference `json:"differences"`
	// Definitions are what the definitions ask for and the new plan does not
	// have.
	Definitions []definitionLint `json:"definitions,omitempty"`
}

type definitionLint struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// PlanDiffCommand returns the command that tells whether a change of a tracking
// plan breaks those who send events, or who read them.
func PlanDiffCommand(binary string) *cli.Command {
	return &cli.Command{
		Name:      "plan-diff",
		Usage:     "Compare two tracking plans and report what the change from one to the other breaks",
		ArgsUsage: "OLD NEW",
		Description: fmt.Sprintf(`
Exits with a status code 1 if the change breaks something, 2 if a plan cannot be
read, and 0 otherwise:

  %[1]s plan-diff old/plan.yaml ./configs/retail/plan.yaml
  %[1]s plan-diff --definition ./configs/retail/profile.yaml old/plan.yaml ./configs/retail/plan.yaml

It breaks readers where events or properties are gone or may be something else
than before, and senders where events that were valid are not any more. The
definition of profiles is held against the new plan. In a git repository, before
a commit:

  git worktree add --detach /tmp/old HEAD
  %[1]s plan-diff /tmp/old/configs/retail/plan.yaml ./configs/retail/plan.yaml`, binary)[1:],
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: flagDefinition, Usage: "A profile definition to hold against the new plan; may be given several times."},
			&cli.StringFlag{Name: flagFormat, Value: "text", Usage: "The form of the report: text or json."},
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
		return false, errors.New("name two tracking plans, the old one and the new one, behind the flags")
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
	report := planDiff{Old: planName(loaded[0]), New: planName(loaded[1]), Differences: trackingplan.Compare(loaded[0], loaded[1])}
	for _, path := range definitions {
		root, ok := readYAML(path)
		if !ok {
			return false, fmt.Errorf("%s: is no YAML file that can be read", path)
		}
		c := checker{plans: loaded[1:], file: path}
		c.definition(root)
		for _, l := range c.lints {
			report.Definitions = append(report.Definitions, definitionLint{l.Path, l.Line, l.What})
		}
	}
	report.Breaking = len(report.Definitions) > 0
	for _, d := range report.Differences {
		report.Breaking = report.Breaking || d.Breaking()
	}
	if format == "json" {
		if report.Differences == nil {
			report.Differences = []trackingplan.Difference{}
		}
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return report.Breaking, enc.Encode(report)
	}
	counts := map[trackingplan.Affects]int{}
	for _, d := range report.Differences {
		counts[d.Affects]++
		label := "breaks " + string(d.Affects)
		if !d.Breaking() {
			label = "compatible"
		}
		if _, err := fmt.Fprintf(out, "%-14s  %s\n", label, d); err != nil {
			return false, err
		}
	}
	for _, l := range report.Definitions {
		if _, err := fmt.Fprintf(out, "%-14s  %s:%d: %s\n", "breaks readers", l.File, l.Line, l.Message); err != nil {
			return false, err
		}
	}
	_, err = fmt.Fprintf(out, "From %s to %s: %d for readers, %d for senders, %d compatible.\n", report.Old, report.New,
		counts[trackingplan.Readers]+len(report.Definitions), counts[trackingplan.Senders], counts[trackingplan.Nobody])
	return report.Breaking, err
}

func planName(p *trackingplan.Plan) string { return p.Name + " " + p.Version }
