package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mattn/go-shellwords"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
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
	leaves(newApp(output.Streams{}).Commands, "iotdm", func(path string, c *urfave.Command) {
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

// examples returns the command lines in a help text, without what a shell makes
// of what they print.
func examples(t *testing.T, help string) (lines [][]string) {
	for line := range strings.Lines(strings.ReplaceAll(help, "\\\n", "")) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		if !strings.HasPrefix(line, "iotdm ") {
			continue
		}
		p := shellwords.NewParser()
		words, err := p.Parse(line) // up to a pipe and the like
		if err != nil {
			t.Errorf("example %s: %v", line, err)
			continue
		}
		lines = append(lines, words)
	}
	return lines
}

// Every example is a command line that works: all that is missing here is a hub.
func TestExamplesNeedAHub(t *testing.T) {
	t.Setenv("IOTDM_DATA", t.TempDir())
	t.Setenv("IOTDM_DEVICE_STATE", t.TempDir())
	for _, name := range slices.Concat(target.DeviceVariables, target.ServiceVariables, target.ProvisioningVariables, []string{"IOTDM_HUB_NAME", "IOTDM_DPS_NAME"}) {
		t.Setenv(name, "")
	}
	leaves(newApp(output.Streams{}).Commands, "iotdm", func(path string, c *urfave.Command) {
		if !strings.HasPrefix(path, "iotdm service ") && !strings.HasPrefix(path, "iotdm device ") {
			return // needs none
		}
		for _, args := range examples(t, c.Description) {
			needsAHub(t, args)
		}
	})
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, "../README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, args := range examples(t, string(text)) {
			if args[1] == "service" || args[1] == "device" {
				needsAHub(t, args)
			}
		}
	}
}

// What docs/AZ.md says to type instead of a command of Azure CLI is a command of
// ours, with the flags that it names.
func TestAZNamesCommands(t *testing.T) {
	text, err := os.ReadFile("../docs/AZ.md")
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string][]string{}
	leaves(newApp(output.Streams{}).Commands, "iotdm", func(path string, c *urfave.Command) {
		for _, f := range c.Flags {
			flags[strings.TrimPrefix(path, "iotdm ")] = append(flags[strings.TrimPrefix(path, "iotdm ")], f.Names()...)
		}
	})
	code := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		for _, m := range code.FindAllStringSubmatch(cells[2], -1) {
			words := strings.Fields(m[1])
			if !slices.Contains([]string{"service", "device", "hub", "sas"}, words[0]) || slices.Contains(words, "...") {
				continue
			}
			var path string
			for i := len(words); i > 0 && flags[path] == nil; i-- {
				path = strings.Join(words[:i], " ")
			}
			if flags[path] == nil {
				t.Errorf("%q is no command: %s", m[1], line)
			}
			for _, word := range words {
				if name := strings.TrimLeft(word, "-"); name != word && !slices.Contains(flags[path], name) {
					t.Errorf("%q has no flag %s: %s", path, word, line)
				}
			}
		}
	}
}

func needsAHub(t *testing.T, args []string) {
	if slices.ContainsFunc(args, namesFile) {
		return
	}
	t.Run(strings.Join(args, " "), func(t *testing.T) {
		var out, errOut bytes.Buffer
		status := Main(args, strings.NewReader("{}"), &out, &errOut)
		if status != fail.NotFound || !strings.Contains(errOut.String(), `start it with "iotdm hub run"`) || out.Len() > 0 {
			t.Errorf("status %d, want %d; it prints:\n%s%s", status, fail.NotFound, out.String(), errOut.String())
		}
	})
}

// namesFile reports whether a word names a file that is not here.
func namesFile(word string) bool {
	return strings.HasPrefix(word, "@") || strings.Contains(word, "=@") || strings.HasSuffix(word, ".json") || strings.HasSuffix(word, ".ndjson") ||
		strings.HasSuffix(word, ".csv") || strings.HasSuffix(word, ".pem") || strings.HasSuffix(word, ".yaml") || strings.HasSuffix(word, ".txt")
}

func TestEveryCommandRefusesAWrongFlag(t *testing.T) {
	leaves(newApp(output.Streams{}).Commands, "iotdm", func(path string, c *urfave.Command) {
		t.Run(path, func(t *testing.T) {
			var out, errOut bytes.Buffer
			status := Main(append(strings.Fields(path), "--frobnicate"), strings.NewReader(""), &out, &errOut)
			want := fmt.Sprintf("iotdm: unknown flag --frobnicate; see \"%s --help\"\n", path)
			if status != fail.Usage || errOut.String() != want || out.Len() > 0 {
				t.Errorf("status %d, standard output %q, standard error:\n%swant\n%s", status, out.String(), errOut.String(), want)
			}
		})
	})
}
