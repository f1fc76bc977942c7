package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// printsMuch are the commands that people pipe.
var printsMuch = []string{"list", "query", "export", "events", "import"}

// printsNothing are the commands whose result is that it is done.
var printsNothing = []string{"load", "delete", "send", "apply"}

// What each command is tried for by the scripts in package e2e.
const (
	tried  = "a success"
	failed = "an exit status other than 0"
	golden = "JSON that is compared with a file"
	piped  = "a pipe"
)

func TestEveryCommandHasAScript(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "e2e", "testdata", "script", "*.txtar"))
	if err != nil || files == nil {
		t.Fatal(files, err)
	}
	var scripts []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut(string(text), "\n-- ")
		scripts = append(scripts, script)
	}
	leaves(newApp(output.Streams{}).Commands, "iotdm", func(path string, c *urfave.Command) {
		want := []string{tried, failed}
		if strings.HasPrefix(path, "iotdm hub trust ") {
			want = []string{failed} // a success would change the machine
		}
		if command.FlagNamed(c, "output") != nil && !slices.Contains(printsNothing, c.Name) {
			want = append(want, golden)
		}
		if slices.Contains(printsMuch, c.Name) {
			want = append(want, piped)
		}
		has := make(map[string]bool)
		for _, script := range scripts {
			for _, what := range trials(script, path) {
				has[what] = true
			}
		}
		for _, what := range want {
			if !has[what] {
				t.Errorf("no script has %s of %q", what, path)
			}
		}
	})
}

// trials returns what a script tries a command for.
func trials(script, path string) (found []string) {
	uses := regexp.MustCompile(`\b` + regexp.QuoteMeta(path) + `( |$)`)
	pipes := regexp.MustCompile(`\| *` + regexp.QuoteMeta(path) + `( |$)|\b` + regexp.QuoteMeta(path) + ` [^|]*\| `)
	background := regexp.MustCompile(` &(\w+)&$`)
	fails := regexp.MustCompile(`^(\[.*\] )?status [1-9]`)
	compares := regexp.MustCompile(`(?m)^(\[.*\] )?cmp \S+ \S+\.json$`)
	lines := strings.Split(script, "\n")
	for i, line := range lines {
		if !uses.MatchString(line) || strings.HasPrefix(line, "#") {
			continue
		}
		if fails.MatchString(line) {
			found = append(found, failed)
		} else {
			found = append(found, tried)
		}
		if pipes.MatchString(line) {
			found = append(found, piped)
		}
		soon := func(i int) string { return strings.Join(lines[i+1:min(i+5, len(lines))], "\n") }
		then := soon(i)
		if job := background.FindStringSubmatch(line); job != nil {
			then += "\n" + soon(i+1+slices.Index(lines[i+1:], "wait "+job[1]))
		}
		if compares.MatchString(then) {
			found = append(found, golden)
		}
	}
	return found
}
