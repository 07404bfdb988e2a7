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

// maxRow is the maximum length of a row in bytes.
const maxRow = 16 << 20

// Command returns the suggest-suite command; binary is the name of the
// executable in its examples.
func Command(binary string) *cli.Command {
	const flagName = "name"
	return &cli.Command{
		Name:  "suggest-suite",
		Usage: "Propose an expectation suite from rows of good quality, one JSON object per line",
		Description: fmt.Sprintf(`
Writes a suite file with proposed bounds to standard output. Edit the bounds
before use. The file contains the values of sets: review it before sharing it.

  %[1]s suggest-suite --name shop events.jsonl > ./configs/expectations.yaml
  %[1]s lint ./configs/expectations.yaml

Without a file the rows are read from standard input.`, binary)[1:],
		ArgsUsage: "[FILE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagName, Value: "suggested", Usage: "name of the suite"},
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

// readRows adds rows, and reports the number of other lines on standard error.
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
		fmt.Fprintf(os.Stderr, "%s: %d of %d lines are not JSON objects and were ignored\n", name, skipped, rows+skipped)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
