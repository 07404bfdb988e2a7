// Command language counts words and sentences that the language rules limit, in
// comments and documents, and prints a table for each part of the repository:
//
//	go run ./tests/language        the counts
//	go run ./tests/language -list  also every counted line
//
// It exits with 1 if a count is above its limit. Run it in the root of the
// repository.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	list := flag.Bool("list", false, "print every counted line")
	flag.Parse()
	total, err := measure(".", parts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "language:", err)
		os.Exit(2)
	}
	if *list {
		for _, f := range total.findings {
			fmt.Println(f)
		}
	}
	fmt.Print(total.table())
	if err := total.check(); err != nil {
		fmt.Fprintln(os.Stderr, "language:", err)
		os.Exit(1)
	}
}
