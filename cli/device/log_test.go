package device

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/mqttdevice"
)

func TestAgentLog(t *testing.T) {
	var got []string
	log := slog.New(AgentLog{func(_ slog.Level, line string) { got = append(got, line) }}).With("device", "d1")
	oops := errors.New("oops")
	log.Info("unknown direct method", "method", "a\x1b[2J")
	log.Info("factory reset", "status", "done", "detail", "")
	log.Info("factory reset", "status", "error", "detail", "exit status 1")
	log.Info("the machine has booted, and nobody had asked for it", "booted", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))
	log.Warn("the command of a direct method cannot run", "method", "typo", "error", oops)
	log.Warn("the command of a direct method cannot run", "error", oops) // not with these words
	log.Info("update refused", "error", oops)
	log.Warn("the status is not written", "error", oops)
	log.Warn("a file in the spool is set aside", "file", "f", "error", oops)
	log.Error("something new", "count", 3)
	log.Debug("removing a segment")
	want := []string{
		`Unknown method "a\x1b[2J"`,
		"Factory reset: done",
		"Factory reset: error (exit status 1)",
		"The machine has booted at 2026-01-02T03:04:05Z, and nobody had asked for it",
		`iotdm: direct method "typo": oops; until that is mended it fails`,
		"iotdm: the command of a direct method cannot run: oops",
		"Update refused: oops",
		"iotdm: the status is not written: oops",
		"iotdm: a file in the spool is set aside: file f, error oops",
		"iotdm: something new: count 3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestLinkLog(t *testing.T) {
	var got []string
	link := LinkLog{Log: slog.New(AgentLog{func(_ slog.Level, line string) { got = append(got, line) }})}
	refused := errors.New("connection refused")
	link.Changed(mqttdevice.State{Status: mqttdevice.Connected}) // the first time
	link.Changed(mqttdevice.State{Status: mqttdevice.Disconnected, Reason: refused, Retry: 1234 * time.Millisecond})
	link.Changed(mqttdevice.State{Status: mqttdevice.Connected, Away: 5 * time.Second, Attempts: 3, Reason: refused, Addr: "h:443"})
	link.Changed(mqttdevice.State{Status: mqttdevice.Connected, Addr: "h:8883"})
	want := []string{
		"Not connected: connection refused; trying again in 1.2s",
		"Connected again after 5s, at attempt 3",
		"TCP is blocked (connection refused); using WebSocket at h:443",
		"TCP works again; using it at h:8883",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// What has other words here must be something that an agent logs, with the
// attributes that the words have.
func TestAgentLinesAreOfRecordsThatThereAre(t *testing.T) {
	logged := agentRecords(t)
	for message := range agentLines {
		keys, ok := logged[message]
		if !ok {
			t.Errorf("no agent logs %q", message)
			continue
		}
		r := slog.NewRecord(time.Now(), slog.LevelInfo, message, 0)
		for _, key := range keys {
			if key == "booted" {
				r.AddAttrs(slog.Time(key, time.Now()))
			} else {
				r.AddAttrs(slog.String(key, "x"))
			}
		}
		if text, ok := inOtherWords(r); !ok {
			t.Errorf("%q with %q gets no further than %q", message, keys, text)
		}
	}
}

// agentRecords reads in the source of package agent which records it logs: the
// keys, by message.
func agentRecords(t *testing.T) map[string][]string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/iotdm/iotdm/agent").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	sources, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	keys := make(map[string]string) // by the name of the constant
	text := func(e ast.Expr) string {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return ""
		}
		s, _ := strconv.Unquote(lit.Value) // which the parser has accepted
		return s
	}
	for _, name := range sources {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
				keys[v.Names[0].Name] = text(v.Values[0])
			}
			return true
		})
	}
	logged := make(map[string][]string)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "Info" && f.Sel.Name != "Warn" && f.Sel.Name != "Error" {
				return true
			}
			message := text(call.Args[0])
			logged[message] = nil
			for i := 1; i < len(call.Args); i += 2 {
				if id, ok := call.Args[i].(*ast.Ident); ok {
					logged[message] = append(logged[message], keys[id.Name])
				}
			}
			return true
		})
	}
	return logged
}
