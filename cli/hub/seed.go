package hub

import (
	"os"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hub/node"
)

// seedText returns the text of --seed, and its name for errors. It is a file or,
// where CI can set variables and has no files, the seed itself: it begins with
// "{" or has more than a line.
func seedText(given string) (text []byte, name string, err error) {
	if strings.HasPrefix(strings.TrimSpace(given), "{") || strings.Contains(given, "\n") {
		return []byte(given), "--seed", nil
	}
	if text, err = os.ReadFile(given); err != nil {
		return nil, "", fail.Usagef("--seed: %v", fail.PlainPathError(err))
	}
	return text, "--seed " + given, nil
}

// readSeed reads and checks all of the seed of "hub run --seed". Without one it
// is empty.
func readSeed(given string) (node.Seed, error) {
	if given == "" {
		return node.Seed{}, nil
	}
	text, name, err := seedText(given)
	if err != nil {
		return node.Seed{}, err
	}
	seed, err := node.ParseSeed(text)
	if err != nil {
		return node.Seed{}, fail.Usagef("%s: %v", name, err)
	}
	return seed, nil
}
