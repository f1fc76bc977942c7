package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-shellwords"
)

// A tour is a reader who types the commands of a document, one after the other.
type tour struct {
	document string
	sections []string                  // what is typed, in this order; none: all of it
	before   string                    // what the reader has done by then
	needs    func(*testing.T) []string // what is installed, as variables of the environment; nil: nothing
	not      string                    // why it is not typed
}

// tours are those for documents that are not typed from beginning to end.
var tours = []tour{
	{document: "README.md", sections: []string{"iotdm"}},
	{document: "README.md", sections: []string{"A reboot, in three terminals", "A fleet"}},
	{document: "README.md", sections: []string{"A factory's path, rehearsed"}, before: "iotdm hub run"},
	{document: "README.md", sections: []string{"With Azure IoT Hub"}, not: "needs a hub of Azure"},
	{document: "README.md", sections: []string{"On a real machine"}},
	{document: "README.md", sections: []string{"Operate"}, before: "iotdm hub run\niotdm device run --device my-device\niotdm service twin patch --device my-device --tags '{\"site\": \"A\"}'"},
	{document: "README.md", sections: []string{"In a browser"}, before: "iotdm hub run"},
	{document: "README.md", sections: []string{"Your own programs, unmodified, on a local hub"}},
	{document: "docs/INSTALL.md", not: "would change the machine; TestPackage and TestImage do what it says"},
	{document: "docs/AZ.md", before: "iotdm hub run"},
	{document: "docs/OPERATING.md", before: "iotdm hub run\niotdm device run"},
	{document: "docs/PROVISIONING.md", sections: []string{"Enroll, provision, connect", "Manage", "With the official SDKs", "Certificates", "Register again"}},
	{document: "docs/PROVISIONING.md", sections: []string{"Revoke"}, before: "iotdm hub run\niotdm service device create pump-1"},
	{document: "docs/CI.md", sections: []string{"A hub for tests", "Python"}, needs: pythonTests},
	{document: "docs/CI.md", sections: []string{"A hub for tests", "Node"}, needs: nodeTests},
	{document: "docs/CI.md", sections: []string{"A hub for tests", "Java"}, needs: javaTests},
	{document: "docs/CI.md", sections: []string{"Go"}},
	{document: "docs/CI.md", sections: []string{"A hub for tests", "Between tests"}},
	{document: "docs/CI.md", sections: []string{"Several hubs side by side"}},
}

// notTyped are the commands that no test can type, and why.
var notTyped = []struct{ command, why string }{
	{`^([A-Z_]+=\S+ )*go (run|test|build|install) `, "what TestDocumentsNameTests looks at, or what builds the program"},
	{`^az `, "Azure CLI is not installed"},
	{`--(reboot|update)-command`, "would reboot the machine"},
	{`^(pip|npm) install\b`, "what .ci/run does"},
	{`^python3 my_device\.py$`, "the reader's own program"},
}

// goesOn are the commands that run until they are stopped, and what they print
// when they have begun.
var goesOn = []struct{ command, begun string }{
	{`^iotdm hub run`, "ready"},
	{`^iotdm device run`, "onnected to"},
	{`^iotdm service twin watch`, ""},
	{`^iotdm service events`, ""},
	{`^iotdm console`, "http://"},
}

// asks are the commands that ask whether they may, which the reader answers.
var asks = regexp.MustCompile(`^iotdm service (job create|configuration create|reboot --where) `)

// TestDocuments types the commands of all documents, as their readers do: in a
// shell, with a home of its own, on a machine on which nothing else runs. All that
// they say has to work.
func TestDocuments(t *testing.T) {
	if out, err := exec.Command("unshare", "--net", "--map-root-user", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("a network of its own cannot be made: %v %s", err, lastLine(out)))
	}
	for _, document := range documents(t) {
		found := slices.DeleteFunc(blocks(t, document), func(b block) bool { return b.language != "sh" })
		if len(found) == 0 {
			continue
		}
		typed := map[string]bool{}
		its := slices.DeleteFunc(slices.Clone(tours), func(r tour) bool { return r.document != document })
		if len(its) == 0 {
			its = []tour{{document: document}}
		}
		for _, r := range its {
			var blocks []block
			for _, section := range r.sections {
				typed[section] = true
				of := slices.DeleteFunc(slices.Clone(found), func(b block) bool { return b.section != section })
				if len(of) == 0 {
					t.Errorf("%s has no commands in a section %q", document, section)
				}
				blocks = append(blocks, of...)
			}
			if len(r.sections) == 0 {
				blocks = found
				for _, b := range found {
					typed[b.section] = true
				}
			}
			t.Run(filepath.Base(document)+"/"+strings.Join(r.sections, "+"), func(t *testing.T) {
				if r.not != "" {
					t.Skip(r.not)
				}
				t.Parallel()
				r.run(t, blocks)
			})
		}
		for _, b := range found {
			if !typed[b.section] {
				t.Errorf("%s:%d: no tour types the section %q", document, b.line, b.section)
			}
		}
	}
}

// run types blocks.
func (r tour) run(t *testing.T, blocks []block) {
	var env []string
	if r.needs != nil {
		env = r.needs(t)
	}
	script := &strings.Builder{}
	script.WriteString(prologue)
	for i, command := range commands(r.before) {
		typeCommand(script, fmt.Sprintf("before %s:%d", r.document, i+1), command)
	}
	for _, b := range blocks {
		line := b.line
		for _, command := range commands(b.text) {
			typeCommand(script, fmt.Sprintf("%s:%d", b.document, line), command)
			line += strings.Count(command, "\n") + 1
		}
	}
	script.WriteString(epilogue)

	dir := t.TempDir()
	file := filepath.Join(dir, "typed.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "iotdm")
	if err := os.CopyFS(filepath.Join(work, "examples"), os.DirFS("../examples")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--pid", "--fork", "--kill-child", "--map-root-user", "sh", "-e", file)
	cmd.Dir = work
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "IOT") || strings.HasPrefix(v, "XDG_") || strings.HasPrefix(v, "HOME=")
	})
	cmd.Env = append(append(cmd.Env, "HOME="+dir, "TYPED="+dir, "EDITOR=true", "PYTHONDONTWRITEBYTECODE=1"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v, after what is typed at the last place that is named here:\n%s", err, out)
	}
}

// prologue defines what typeCommand makes of commands that go on, and epilogue
// stops them: they have to end well. What was started with "&" ends with the
// shell.
const prologue = `ip link set lo up
going= began=0
go_on() { # go_on TEXT COMMAND: start it, and wait until it prints the text
  began=$((began + 1))
  : >"$TYPED/$began"
  sh -ec "exec $2" >>"$TYPED/$began" 2>&1 &
  going="$going $!:$began"
  until grep -q "$1" "$TYPED/$began"; do
    kill -0 $! 2>/dev/null || { cat "$TYPED/$began"; exit 1; }
    sleep 0.05
  done
}
`

const epilogue = `
for one in $going; do
  kill -INT "${one%:*}" || true
  wait "${one%:*}" || { echo "what goes on ended with $?:"; cat "$TYPED/${one#*:}"; exit 1; }
done
`

// typeCommand writes what types a command of a document.
func typeCommand(script *strings.Builder, place, command string) {
	fmt.Fprintf(script, "echo %s >&2\n", quoted("== "+place+": "+command))
	for _, not := range notTyped {
		if regexp.MustCompile(not.command).MatchString(command) {
			fmt.Fprintf(script, "echo %s >&2\n", quoted("   not typed: "+not.why))
			return
		}
	}
	for _, on := range goesOn {
		if regexp.MustCompile(on.command).MatchString(command) && !strings.HasSuffix(command, "&") {
			fmt.Fprintf(script, "go_on %s %s\n", quoted(on.begun), quoted(command))
			return
		}
	}
	if asks.MatchString(command) { // on a terminal
		command = fmt.Sprintf("echo y | script -qec %s /dev/null", quoted(command))
	}
	script.WriteString(command + "\n")
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

var hereDocument = regexp.MustCompile(`<<-?\s*['"]?(\w+)['"]?`)

// commands splits the text of a shell into commands, which may have several lines.
func commands(text string) (found []string) {
	var open []string
	var end string // of a here-document
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		open = append(open, line)
		switch m := hereDocument.FindStringSubmatch(line); {
		case end != "" && line == end:
			end = ""
		case end != "":
			continue
		case m != nil:
			end = m[1]
			continue
		}
		command := strings.Join(open, "\n")
		if strings.HasSuffix(line, `\`) || strings.Count(command, "'")%2 == 1 && !strings.Contains(command, "#") {
			continue
		}
		found, open = append(found, command), nil
	}
	return found
}

// TestDocumentsNameTests looks for the tests and benchmarks that documents run:
// that takes too long here.
func TestDocumentsNameTests(t *testing.T) {
	for _, document := range documents(t) {
		for _, b := range blocks(t, document) {
			for i, line := range strings.Split(b.text, "\n") {
				line, _, _ = strings.Cut(line, " #")
				if at := strings.Index(line, "go test "); at >= 0 {
					checkGoTest(t, fmt.Sprintf("%s:%d", document, b.line+i), line[at:])
				}
			}
		}
	}
}

// checkGoTest checks that what "go test" is to run is there.
func checkGoTest(t *testing.T, place, line string) {
	t.Helper()
	words, err := shellwords.Parse(line)
	if err != nil {
		t.Errorf("%s: %v", place, err)
		return
	}
	var source strings.Builder
	var patterns []string
	for i, word := range words[2:] {
		switch {
		case strings.HasPrefix(word, "./") && !strings.HasSuffix(word, "..."):
			files, err := filepath.Glob(filepath.Join("..", word, "*_test.go"))
			if err != nil || len(files) == 0 {
				t.Errorf("%s: %s has no tests", place, word)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				source.Write(text)
			}
		case i > 0 && (words[i+1] == "-run" && word != "xxx" || words[i+1] == "-bench" && word != "."):
			pattern, _, _ := strings.Cut(word, "/")
			patterns = append(patterns, map[string]string{"-run": "Test", "-bench": "Benchmark"}[words[i+1]]+" "+pattern)
		}
	}
	for _, pattern := range patterns {
		kind, pattern, _ := strings.Cut(pattern, " ")
		for pattern := range strings.SplitSeq(pattern, "|") {
			runs, err := regexp.Compile(pattern)
			if err != nil {
				t.Errorf("%s: %v", place, err)
				continue
			}
			names := regexp.MustCompile(`(?m)^func (`+kind+`\w+)\(`).FindAllStringSubmatch(source.String(), -1)
			if !slices.ContainsFunc(names, func(m []string) bool { return runs.MatchString(m[1]) }) {
				t.Errorf("%s: there is no %s%s", place, kind, pattern)
			}
		}
	}
}
