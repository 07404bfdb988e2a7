// Command system tests the built program as operators run it: real processes with
// a real Redis and a real Kafka broker, which it starts and stops itself. Run it
// in the root of the repository.
//
//	go run ./tests/system faults -events 50000
//	go run ./tests/system simulate -days 90
//	go run ./tests/system soak -for 30m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/connect-personalize/connect-personalize/tests/system/faults"
	"github.com/connect-personalize/connect-personalize/tests/system/simulate"
	"github.com/connect-personalize/connect-personalize/tests/system/soak"
)

var suites = map[string]func(ctx context.Context, args []string) error{
	"faults":   faults.Run,
	"simulate": simulate.Run,
	"soak":     soak.Run,
}

func main() {
	if len(os.Args) < 2 || suites[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go run ./tests/system faults|simulate|soak [flags]; -help after the suite lists its flags")
		os.Exit(2)
	}
	if _, err := os.Stat("configs/retail/profiles.yaml"); err != nil {
		fmt.Fprintln(os.Stderr, "system: run this in the root of the repository")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	suite := os.Args[1]
	switch err := suites[suite](ctx, os.Args[2:]); {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: FAILED: %v\n", suite, err)
		os.Exit(1)
	}
	fmt.Printf("%s: PASSED\n", suite)
}
