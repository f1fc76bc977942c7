package hub

import (
	"os"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hub/node"
)

// readSeed reads and checks the whole file of "hub run --seed". Without a file
// the seed is empty.
func readSeed(file string) (node.Seed, error) {
	if file == "" {
		return node.Seed{}, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return node.Seed{}, fail.Usagef("--seed: %v", fail.PlainPathError(err))
	}
	seed, err := node.ParseSeed(text)
	if err != nil {
		return node.Seed{}, fail.Usagef("--seed %s: %s", file, fail.PlainYAMLError(err))
	}
	return seed, nil
}
