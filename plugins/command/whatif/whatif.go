// Package whatif is the what-if command: it evaluates a segment, a query or a
// trigger over stored profiles, or over a replay of events, before the rule goes
// live.
package whatif

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

const (
	flagConfig     = "config"
	flagProfiles   = "profiles"
	flagDefinition = "definition"
	flagWhen       = "when"
	flagSegment    = "segment"
	flagTrigger    = "trigger"
	flagEvents     = "events"
	flagReplay     = "replay"
	flagAt         = "at"
	flagSample     = "sample"
	flagSeed       = "seed"
	flagShow       = "show"
)

// Command returns the what-if command of the program called binary.
func Command(binary string) *cli.Command {
	return &cli.Command{
		Name:  "what-if",
		Usage: "Count the customers that a segment, a query or a trigger would select",
		Description: fmt.Sprintf(`
Evaluates a rule over all stored profiles, without changing them:

  %[1]s what-if -c configs/retail/profiles.yaml --when 'features.revenue_90d > 500'
  %[1]s what-if -c configs/retail/profiles.yaml --definition new.yaml --segment high_value
  %[1]s what-if -c configs/retail/profiles.yaml --definition new.yaml --trigger cart_abandoned

For a query or a segment it prints the number of matching customers. For a trigger
it prints for how many customers it is pending, when it is due, and the decisions
if it were due now. A sample of customer ids follows.

With --events (a file with one event per line, - for standard input) or --replay
(the topic that the pipeline reads) it evaluates profiles that it builds from these
events instead, in a temporary folder. The events pass the processors of the
pipeline, which validate and clean them.

  %[1]s what-if -c configs/retail/profiles.yaml --definition new.yaml --segment high_value --events may.jsonl
  %[1]s what-if -c configs/retail/profiles.yaml --definition new.yaml --segment high_value --replay

The store is that of the profiles in the config. So is the definition, unless
--definition names another. Only one process at a time can open an embedded store:
use a copy of its folder, or stop the process.`, binary)[1:],
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagConfig, Aliases: []string{"c"}, Usage: "config with the field profiles, which names the store"},
			&cli.StringFlag{Name: flagProfiles, Usage: "label of the profiles, if the config has several"},
			&cli.StringFlag{Name: flagDefinition, Usage: "path of a definition to use instead of that in the config"},
			&cli.StringFlag{Name: flagWhen, Usage: "Bloblang query over features, traits and segments, such as 'features.orders > 3'"},
			&cli.StringFlag{Name: flagSegment, Usage: "name of a segment of the definition"},
			&cli.StringFlag{Name: flagTrigger, Usage: "name of a trigger of the definition"},
			&cli.StringFlag{Name: flagEvents, Usage: "file with one event per line, to build profiles from instead of the stored ones; - is standard input"},
			&cli.BoolFlag{Name: flagReplay, Usage: "build profiles from all events in the topics of the pipeline's kafka_topic input"},
			&cli.TimestampFlag{Name: flagAt, Layout: time.RFC3339, Usage: "time of the evaluation, such as 2026-01-31T08:30:00Z; default now"},
			&cli.IntFlag{Name: flagSample, Value: 10, Usage: "number of ids to print"},
			&cli.Uint64Flag{Name: flagSeed, Value: 1, Usage: "seed for the selection of the sample"},
			&cli.BoolFlag{Name: flagShow, Usage: "print profiles with the ids; they contain personal data"},
		},
		Action: func(c *cli.Context) error {
			if err := run(c, os.Stdout, os.Stderr); err != nil {
				return cli.Exit("what-if: "+err.Error(), 1)
			}
			return nil
		},
	}
}

func run(c *cli.Context, out, progress io.Writer) error {
	if c.Args().Len() > 0 {
		return fmt.Errorf("unexpected argument %q; put queries in quotes", c.Args().First())
	}
	rules := 0
	for _, flag := range []string{flagWhen, flagSegment, flagTrigger} {
		if c.String(flag) != "" {
			rules++
		}
	}
	if rules != 1 {
		return errors.New("write one of --when with a query in quotes, --segment with a name, and --trigger with a name")
	}
	if c.Bool(flagReplay) && c.String(flagEvents) != "" {
		return errors.New("write one of --events and --replay")
	}
	if c.Int(flagSample) < 0 || c.Int(flagSample) > 10_000 {
		return errors.New("--sample must be from 0 to 10000")
	}
	path := c.String(flagConfig)
	if path == "" {
		return errors.New("write the config that names the profiles: -c configs/retail/profiles.yaml")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	item, label, err := itemOf(text, c.String(flagProfiles))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var folder string
	replays := c.Bool(flagReplay) || c.String(flagEvents) != ""
	if replays {
		if folder, err = os.MkdirTemp("", "what-if-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(folder) }()
	}
	p, err := profiles.OpenItem(item, c.String(flagDefinition), folder, service.MockResources())
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(context.Background()) }()
	if replays {
		r := replayed{config: text, out: progress}
		if err := r.run(c.Context, p, label, c.String(flagEvents)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(out, "%d events, %d of them refused, as replayed\n", r.events, r.refused)
	}
	q := customers.WhatIfQuery{
		Segment: c.String(flagSegment), Trigger: c.String(flagTrigger), Sample: c.Int(flagSample), Seed: c.Uint64(flagSeed), Profiles: c.Bool(flagShow), AsOf: time.Now(),
	}
	if at := c.Timestamp(flagAt); at != nil {
		q.AsOf = *at
	}
	if when := c.String(flagWhen); when != "" {
		if q.Query, err = profiledefinition.CompileQuery(when, p.Definition()); err != nil {
			return fmt.Errorf("the query: %w", err)
		}
	}
	shown := time.Now()
	answer, err := p.WhatIf(c.Context, q, func(customers int) {
		if now := time.Now(); now.Sub(shown) >= time.Second {
			shown = now
			fmt.Fprintf(progress, "%d customers so far\n", customers)
		}
	})
	if err != nil {
		return err
	}
	write(out, &q, answer)
	return nil
}

// itemOf returns the item of the field profiles that has the label, or the only item,
// with environment variables replaced.
func itemOf(config []byte, label string) (item, found string, err error) {
	var root struct {
		Profiles []yaml.Node `yaml:"profiles"`
	}
	if err := yaml.Unmarshal([]byte(fillIn(string(config))), &root); err != nil {
		return "", "", err
	}
	var labels []string
	for i := range root.Profiles {
		var head struct {
			Label string `yaml:"label"`
		}
		if err := root.Profiles[i].Decode(&head); err != nil {
			return "", "", err
		}
		if labels = append(labels, head.Label); head.Label == label || label == "" && len(root.Profiles) == 1 {
			item, err := yaml.Marshal(&root.Profiles[i])
			return string(item), head.Label, err
		}
	}
	switch {
	case len(labels) == 0:
		return "", "", errors.New("it has no field profiles; name a config that has")
	case label == "":
		return "", "", fmt.Errorf("it has several profiles; add --profiles with one of %s", strings.Join(labels, ", "))
	}
	return "", "", fmt.Errorf("it has no profiles with the label %q; use one of %s", label, strings.Join(labels, ", "))
}

var variable = regexp.MustCompile(`\$\{([0-9A-Za-z_.]+)(?::((?:\$\{[^}]+\}|[^}])*))?\}`)

// fillIn replaces ${NAME:default} by the environment variable or its default.
func fillIn(text string) string {
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		m := variable.FindStringSubmatch(found)
		if value, set := os.LookupEnv(m[1]); set {
			return value
		}
		return fillIn(m[2])
	})
}

func write(w io.Writer, q *customers.WhatIfQuery, a *customers.WhatIfResult) {
	fmt.Fprintf(w, "%d customers as of %s\n", a.Customers, q.AsOf.UTC().Format(time.RFC3339))
	if a.Unreadable > 0 {
		fmt.Fprintf(w, "%d records cannot be read\n", a.Unreadable)
	}
	if q.Trigger == "" {
		fmt.Fprintf(w, "%d match (%.1f%%)\n", a.Matching, percent(a.Matching, a.Customers))
		if a.Failed > 0 {
			fmt.Fprintf(w, "%d for which the query fails, for example because a feature is null\n", a.Failed)
		}
		if q.Segment != "" {
			fmt.Fprintf(w, "  %8d of them are not members and would enter\n  %8d members do not match and would leave\n", a.Entering, a.Leaving)
		}
	} else {
		fmt.Fprintf(w, "%s is pending for %d (%.1f%%)\n", q.Trigger, a.Matching, percent(a.Matching, a.Customers))
		for i, n := range a.Waiting {
			if n > 0 {
				fmt.Fprintf(w, "  due %-12s %8d\n", horizon(i), n)
			}
		}
		if len(a.Outcomes) > 0 {
			fmt.Fprintln(w, "decisions if they were due now")
			for _, name := range slices.Sorted(maps.Keys(a.Outcomes)) {
				fmt.Fprintf(w, "  %-16s %8d\n", name, a.Outcomes[name])
			}
		}
	}
	if len(a.Sample) > 0 {
		fmt.Fprintln(w, "sample")
	}
	for _, customer := range a.Sample {
		line := "  " + customer.ID
		if !customer.Due.IsZero() {
			line += "  due " + customer.Due.Format(time.RFC3339)
		}
		if customer.Profile != nil {
			line += "  " + string(customer.Profile)
		}
		fmt.Fprintln(w, line)
	}
}

func horizon(i int) string {
	switch {
	case i == 0:
		return "now"
	case i == len(customers.Horizons):
		return "later"
	case customers.Horizons[i] < 24*time.Hour:
		return fmt.Sprintf("within %dh", customers.Horizons[i]/time.Hour)
	}
	return fmt.Sprintf("within %dd", customers.Horizons[i]/(24*time.Hour))
}

func percent(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
