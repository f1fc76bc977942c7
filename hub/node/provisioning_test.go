package node

import (
	"regexp"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/sas"
)

func TestTheIDScopeLastsAsLongAsTheCA(t *testing.T) {
	dir := t.TempDir()
	scope := func(opt Options) string {
		t.Helper()
		n, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		return n.IDScope()
	}
	first := scope(Options{Storage: Folder(dir)})
	if !regexp.MustCompile(`^0ne[0-9A-F]{8}$`).MatchString(first) {
		t.Errorf("id scope %s", first)
	}
	if again := scope(Options{Storage: Folder(dir)}); again != first {
		t.Errorf("after a restart %s, want %s", again, first)
	}
	if other := scope(Options{}); other == first {
		t.Errorf("another hub has the same, %s", other)
	}
	if own := scope(Options{Storage: Folder(dir), IDScope: "0ne00ABCDEF"}); own != "0ne00ABCDEF" {
		t.Errorf("an id scope that was given has become %s", own)
	}
}

func TestSettingsOfProvisioningAreChecked(t *testing.T) {
	for name, tt := range map[string]struct {
		opt  Options
		want string
	}{
		"an id scope that is a path":       {Options{IDScope: "a/b"}, `id scope "a/b": it must be 0ne and more letters and digits`},
		"a linked hub by a device":         {Options{LinkedHubs: []sas.ConnectionString{{HostName: "h", DeviceID: "d", SharedAccessKey: "a2V5"}}}, "connection string of a linked hub: "},
		"a linked hub without a host name": {Options{LinkedHubs: []sas.ConnectionString{{SharedAccessKeyName: "service", SharedAccessKey: "a2V5"}}}, "connection string of a linked hub: "},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := New(tt.opt)
			if err == nil {
				n.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "a2V5") {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
