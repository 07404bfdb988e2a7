// Package spelling suggests the closest known name for an unknown one.
package spelling

import (
	"fmt"
	"strings"
)

// Nearest returns the known name that is most similar to name, or "" if none is similar
// enough.
func Nearest(name string, known []string) string {
	const longest = 100
	if len(name) > longest {
		return ""
	}
	best, bestDistance := "", len(name)/3+1
	if len(name) < 3 {
		bestDistance = 1
	}
	lower := []rune(strings.ToLower(name))
	for _, c := range known {
		if len(c) > longest || c == name {
			continue
		}
		d := distance(lower, []rune(strings.ToLower(c)))
		if d < bestDistance || d == bestDistance && best == "" {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance returns the edit distance of a and b: the number of letters to insert,
// delete, replace or swap with their neighbour.
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// Hint returns the end of a message about an unknown name, such as `; did you mean
// "orders"?`, or "" if no known name is close.
func Hint(name string, known []string) string {
	if n := Nearest(name, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// Typo returns the known name that differs from name by one letter (inserted, deleted,
// replaced, or swapped with its neighbour), empty if there is none. Unlike Nearest it is
// strict enough for names that need not be known.
func Typo(name string, known []string) string {
	for _, c := range known {
		if len(c)-len(name) <= 1 && len(name)-len(c) <= 1 && distance([]rune(name), []rune(c)) == 1 {
			return c
		}
	}
	return ""
}
