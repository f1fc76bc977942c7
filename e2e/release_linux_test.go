package e2e

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A release is what .ci/release has made.
type release struct {
	dir     string
	version string
	sums    map[string]string // SHA-256 by file name
}

func findRelease(t *testing.T) release {
	t.Helper()
	r := release{dir: filepath.Join("..", "dist"), sums: map[string]string{}}
	text, err := os.ReadFile(filepath.Join(r.dir, "checksums.txt"))
	if err != nil {
		skip(t, "there is no release in dist: run .ci/release")
	}
	for line := range strings.Lines(string(text)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		r.sums[name] = sum
		if version, ok := strings.CutSuffix(name, "_windows_amd64.zip"); ok {
			r.version = strings.TrimPrefix(version, "iotdm_")
		}
	}
	return r
}

// path is that of the file that the pattern matches, with VERSION for the version.
func (r release) path(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, strings.ReplaceAll(pattern, "VERSION", r.version)))
	if err != nil || len(found) != 1 {
		t.Fatalf("there are %d files %s in dist, want one (%v)", len(found), pattern, err)
	}
	return found[0]
}

func TestReleaseFiles(t *testing.T) {
	r := findRelease(t)
	v := r.version
	tilde := strings.Replace(v, "-", "~", 1) // as Debian and RPM write that it comes before
	want := []string{
		"iotdm-" + tilde + "-1.aarch64.rpm", "iotdm-" + tilde + "-1.armv6hl.rpm", "iotdm-" + tilde + "-1.x86_64.rpm",
		"iotdm_" + tilde + "_amd64.deb", "iotdm_" + tilde + "_arm64.deb", "iotdm_" + tilde + "_armhf.deb",
		"iotdm_" + v + "_image_linux_amd64.tar", "iotdm_" + v + "_image_linux_arm64.tar",
	}
	for _, platform := range []string{"darwin_arm64", "linux_amd64", "linux_arm64", "linux_armv6"} {
		want = append(want, "iotdm_"+v+"_"+platform+".tar.gz", "iotdm_"+v+"_"+platform+".cdx.json")
	}
	want = append(want, "iotdm_"+v+"_windows_amd64.zip", "iotdm_"+v+"_windows_amd64.cdx.json")
	slices.Sort(want)
	var got []string
	for name, sum := range r.sums {
		got = append(got, name)
		text, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if is := sha256.Sum256(text); hex.EncodeToString(is[:]) != sum {
			t.Errorf("the checksum of %s is wrong", name)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestReleasePrograms takes the programs out of their archives.
func TestReleasePrograms(t *testing.T) {
	r := findRelease(t)
	for _, p := range []struct{ platform, goos, goarch string }{
		{"linux_amd64", "linux", "amd64"},
		{"linux_arm64", "linux", "arm64"},
		{"linux_armv6", "linux", "arm"},
		{"darwin_arm64", "darwin", "arm64"},
		{"windows_amd64", "windows", "amd64"},
	} {
		t.Run(p.platform, func(t *testing.T) {
			dir, name := t.TempDir(), "iotdm_"+r.version+"_"+p.platform
			unpack, suffix, program := []string{"tar", "-C", dir, "-xzf"}, ".tar.gz", "iotdm"
			if p.goos == "windows" {
				unpack, suffix, program = []string{"unzip", "-q", "-d", dir}, ".zip", "iotdm.exe"
			}
			if _, err := exec.LookPath(unpack[0]); err != nil {
				skip(t, unpack[0]+" is not installed")
			}
			if out, err := exec.Command(unpack[0], append(unpack[1:], r.path(t, name+suffix))...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, beside := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
				if _, err := os.Stat(filepath.Join(dir, name, beside)); err != nil {
					t.Error(err)
				}
			}
			file := filepath.Join(dir, name, program)
			info, err := buildinfo.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			settings := map[string]string{}
			for _, s := range info.Settings {
				settings[s.Key] = s.Value
			}
			got := []string{settings["GOOS"], settings["GOARCH"], settings["CGO_ENABLED"], settings["-trimpath"]}
			if diff := cmp.Diff([]string{p.goos, p.goarch, "0", "true"}, got); diff != "" {
				t.Errorf("how it was built (-want +got):\n%s", diff)
			}
			var bom struct {
				BOMFormat  string `json:"bomFormat"`
				Components []struct{ Name, Version string }
			}
			text, err := os.ReadFile(r.path(t, name+".cdx.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &bom); err != nil {
				t.Fatal(err)
			}
			listed := map[string]string{}
			for _, c := range bom.Components {
				listed[c.Name] = c.Version
			}
			for _, module := range info.Deps {
				if listed[module.Path] != module.Version {
					t.Errorf("of %s %s the list of components has %q", module.Path, module.Version, listed[module.Path])
				}
			}
			if p.goos != runtime.GOOS || p.goarch != runtime.GOARCH {
				return
			}
			elf, err := elf.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer elf.Close()
			if libraries, err := elf.ImportedLibraries(); err != nil || len(libraries) > 0 || elf.Section(".interp") != nil || elf.Section(".symtab") != nil {
				t.Errorf("the program is not static and stripped: it wants %q (%v)", libraries, err)
			}
			out, err := exec.Command(file, "--version").Output()
			if err != nil || !strings.HasPrefix(string(out), "iotdm "+r.version+" linux/") {
				t.Errorf("iotdm --version prints %q (%v)", out, err)
			}
		})
	}
}

// TestRPM compares what the .rpm holds with the .deb, which TestPackage installs.
func TestRPM(t *testing.T) {
	r := findRelease(t)
	for _, tool := range []string{"rpm", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, tool+" is not installed")
		}
	}
	list := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s %q: %v", name, args, err)
		}
		return string(out)
	}
	var want []string
	for line := range strings.Lines(list("dpkg-deb", "--contents", r.path(t, "iotdm_*_amd64.deb"))) {
		mode, rest, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(mode, "d") {
			file := strings.TrimPrefix(rest[strings.LastIndex(rest, " ")+1:], ".")
			want = append(want, mode+" "+strings.Replace(strings.TrimSpace(file), "/zsh/vendor-completions/", "/zsh/site-functions/", 1))
		}
	}
	rpm := r.path(t, "iotdm-*.x86_64.rpm")
	got := strings.Split(strings.TrimSpace(list("rpm", "-qp", "--queryformat", `[%{FILEMODES:perms} %{FILENAMES}\n]`, rpm)), "\n")
	sortByPath := func(a, b string) int { return strings.Compare(a[strings.Index(a, " "):], b[strings.Index(b, " "):]) }
	slices.SortFunc(want, sortByPath)
	slices.SortFunc(got, sortByPath)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files of the .rpm (-.deb +.rpm):\n%s", diff)
	}
	if diff := cmp.Diff("/etc/iotdm/device.yaml\n/etc/iotdm/hub.env\n", list("rpm", "-qp", "--configfiles", rpm)); diff != "" {
		t.Errorf("configuration files (-want +got):\n%s", diff)
	}
	for _, script := range []string{"postinstall", "preuninstall", "postuninstall"} {
		if !strings.Contains(list("rpm", "-qp", "--scripts", rpm), script+" scriptlet") {
			t.Errorf("the .rpm has no script %s", script)
		}
	}
	if out, err := exec.Command("rpm", "-Kv", rpm).CombinedOutput(); err != nil && !bytes.Contains(out, []byte("NOT FOUND")) {
		t.Errorf("rpm -K: %v\n%s", err, out)
	}
}

// TestPackage installs, runs, upgrades and removes the .deb under systemd.
func TestPackage(t *testing.T) {
	r := findRelease(t)
	runInContainers(t, "machine.sh", r.path(t, "iotdm_*_"+runtime.GOARCH+".deb"))
}

// TestImage runs the container image.
func TestImage(t *testing.T) {
	r := findRelease(t)
	runInContainers(t, "container.sh", r.path(t, "iotdm_VERSION_image_linux_"+runtime.GOARCH+".tar"), r.version)
}

// runInContainers runs a script of testdata that needs podman.
func runInContainers(t *testing.T, script string, args ...string) {
	t.Helper()
	for _, tool := range []string{"podman", "runc", "curl", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, tool+" is not installed")
		}
	}
	if out, err := exec.Command("unshare", "--mount", "--net", "true").CombinedOutput(); err != nil {
		t.Skipf("this user or machine cannot make containers, and nothing can be installed for that: %s", out)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "sh", filepath.Join("testdata", script)}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "IOT") })
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
}
