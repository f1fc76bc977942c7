package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
)

func TestArrange(t *testing.T) {
	tests := []struct{ name, args, want string }{
		{"flags stay where they are", "service reboot --device d1 --no-wait", "service reboot --device d1 --no-wait"},
		{"flags after an argument come first", "service query Q -o json", "service query -o json -- Q"},
		{"a value that looks like a command", "service query --query reboot Q", "service query --query reboot -- Q"},
		{"a value that looks like a flag", "service reboot --payload -1 --device d1", "service reboot --payload -1 --device d1"},
		{"standard input as an argument", "sas inspect - -o json", "sas inspect -o json -- -"},
		{"what follows two dashes is no flag", "device send -- --hello", "device send -- --hello"},
		{"spellings of az", "service reboot -l S --device-id=d1 --mn m --mp p --to 5 --tc 1",
			"service reboot --connection-string S --device=d1 --method m --payload p --timeout 5 --connect-timeout 1"},
		{"a spelling of az that is a flag of ours", "service query -q Q", "service query -q Q"},
		{"a spelling of az without a flag of ours", "version --du 5", "version --du -- 5"},
		{"an unknown command is left alone", "service rebot --device d1 x -y", "service rebot --device d1 x -y"},
		{"a group is left alone", "service --help", "service --help"},
		{"a line being completed is left alone", "service query Q -o --generate-bash-completion", "service query Q -o --generate-bash-completion"},
		{"a flag without its value", "service reboot --device", "service reboot --device"},
		{"a last flag without its value is not given the argument", "service query Q -o", "service query -o"},
		{"help", "help", "--help"},
		{"help for a command", "help service reboot", "service reboot --help"},
		{"help inside a group", "service help reboot", "service reboot --help"},
		{"help as an argument", "sas inspect help", "sas inspect -- help"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"iotdm"}, strings.Fields(tt.args)...)
			want := append([]string{"iotdm"}, strings.Fields(tt.want)...)
			got := command.Arrange(newApp(output.Streams{}).Commands, args)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("arrange(%q) (-want +got):\n%s", args, diff)
			}
		})
	}
}

func FuzzArrange(f *testing.F) {
	for _, seed := range []string{"service query Q -o json", "sas inspect - --", "--", "service reboot -l=a --to", "- - -"} {
		f.Add(seed)
	}
	commands := newApp(output.Streams{}).Commands
	f.Fuzz(func(t *testing.T, line string) {
		once := command.Arrange(commands, append([]string{"iotdm"}, strings.Fields(line)...))
		if diff := cmp.Diff(once, command.Arrange(commands, once)); diff != "" {
			t.Errorf("arranging %q twice differs from arranging it once (-once +twice):\n%s", line, diff)
		}
	})
}
