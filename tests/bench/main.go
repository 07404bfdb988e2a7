// Command bench measures this project against its budgets and against other
// software for the same work, in one run on one machine, and prints the table:
//
//	go run ./tests/bench              the table
//	go run ./tests/bench -api         the profile API at 1, 64 and 1,024 connections
//	go run ./tests/bench -curve       customers, processes and batch sizes
//	go run ./tests/bench -tune        the settings of the alternative
//	go run ./tests/bench -docs        only writes the documents from the results
//	go run ./tests/bench quality      validation and cleaning against stock processors
//	go run ./tests/bench firing       the delay of triggers while a million others wait
//
// -short uses small sizes: it shows that the harness works, and measures no speed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/connect-personalize/connect-personalize/tests/bench/compare"
	"github.com/connect-personalize/connect-personalize/tests/bench/firing"
	"github.com/connect-personalize/connect-personalize/tests/bench/quality"
)

// measurements have a setup of their own, and are named on the command line.
var measurements = map[string]func(ctx context.Context, args []string) error{
	"quality": quality.Run,
	"firing":  firing.Run,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measure, args := compare.Run, os.Args[1:]
	if len(args) > 0 && measurements[args[0]] != nil {
		measure, args = measurements[args[0]], args[1:]
	}
	switch err := measure(ctx, args); {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench: FAILED:", err)
		os.Exit(1)
	}
}
