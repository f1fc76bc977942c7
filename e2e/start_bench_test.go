package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkStart measures how long a program takes that does next to nothing:
// the help of every command of iotdm, and beside it the interpreters that
// scripts for IoT Hub are run by.
func BenchmarkStart(b *testing.B) {
	iotdm := filepath.Join(b.TempDir(), "iotdm")
	if out, err := exec.Command("go", "build", "-o", iotdm, "..").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	b.Run("version", func(b *testing.B) { benchmarkStart(b, iotdm, []string{"version"}) })
	b.Run("help", func(b *testing.B) {
		var all [][]string
		for _, command := range commandsOf(b, iotdm, nil) {
			all = append(all, append(command, "--help"))
		}
		benchmarkStart(b, iotdm, all...)
	})
	for _, baseline := range [][]string{{"python3", "-c", "pass"}, {"node", "-e", "0"}} {
		b.Run(baseline[0], func(b *testing.B) {
			if _, err := exec.LookPath(baseline[0]); err != nil {
				b.Skip(baseline[0] + " is not installed")
			}
			benchmarkStart(b, baseline[0], baseline[1:])
		})
	}
}

// commandsOf returns the commands behind some words, which complete themselves.
func commandsOf(b *testing.B, iotdm string, words []string) (commands [][]string) {
	out, err := exec.Command(iotdm, append(words, "--generate-bash-completion")...).Output()
	if err != nil {
		b.Fatalf("iotdm %s: %v", strings.Join(words, " "), err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if len(words) == 0 || name != words[len(words)-1] {
			command := append(append([]string{}, words...), name)
			if help, err := exec.Command(iotdm, append(command, "--help")...).Output(); err == nil && strings.HasPrefix(string(help), "NAME:\n   iotdm "+strings.Join(command, " ")+" ") {
				commands = append(append(commands, command), commandsOf(b, iotdm, command)...)
			}
		}
	}
	return commands
}

// benchmarkStart runs the program with each of the command lines in turn, and
// reports the mean and the slowest, each of them the fastest of its runs: what
// else the machine does only adds to a time.
func benchmarkStart(b *testing.B, program string, lines ...[]string) {
	best := make([]time.Duration, len(lines))
	for b.Loop() {
		for i, args := range lines {
			began := time.Now()
			if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
				b.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
			}
			if took := time.Since(began); best[i] == 0 || took < best[i] {
				best[i] = took
			}
		}
	}
	var sum, slowest time.Duration
	for _, d := range best {
		sum, slowest = sum+d, max(slowest, d)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(lines)), "commands")
	b.ReportMetric(float64(sum.Microseconds())/1000/float64(len(lines)), "ms/start")
	b.ReportMetric(float64(slowest.Microseconds())/1000, "ms-slowest")
}
