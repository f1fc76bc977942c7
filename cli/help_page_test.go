package cli

import (
	"bytes"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v2"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/cli/internal/output"
)

func TestFitHelp(t *testing.T) {
	const text = `NAME:
   iotdm service thing do - do something to a thing that is far away

DESCRIPTION:
   A text that is longer
   than the terminal is wide, and
   more. For example:
      iotdm service thing do --with a-long-argument that-is-copied

   Another paragraph.

OPTIONS:
   --flag VALUE, -f VALUE  what the value of the flag is good for
   --help, -h              show help
`
	want := `NAME:
   iotdm service thing do - do something to a
   thing that is far away

DESCRIPTION:
   A text that is longer than the terminal is
   wide, and more. For example:
      iotdm service thing do --with a-long-argument that-is-copied

   Another paragraph.

OPTIONS:
   --flag VALUE, -f VALUE
                   what the value of the flag is
                   good for
   --help, -h      show help
`
	if diff := cmp.Diff(want, fitHelp(text, 48)); diff != "" {
		t.Errorf("help on 48 columns (-want +got):\n%s", diff)
	}
}

// No help has a line that a terminal of 80 columns breaks, but examples.
func TestHelpFitsTheTerminal(t *testing.T) {
	leaves(newApp(output.Streams{}).Commands, "iotdm", func(path string, _ *urfave.Command) {
		var out bytes.Buffer
		app := newApp(output.Streams{Out: &out})
		if err := app.Run(append(strings.Fields(path), "--help")); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(fitHelp(out.String(), 80)) {
			line = strings.TrimRight(line, "\n")
			example := strings.HasPrefix(line, "      ")
			if output.Width(line) > 80 && !example {
				t.Errorf("%s --help: %s", path, line)
			}
		}
	})
}
