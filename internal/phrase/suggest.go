package phrase

import (
	"fmt"
	"strings"
)

// DidYouMean returns ", did you mean ...?" with the closest of names, or
// nothing when none is close: at most two letters are wrong, and of three letters
// one.
func DidYouMean(typed string, names []string) string {
	best, least := "", min(2, len(strings.TrimLeft(typed, "-"))/3)
	for _, name := range names {
		if d := editDistance(typed, name); len(name) > 2 && d <= least {
			best, least = name, d-1
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// editDistance counts the bytes to insert, delete or replace, and the neighbours
// to exchange, to turn a into b (Damerau-Levenshtein, no byte twice).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			cost := last[j]
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
