// Command cdnow works on the CDNOW sample, a public log of purchases that is not
// part of this repository:
//
//	go run ./tests/cdnow fit [-plot docs/cdnow_forecast.svg] LOG
//	go run ./tests/cdnow verify -log LOG -api http://127.0.0.1:8081
//
// fit compares the fitted models with the published parameters. verify compares
// imported profiles with the log; import.sh runs the import before it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/connect-personalize/connect-personalize/tests/cdnow/fit"
	"github.com/connect-personalize/connect-personalize/tests/cdnow/verify"
)

var commands = map[string]func(args []string) error{"fit": fit.Run, "verify": verify.Run}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go run ./tests/cdnow fit|verify [flags]; -help after the command lists its flags")
		os.Exit(2)
	}
	switch err := commands[os.Args[1]](os.Args[2:]); {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "cdnow %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
