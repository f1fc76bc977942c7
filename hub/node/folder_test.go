package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

func mustOpenFolder(t *testing.T, dir string, policies ...hub.Policy) *folder {
	t.Helper()
	f, err := openFolder(folderOptions{storage: Folder(dir), policies: policies, now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustClose(t *testing.T, f *folder) {
	t.Helper()
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadersSeeARunningHubOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "hub")
	if _, err := ReadInfo(dir); !errors.Is(err, ErrNeverRun) {
		t.Errorf("ReadInfo before the first run = %v", err)
	}
	f := mustOpenFolder(t, dir)
	if _, err := ReadInfo(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("ReadInfo before the hub listens = %v", err)
	}
	want := Info{HostName: "localhost", MQTTSAddr: "127.0.0.1:8883", HTTPSAddr: "127.0.0.1:443"}
	if err := f.publish(want); err != nil {
		t.Fatal(err)
	}
	want.PID = os.Getpid()
	want.CAFile, want.BundleFile = filepath.Join(dir, caFile), filepath.Join(dir, bundleFile)
	want.Policies = f.policies()
	got, err := ReadInfo(dir)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("ReadInfo while running: %v (-want +got):\n%s", err, diff)
	}
	if _, err := openFolder(folderOptions{storage: Folder(dir), now: time.Now}); !errors.Is(err, ErrFolderInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second hub: %v, want an error with the process", err)
	}
	mustClose(t, f)
	got, err = ReadInfo(dir)
	if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err, ErrNotRunning) {
		t.Errorf("ReadInfo after the end: %v (-want +got):\n%s", err, diff)
	}
	mustClose(t, mustOpenFolder(t, dir))
}

func TestFilesWithSecretsAreForTheOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	dir := filepath.Join(t.TempDir(), "hub")
	f := mustOpenFolder(t, dir)
	if _, err := f.certs.leaf(&f.certs.rsa); err != nil {
		t.Fatal(err)
	}
	mustClose(t, f)
	got := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		name, _ := filepath.Rel(dir, path)
		got[name] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		".": fs.ModeDir | 0o700, lockFile: 0o600, infoFile: 0o600, policiesFile: 0o600,
		caKeyFile: 0o600, leafFile: 0o600, rsaLeafFile: 0o600, caFile: 0o644, bundleFile: 0o644,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAFolderThatOthersCanReadIsTightened(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	dir := filepath.Join(t.TempDir(), "hub")
	mustClose(t, mustOpenFolder(t, dir))
	open := map[string]fs.FileMode{".": 0o755, policiesFile: 0o640, caKeyFile: 0o644, caFile: 0o644}
	for name, mode := range open {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	f := mustOpenFolder(t, dir)
	mustClose(t, f)
	want := []string{fmt.Sprintf("others could read %s, %s, %s; only this user can now", dir, filepath.Join(dir, policiesFile), filepath.Join(dir, caKeyFile))}
	if diff := cmp.Diff(want, f.warnings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, want := range map[string]fs.FileMode{".": 0o700, policiesFile: 0o600, caKeyFile: 0o600, caFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
	}
	f = mustOpenFolder(t, dir)
	mustClose(t, f)
	if f.warnings != nil {
		t.Errorf("a second time: %s", f.warnings)
	}
}

func TestKilledHubIsNotRunning(t *testing.T) {
	const env = "HUB_TEST_FOLDER"
	if dir := os.Getenv(env); dir != "" { // the child
		f := mustOpenFolder(t, dir)
		if err := f.publish(Info{HostName: "localhost", HTTPSAddr: "127.0.0.1:443"}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("ready")
		time.Sleep(time.Hour) // until it is killed; in "select {}" a runtime without cgo sees a deadlock, and exits
		mustClose(t, f)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledHubIsNotRunning$")
	cmd.Env = append(os.Environ(), env+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
	}
	info, err := ReadInfo(dir)
	if err != nil || info.PID != cmd.Process.Pid {
		t.Errorf("ReadInfo = process %d, %v; want process %d", info.PID, err, cmd.Process.Pid)
	}
	if _, err := openFolder(folderOptions{storage: Folder(dir), now: time.Now}); !errors.Is(err, ErrFolderInUse) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("a second hub: %v, want an error with the process", err)
	}
	if err := Reset(dir); !errors.Is(err, ErrFolderInUse) {
		t.Errorf("Reset of a running hub: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := ReadInfo(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("ReadInfo after a kill = %v", err)
	}
	f := mustOpenFolder(t, dir)
	if diff := cmp.Diff(info.Policies, f.policies()); diff != "" {
		t.Errorf("policies after a kill (-want +got):\n%s", diff)
	}
	mustClose(t, f)
}

func TestPoliciesAreKept(t *testing.T) {
	dir := t.TempDir()
	f := mustOpenFolder(t, dir)
	first := f.policies()
	mustClose(t, f)
	var rights []string
	keys := map[sas.Key]bool{}
	for _, p := range first {
		rights = append(rights, fmt.Sprint(p.Name, p.Rights))
		keys[p.PrimaryKey], keys[p.SecondaryKey] = true, true
	}
	want := []string{
		"iothubowner[RegistryRead RegistryWrite ServiceConnect DeviceConnect]", "service[ServiceConnect]", "device[DeviceConnect]",
		"registryRead[RegistryRead]", "registryReadWrite[RegistryRead RegistryWrite]",
		"provisioningserviceowner[ServiceConfig EnrollmentRead EnrollmentWrite RegistrationStatusRead RegistrationStatusWrite]",
	}
	if diff := cmp.Diff(want, rights); diff != "" || len(keys) != 12 {
		t.Errorf("%d keys, rights (-want +got):\n%s", len(keys), diff)
	}

	key := sas.NewKey()
	f = mustOpenFolder(t, dir, hub.Policy{Name: "SERVICE", PrimaryKey: key}, hub.Policy{Name: "mine", Rights: []hub.Right{hub.DeviceConnect}, SecondaryKey: key})
	second := f.policies()
	mustClose(t, f)
	changed := append([]hub.Policy{}, first...)
	changed[1].PrimaryKey = key
	changed = append(changed, hub.Policy{Name: "mine", Rights: []hub.Right{hub.DeviceConnect}, PrimaryKey: second[6].PrimaryKey, SecondaryKey: key})
	if diff := cmp.Diff(changed, second); diff != "" {
		t.Errorf("with further policies (-want +got):\n%s", diff)
	}
	f = mustOpenFolder(t, dir)
	if diff := cmp.Diff(second, f.policies()); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	mustClose(t, f)
}

// A folder of a hub before the provisioning service gets its policy, which then
// stays as it is.
func TestAnOlderFolderGetsThePolicyOfTheProvisioningService(t *testing.T) {
	dir := t.TempDir()
	old, err := os.ReadFile("testdata/old/policies.json")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, policiesFile), old)
	want, err := readPolicies(filepath.Join(dir, policiesFile))
	if err != nil {
		t.Fatal(err)
	}
	f := mustOpenFolder(t, dir)
	got := f.policies()
	mustClose(t, f)
	if len(got) != len(want)+1 || got[len(want)].Name != ProvisioningPolicy {
		t.Fatalf("%d policies have become %d", len(want), len(got))
	}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Errorf("the others (-want +got):\n%s", diff)
	}
	f = mustOpenFolder(t, dir)
	if diff := cmp.Diff(got, f.policies()); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	mustClose(t, f)
}

func TestFolderThatCannotBeUsedSaysWhy(t *testing.T) {
	used := func(t *testing.T) string {
		dir := t.TempDir()
		mustClose(t, mustOpenFolder(t, dir))
		return dir
	}
	for _, tt := range []struct {
		name   string
		dir    func(t *testing.T) string
		policy hub.Policy
		want   string
	}{
		{name: "a file in its place", want: "not a directory", dir: func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(file, "hub")
		}},
		{name: "no right to write", want: "permission denied; give this user the right to it, or use another folder", dir: func(t *testing.T) string {
			if os.Getuid() <= 0 {
				t.Skip("root, and Windows, may write everywhere")
			}
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o500); err != nil {
				t.Fatal(err)
			}
			return dir
		}},
		{name: "damaged policies", want: policiesFile, dir: func(t *testing.T) string {
			dir := used(t)
			if err := os.WriteFile(filepath.Join(dir, policiesFile), []byte(`[{"name":`), 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}},
		{name: "a policy with an unknown right", want: `unknown right "Fly"`, dir: used, policy: hub.Policy{Name: "p", Rights: []hub.Right{"Fly"}}},
		{name: "a policy with a bad name", want: `policy "a b"`, dir: used, policy: hub.Policy{Name: "a b"}},
		{name: "a policy with a bad key", want: "policy p: ", dir: used, policy: hub.Policy{Name: "p", PrimaryKey: "not base64!"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.dir(t)
			var policies []hub.Policy
			if tt.policy.Name != "" {
				policies = append(policies, tt.policy)
			}
			_, err := openFolder(folderOptions{storage: Folder(dir), policies: policies, now: time.Now})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Errorf("openFolder = %v, want one line with %q and the folder", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "not base64!") {
				t.Errorf("%v tells the key", err)
			}
		})
	}
}

func TestResetDeletesTheHubAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	if err := Reset(dir); !errors.Is(err, ErrNeverRun) {
		t.Errorf("Reset of an empty folder = %v", err)
	}
	n, err := New(Options{Storage: Folder(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "mine.txt")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Reset(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if diff := cmp.Diff([]string{mine}, left); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := ReadInfo(dir); !errors.Is(err, ErrNeverRun) {
		t.Errorf("ReadInfo after Reset = %v", err)
	}
}

func TestDefaultFolderFollowsXDG(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("another system's rule")
	}
	t.Setenv("HOME", "/home/u")
	for _, tt := range []struct{ xdg, want string }{
		{"", "/home/u/.local/share/iotdm/hub"},
		{"/data", "/data/iotdm/hub"},
		{"relative", "/home/u/.local/share/iotdm/hub"},
	} {
		t.Setenv("XDG_DATA_HOME", tt.xdg)
		if got, err := DefaultFolder(); got != tt.want || err != nil {
			t.Errorf("DefaultFolder with XDG_DATA_HOME=%q = %q, %v, want %q", tt.xdg, got, err, tt.want)
		}
	}
}

func BenchmarkOpenFolder(b *testing.B) {
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			f, err := openFolder(folderOptions{storage: Folder(b.TempDir()), now: time.Now})
			if err != nil {
				b.Fatal(err)
			}
			f.close()
		}
	})
	b.Run("again", func(b *testing.B) {
		dir := b.TempDir()
		for b.Loop() {
			f, err := openFolder(folderOptions{storage: Folder(dir), now: time.Now})
			if err != nil {
				b.Fatal(err)
			}
			f.close()
		}
	})
}
