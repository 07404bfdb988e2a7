// Package suggestsuite is the suggest-suite command, which proposes an
// expectation suite from a sample of rows.
package suggestsuite

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
)

// maxRow bounds a line of the data that a suite is made of.
const maxRow = 16 << 20

// Command returns the suggest-suite command; binary is the name of the
// executable in its examples.
func Command(binary string) *cli.Command {
	const flagName = "name"
	return &cli.Command{
		Name:  "suggest-suite",
		Usage: "Propose an expectation suite from rows that are good, one JSON object a line",
		Description: fmt.Sprintf(`
Writes a suite file to standard output: a place to begin, with bounds to edit.
Values that form sets are in it, so read it before you share it:

  %[1]s suggest-suite --name shop events.jsonl > ./configs/expectations.yaml
  %[1]s lint ./configs/expectations.yaml

Without a file the rows are read from standard input.`, binary)[1:],
		ArgsUsage: "[FILE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagName, Value: "suggested", Usage: "what the suite is called"},
		},
		Action: func(c *cli.Context) error {
			g := expectations.NewSuggester()
			paths := c.Args().Slice()
			if len(paths) == 0 {
				if err := readRows(g, "standard input", os.Stdin); err != nil {
					return err
				}
			}
			for _, path := range paths {
				f, err := os.Open(path)
				if err != nil {
					return err
				}
				err = readRows(g, path, f)
				if err = errors.Join(err, f.Close()); err != nil {
					return err
				}
			}
			suite, err := g.Suite(c.String(flagName))
			if err != nil {
				return err
			}
			_, err = os.Stdout.Write(suite)
			return err
		},
	}
}

// readRows takes rows, and tells how many lines were none.
func readRows(g *expectations.Suggester, name string, from io.Reader) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxRow)
	rows, skipped := 0, 0
	for lines.Scan() {
		switch {
		case len(lines.Bytes()) == 0:
		case g.Add(lines.Bytes()):
			rows++
		default:
			skipped++
		}
		if n := rows + skipped; n > 0 && n%1_000_000 == 0 {
			fmt.Fprintf(os.Stderr, "%s: %d rows read\n", name, n)
		}
	}
	if skipped > 0 {
		fmt.Fprintf(os.Stderr, "%s: %d of %d lines are no JSON objects, and were left out\n", name, skipped, rows+skipped)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
