package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUpdateRecordThatMakesNoSense(t *testing.T) {
	file := filepath.Join(t.TempDir(), "update.json")
	for content, want := range map[string]string{
		`{"version":"1","phase":"applying"}`:               `is damaged: it is applying nothing`,
		`{"version":"1","request":{},"phase":"polishing"}`: `is damaged, or of a newer version: "polishing" is no phase of an update`,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := readUpdateRecord(file); err == nil || err.Error() != file+" "+want || r.Version != "" {
			t.Errorf("%s is read as %+v, error %v; want %s", content, r, err, want)
		}
	}
}
