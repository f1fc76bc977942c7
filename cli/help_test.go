package cli

import (
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v2"
)

// leaves calls fn with every command that does something.
func leaves(commands []*urfave.Command, path string, fn func(path string, c *urfave.Command)) {
	for _, c := range commands {
		switch p := path + " " + c.Name; {
		case c.Hidden: // it has no help
		case len(c.Subcommands) > 0:
			leaves(c.Subcommands, p, fn)
		default:
			fn(p, c)
		}
	}
}

func TestHelpHasAnExampleOfEveryCommand(t *testing.T) {
	leaves(newApp(streams{}).Commands, "iotdm", func(path string, c *urfave.Command) {
		if _, examples, ok := strings.Cut(c.Description, "or example"); !ok || !strings.Contains(examples, path) {
			t.Errorf("the help of %q has no example of it:\n%s", path, c.Description)
		}
	})
}

func TestTopicsFitATerminal(t *testing.T) {
	const columns = 80
	for name, text := range topics {
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); len(line) > columns {
				t.Errorf("topic %s has a line of %d characters: %s", name, len(line), line)
			}
		}
	}
}
