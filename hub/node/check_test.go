package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
)

// oldFolder returns a copy of the data folder that an older hub wrote.
func oldFolder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hub")
	if err := os.CopyFS(dir, os.DirFS("testdata/old")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// snapshot returns what is in the files of a folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCheckSavesAllThatIsReadable(t *testing.T) {
	flip := func(pattern string, part float64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %v, %v", pattern, files, err)
			}
			text, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			text[int(float64(len(text))*part)] ^= 0x10
			if err := os.WriteFile(files[0], text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		damage  func(t *testing.T, dir string)
		part    string // that is damaged
		told    string // in one line of it
		devices int    // of the hub that starts with what was saved
	}{
		{"nothing", func(*testing.T, string) {}, "", "", 6},
		{"where it listened", flip(infoFile, 0), infoFile, "a hub that starts replaces it", 6},
		{"the policies", flip(policiesFile, 0), policiesFile, "restore it, or remove it", 6},
		{"no policies", remove(policiesFile), policiesFile, "new keys", 6},
		{"the CA", flip(caKeyFile, 0), caKeyFile, "new CA, which devices have to be given", 6},
		{"a certificate", flip(leafFile, 0), leafFile, "makes a new one", 6},
		{"an event", flip(eventFolder+"/*", 0.5), eventFolder, "those behind them are read", 6},
		{"the only block of the store", flip(storeFolder+"/*.sst", 0.3), storeFolder, "000005.sst", 0},
		{"the store as a whole", flip(storeFolder+"/MANIFEST-000006", 0.1), storeFolder, "MANIFEST-000006", 0},
		{"no store", remove(storeFolder), "", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := oldFolder(t)
			tt.damage(t, dir)
			if err := os.WriteFile(filepath.Join(dir, lockFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, dir)
			save := filepath.Join(t.TempDir(), "a", "b")
			report, err := Check(dir, save)
			if err != nil {
				t.Fatal(err)
			}
			damaged := map[string]string{}
			for _, p := range report.Parts {
				if len(p.Damage) > 0 {
					damaged[p.Name] = strings.Join(p.Damage, "\n")
				}
			}
			if tt.part == "" && len(damaged) > 0 || tt.part != "" && (len(damaged) != 1 || !strings.Contains(damaged[tt.part], tt.told)) || report.Damaged() != (tt.part != "") {
				t.Errorf("damaged is %q, want %q: %q", damaged, tt.part, tt.told)
			}
			after := snapshot(t, dir)
			delete(before, filepath.Join(dir, storeFolder, "LOCK")) // the engine's own, empty
			delete(after, filepath.Join(dir, storeFolder, "LOCK"))
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("Check changes the folder (-before +after):\n%s", diff)
			}
			if _, err := Check(dir, save); !errors.Is(err, ErrNotEmpty) {
				t.Errorf("Check again: %v, want ErrNotEmpty", err)
			}
			n, err := New(Options{Storage: Folder(save)})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if _, err := Check(save, ""); !errors.Is(err, ErrFolderInUse) {
				t.Errorf("Check of a running hub: %v, want ErrFolderInUse", err)
			}
			stats, err := n.DeviceStatistics()
			if err != nil || stats.Total != tt.devices {
				t.Errorf("the hub has %+v, %v, want %d devices", stats, err, tt.devices)
			}
			events := 0
			for _, err := range n.Events(context.Background(), hub.EventQuery{}) {
				if err != nil {
					t.Fatal(err)
				}
				events++
			}
			if events < 23 {
				t.Errorf("the hub has %d events", events)
			}
		})
	}
	if _, err := Check(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, ErrNeverRun) {
		t.Errorf("Check of nothing: %v, want ErrNeverRun", err)
	}
}

func TestAHubOfADamagedStoreSaysSo(t *testing.T) {
	dir := oldFolder(t)
	if err := os.WriteFile(filepath.Join(dir, storeFolder, "MANIFEST-000006"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Storage: Folder(dir)}); !errors.Is(err, ErrDamaged) || !strings.Contains(fmt.Sprint(err), "MANIFEST-000006") {
		t.Errorf("New: %v, want ErrDamaged with the file", err)
	}
}
