package hub

import (
	"os"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hub/node"
)

// readSeed reads and checks all of the seed of "hub run --seed", which is a file
// or, where CI can set variables and has no files, the seed itself: it begins
// with "{" or has more than a line. Without either it is empty.
func readSeed(given string) (node.Seed, error) {
	if given == "" {
		return node.Seed{}, nil
	}
	name, text := "--seed "+given, []byte(given)
	if strings.HasPrefix(strings.TrimSpace(given), "{") || strings.Contains(given, "\n") {
		name = "--seed"
	} else {
		var err error
		if text, err = os.ReadFile(given); err != nil {
			return node.Seed{}, fail.Usagef("--seed: %v", fail.PlainPathError(err))
		}
	}
	seed, err := node.ParseSeed(text)
	if err != nil {
		return node.Seed{}, fail.Usagef("%s: %s", name, fail.PlainYAMLError(err))
	}
	return seed, nil
}
