package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestCIExamplesSetWhatTheHubKnows looks at what can't run here, since it needs
// GitHub, GitLab or a container engine: the files are YAML, their variables are
// those of "hub run", and the seed in them is the one that the tests expect.
func TestCIExamplesSetWhatTheHubKnows(t *testing.T) {
	help, err := exec.Command("iotdm", "hub", "run", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../examples/ci/*.y*ml")
	if err != nil {
		t.Fatal(err)
	}
	var seed any
	readYAML(t, "../examples/ci/seed.yaml", &seed)
	for _, file := range files {
		var content any
		text := readYAML(t, file, &content)
		for _, name := range regexp.MustCompile(`IOTDM_\w+`).FindAllString(text, -1) {
			if !strings.Contains(string(help), "$"+name) {
				t.Errorf("%s sets %s, which hub run does not know", file, name)
			}
		}
		for _, found := range seedsIn(content) {
			var its any
			if err := yaml.Unmarshal([]byte(found), &its); err != nil {
				t.Errorf("%s: %v", file, err)
			} else if diff := cmp.Diff(seed, its); diff != "" {
				t.Errorf("the seed in %s is not that of seed.yaml (-want +got):\n%s", file, diff)
			}
		}
	}
}

func readYAML(t *testing.T, file string, v any) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return string(text)
}

// seedsIn returns the seeds that stand in a variable, not in a file of their own.
func seedsIn(v any) (found []string) {
	fields, _ := v.(map[string]any)
	for name, value := range fields {
		if text, ok := value.(string); ok && name == "IOTDM_HUB_SEED" && strings.Contains(text, "\n") {
			found = append(found, text)
		}
		found = append(found, seedsIn(value)...)
	}
	return found
}
