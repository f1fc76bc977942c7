package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub/store"
)

// Of a store in a folder of 2000 keys, 1500 are in a file of sorted keys and the others in a log.
func TestCheckReadsAllThatIsNotDamaged(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	value := func(i int) string { return fmt.Sprintf("%0200d", i*7919%1000003) }
	for i := range 2000 {
		if err := put(db, fmt.Sprintf("key%05d", i), []byte(value(i))); err != nil {
			t.Fatal(err)
		}
		if i == 1499 {
			if err := store.Flush(db); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := store.Check(dir, nil); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Check of an open store: %v, want ErrLocked", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		pattern     string
		at          float64 // where a byte is damaged, of the size; negative: nowhere
		least, most int     // keys that are read
		damage      string  // what is told
		opens       bool
	}{
		{"nothing", "*.sst", -1, 2000, 2000, "", true},
		{"a block of sorted keys", "*.sst", 0.3, 1600, 1999, ".sst: ", true},
		{"the first block", "*.sst", 0.001, 1600, 1999, ".sst: ", true},
		{"the end of the file of sorted keys, which cannot be used then", "*.sst", 0.99, 500, 500, ".sst: ", true},
		{"a log", "*.log", 0.1, 1500, 1999, ".log: ", false},
		{"the manifest, without which nothing is known", "MANIFEST-*", 0.1, 0, 0, "MANIFEST-", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			damaged := t.TempDir()
			if err := os.CopyFS(damaged, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(damaged, tt.pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("files %v, %v", files, err)
			}
			if file := files[len(files)-1]; tt.at >= 0 {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				content[int(float64(len(content))*tt.at)] ^= 0x10
				if err := os.WriteFile(file, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, again := range []bool{false, true} { // it changes nothing
				n, last := 0, ""
				damage, err := store.Check(damaged, func(k, v []byte) error {
					var i int
					if _, err := fmt.Sscanf(string(k), "key%d", &i); err != nil || string(v) != value(i) || string(k) <= last {
						t.Errorf("key %s behind %s has %s", k, last, v)
					}
					n, last = n+1, string(k)
					return nil
				})
				if n < tt.least || n > tt.most {
					t.Errorf("%d keys are read, want %d to %d", n, tt.least, tt.most)
				}
				told := strings.Join(damage, "\n")
				if err != nil {
					told = err.Error()
				}
				if (told != "") != (tt.damage != "") || !strings.Contains(told, tt.damage) || strings.Contains(told, "\n") || (err != nil) != (tt.most == 0) {
					t.Errorf("Check (again: %v) = %q, %v, want one place in %s", again, damage, err, tt.damage)
				}
				if err != nil && !errors.Is(err, store.ErrDamaged) {
					t.Errorf("Check: %v, want ErrDamaged", err)
				}
			}
			db, err := store.Open(damaged, nil)
			if (err == nil) != tt.opens || err != nil && !errors.Is(err, store.ErrDamaged) {
				t.Errorf("Open: %v", err)
			}
			if err == nil {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	own := errors.New("enough")
	if _, err := store.Check(dir, func(k, v []byte) error { return own }); !errors.Is(err, own) {
		t.Errorf("Check with a function that fails: %v, want its error", err)
	}
}
