package command

import "fmt"

// DidYouMean returns ", did you mean ...?" with the closest of names, or
// nothing when none is close.
func DidYouMean(typed string, names []string) string {
	best, least := "", 1+len(typed)/3
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

// editDistance counts the bytes to insert, delete or replace to turn a into b
// (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
