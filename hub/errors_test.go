package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
)

func TestRefusalOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want *Error
	}{
		{ErrDeviceNotFound, ErrDeviceNotFound},
		{fmt.Errorf("wrapped: %w", ErrModuleNotFound.With("m")), ErrModuleNotFound},
		{fmt.Errorf("write: %w", store.ErrFull), ErrServiceUnavailable},
		{fmt.Errorf("write: %w", store.ErrStalled), ErrServiceUnavailable},
		{fmt.Errorf("write: %w", eventlog.ErrUnwritten), ErrServiceUnavailable},
		{fmt.Errorf("write: %w", syscall.ENOSPC), ErrServiceUnavailable},
		{store.ErrClosed, ErrServiceUnavailable},
		{context.Canceled, ErrServiceUnavailable},
		{errors.New("surprise"), ErrServer},
	} {
		if got := RefusalOf(tt.err); !errors.Is(got, tt.want) || got.Status != tt.want.Status {
			t.Errorf("RefusalOf(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

// SDKs recognise an error by its status, number and name together, and the
// Node SDK needs a text besides.
func TestErrorTable(t *testing.T) {
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`&Error\{Status: (\d+), Code: (\d+), Name: "(\w+)", Text: "[^;"]+"\}`).FindAllSubmatch(source, -1)
	if want := bytes.Count(source, []byte("&Error{")); len(rows) != want {
		t.Errorf("%d of %d rows have a status, a number, a name and a text without ;", len(rows), want)
	}
	seen := make(map[string]bool)
	for _, row := range rows {
		status, code, name := string(row[1]), string(row[2]), string(row[3])
		if !strings.HasPrefix(code, status) || len(code) != 6 {
			t.Errorf("%s: number %s with status %s", name, code, status)
		}
		if seen[code] || seen[name] {
			t.Errorf("%s, %s occurs twice", name, code)
		}
		seen[code], seen[name] = true, true
	}
}
