package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
)

// A CheckReport says what of a data folder can be read.
type CheckReport struct {
	Parts []CheckedPart
	Saved string // the folder that everything readable was written to, or empty
}

// Damaged reports whether something cannot be read.
func (r CheckReport) Damaged() bool {
	for _, p := range r.Parts {
		if len(p.Damage) > 0 {
			return true
		}
	}
	return false
}

// A CheckedPart is a file or folder of a data folder.
type CheckedPart struct {
	Name   string
	Found  string   // what it has, for people
	Damage []string // what cannot be read, and what to do or what follows
	Note   string   // what is worth knowing, and no damage
}

// ErrNotEmpty means that the folder to save to has something in it.
var ErrNotEmpty = errors.New("the folder is not empty")

// Check reads all of the data folder dir of a hub that is stopped, and says
// what can be read. It changes nothing there. If save is not empty, it writes
// what can be read to a new data folder of that name, which must not be there
// or be empty: with it a hub starts that lacks what is lost.
//
// The error wraps [ErrNeverRun], [ErrFolderInUse] or [ErrNotEmpty], or says why
// nothing could be checked or saved.
func Check(dir, save string) (CheckReport, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return CheckReport{}, fmt.Errorf("data folder: %w", err)
	}
	c := checker{dir: dir}
	if !c.exists(infoFile) && !c.exists(storeFolder) && !c.exists(policiesFile) {
		return CheckReport{}, fmt.Errorf("%w: %s", ErrNeverRun, dir)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return CheckReport{}, err
	}
	defer lock.Close()
	if save != "" {
		if c.save, err = newFolder(save); err != nil {
			return CheckReport{}, err
		}
	}
	for _, check := range []func() error{c.info, c.policies, c.certificates, c.store, c.events} {
		if err := check(); err != nil {
			return CheckReport{}, err
		}
	}
	c.report.Saved = c.save
	return c.report, nil
}

// newFolder makes an empty folder.
func newFolder(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, folderMode)
	}
	if err != nil {
		return "", folderProblem(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", folderProblem(dir, err)
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("%w: %s; name one that is not there yet", ErrNotEmpty, dir)
	}
	return dir, nil
}

type checker struct {
	dir, save string
	report    CheckReport
}

func (c *checker) exists(name string) bool {
	_, err := os.Stat(filepath.Join(c.dir, name))
	return err == nil
}

func (c *checker) add(p CheckedPart) { c.report.Parts = append(c.report.Parts, p) }

// keep writes a file of the folder to the one that is saved to.
func (c *checker) keep(name string, mode fs.FileMode) error {
	if c.save == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err == nil {
		err = writeFile(filepath.Join(c.save, name), text, mode)
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}

func (c *checker) info() error {
	part := CheckedPart{Name: infoFile, Found: "where the hub listened"}
	_, err := readState(c.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		part.Found, part.Note = "", "not there; a hub that starts writes it"
	case err != nil:
		part.Found, part.Damage = "", []string{err.Error() + "; a hub that starts replaces it"}
	}
	c.add(part)
	if c.save == "" {
		return nil
	}
	text, err := json.MarshalIndent(state{}, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.save, infoFile), text, secretMode)
}

func (c *checker) policies() error {
	part := CheckedPart{Name: policiesFile}
	list, err := readPolicies(filepath.Join(c.dir, policiesFile))
	switch {
	case err != nil:
		part.Damage = []string{err.Error()}
	case list == nil:
		part.Damage = []string{"not there; a hub that starts makes new keys"}
	default:
		part.Found = fmt.Sprintf("%d shared access policies", len(list))
		err = c.keep(policiesFile, secretMode)
		c.add(part)
		return err
	}
	c.add(part)
	return nil
}

// certificates checks the CA, which devices trust, and the certificates that
// it signed, which a hub makes anew.
func (c *checker) certificates() error {
	for _, f := range []struct{ name, what, lost string }{
		{caKeyFile, "the CA", "; restore it, or remove it to have the hub make a new CA, which devices have to be given"},
		{leafFile, "a certificate", "; a hub that starts makes a new one"},
		{rsaLeafFile, "a certificate", "; a hub that needs it makes a new one"},
	} {
		part := CheckedPart{Name: f.name}
		_, err := tls.LoadX509KeyPair(filepath.Join(c.dir, f.name), filepath.Join(c.dir, f.name))
		switch {
		case errors.Is(err, fs.ErrNotExist) && f.name != caKeyFile:
			continue
		case errors.Is(err, fs.ErrNotExist):
			part.Damage = []string{"not there" + f.lost}
		case err != nil:
			part.Damage = []string{err.Error() + f.lost}
		default:
			part.Found = f.what
			if err := c.keep(f.name, secretMode); err != nil {
				return err
			}
		}
		c.add(part)
	}
	return nil
}

// store checks the store. What is saved of it lacks the index of changes, which
// a hub that starts makes anew.
func (c *checker) store() error {
	part := CheckedPart{Name: storeFolder}
	if !c.exists(storeFolder) {
		part.Note = "not there; a hub that keeps its state in memory has none"
		c.add(part)
		return nil
	}
	var to *store.DB
	if c.save != "" {
		var err error
		if to, err = store.Open(filepath.Join(c.save, storeFolder), nil); err != nil {
			return fmt.Errorf("save the store: %w", err)
		}
	}
	devices, modules, records := 0, 0, 0
	copier := copier{to: to}
	damage, err := store.Check(filepath.Join(c.dir, storeFolder), func(key, value []byte) error {
		records++
		switch name := string(key); {
		case strings.HasPrefix(name, disk.Device):
			devices++
		case strings.HasPrefix(name, disk.Module):
			modules++
		case strings.HasPrefix(name, disk.UpdatedDevice), strings.HasPrefix(name, disk.UpdatedModule), name == disk.UpdatedIndex:
			return nil
		}
		return copier.add(key, value)
	})
	if to != nil {
		if err := errors.Join(copier.flush(), to.Close()); err != nil {
			return fmt.Errorf("save the store: %w", err)
		}
	}
	if copier.err != nil {
		return fmt.Errorf("save the store: %w", copier.err)
	}
	part.Damage = damage
	if err != nil {
		part.Damage = append(part.Damage, err.Error()+"; nothing of it can be read: restore a copy of the data folder")
	}
	part.Found = fmt.Sprintf("%d devices, %d modules, %d records", devices, modules, records)
	c.add(part)
	return nil
}

// A copier writes keys and values to a store, many in a step.
type copier struct {
	to   *store.DB // nil copies nothing
	keys [][2][]byte
	size int
	err  error
}

func (c *copier) add(key, value []byte) error {
	if c.to == nil {
		return nil
	}
	c.keys = append(c.keys, [2][]byte{append([]byte(nil), key...), append([]byte(nil), value...)})
	if c.size += len(key) + len(value); c.size < 1<<20 {
		return nil
	}
	return c.flush()
}

func (c *copier) flush() error {
	if c.to == nil || len(c.keys) == 0 {
		return nil
	}
	c.err = c.to.Update("", func(tx *store.Tx) error {
		for _, kv := range c.keys {
			tx.Set(kv[0], kv[1])
		}
		return nil
	})
	c.keys, c.size = nil, 0
	return c.err
}

// events checks the event log. Its files are saved as they are: the log passes
// over what is damaged.
func (c *checker) events() error {
	part := CheckedPart{Name: eventFolder}
	dir := filepath.Join(c.dir, eventFolder)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		part.Note = "not there"
		c.add(part)
		return err
	}
	log, err := eventlog.Open(dir, eventlog.Options{})
	if err != nil {
		part.Damage = []string{err.Error()}
		c.add(part)
		return nil
	}
	defer log.Close()
	n := 0
	err = log.ReadOver(context.Background(), eventlog.All, eventlog.Position{}, nil, func(d eventlog.Damage) error {
		part.Damage = append(part.Damage, fmt.Sprintf("%d bytes at offset %d are no events; those behind them are read", d.Bytes, d.Offset))
		return nil
	}, func(eventlog.Record) error { n++; return nil })
	if err != nil {
		part.Damage = append(part.Damage, err.Error())
	}
	stats := log.Stats()
	if more := int(stats.Damaged) - len(part.Damage); more > 0 {
		part.Damage = append(part.Damage, fmt.Sprintf("the headers of %d files; what these hold was looked for", more))
	}
	part.Found = fmt.Sprintf("%d events", n)
	if stats.Tail > 0 {
		part.Note = fmt.Sprintf("the last %d bytes are no events: the hub was cut off as it wrote them, or they are damaged", stats.Tail)
	}
	c.add(part)
	if c.save == "" {
		return nil
	}
	if err := os.CopyFS(filepath.Join(c.save, eventFolder), os.DirFS(dir)); err != nil {
		return fmt.Errorf("save the events: %w", err)
	}
	return nil
}
