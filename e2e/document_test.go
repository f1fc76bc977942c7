package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A block is a fenced block of a document.
type block struct {
	document string // its path from the root of the repository
	section  string // the heading above it
	file     string // which file it shows, by a comment above it; empty: none
	language string
	line     int // of its first line
	text     string
}

// documents returns README.md and what is in docs.
func documents(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"README.md"}
	for _, path := range found {
		names = append(names, filepath.Join("docs", filepath.Base(path)))
	}
	return names
}

var showsFile = regexp.MustCompile(`^<!-- file: (\S+) -->$`)

// blocks returns the blocks of a document.
func blocks(t *testing.T, document string) (found []block) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", document))
	if err != nil {
		t.Fatal(err)
	}
	var section, file string
	var open *block
	for i, line := range strings.Split(string(text), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open != nil:
			found, open = append(found, *open), nil
		case fence:
			open, file = &block{document: document, section: section, file: file, language: language, line: i + 2}, ""
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "#"):
			section = strings.TrimLeft(line, "# ")
		case showsFile.MatchString(line):
			file = showsFile.FindStringSubmatch(line)[1]
		}
	}
	if open != nil {
		t.Errorf("%s:%d: the block does not end", document, open.line)
	}
	return found
}

// TestDocumentsShowFiles compares what documents show of a file, as a block below
// the comment "file: PATH", with the file. "-update" copies the files.
func TestDocumentsShowFiles(t *testing.T) {
	for _, document := range documents(t) {
		for _, b := range blocks(t, document) {
			if b.file == "" {
				continue
			}
			want, err := os.ReadFile(filepath.Join("..", b.file))
			if err != nil {
				t.Errorf("%s:%d: %v", document, b.line, err)
			} else if b.text != string(want) && *update {
				replaceBlock(t, b, string(want))
			} else if b.text != string(want) {
				t.Errorf("%s:%d is not %s: go test ./e2e -run TestDocumentsShowFiles -update", document, b.line, b.file)
			}
		}
	}
}

func replaceBlock(t *testing.T, b block, with string) {
	t.Helper()
	path := filepath.Join("..", b.document)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := "<!-- file: " + b.file + " -->\n```" + b.language + "\n"
	before, after, found := strings.Cut(string(text), head+b.text)
	if !found {
		t.Fatalf("%s:%d: the block is not right below its comment", b.document, b.line)
	}
	if err := os.WriteFile(path, []byte(before+head+with+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pythonTests, nodeTests and javaTests say where the examples find what they need.

func pythonTests(t *testing.T) []string {
	python, err := exec.LookPath(pythonWith(t, "azure.eventhub", "azure.iot.device", "azure.iot.hub", "pytest", "requests"))
	if err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + filepath.Dir(python) + string(os.PathListSeparator) + os.Getenv("PATH")}
}

func nodeTests(t *testing.T) []string {
	nodeWith(t, "@azure/event-hubs", "azure-iot-device", "azure-iot-device-mqtt", "azure-iothub")
	return nil
}

func javaTests(t *testing.T) []string {
	for _, program := range []string{"keytool", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, program+" is not installed")
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	repository := filepath.Join(home, ".m2", "repository")
	if found, _ := filepath.Glob(filepath.Join(repository, "org", "junit", "jupiter", "junit-jupiter", "*", "*.jar")); len(found) == 0 {
		skip(t, "JUnit is not in Maven's repository: mvn -f examples/ci/java/pom.xml test -Dgroups=none")
	}
	return []string{"MAVEN_OPTS=-Dmaven.repo.local=" + repository}
}
