package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/store"
)

// badFS is a file system that fails on demand.
type badFS struct {
	vfs.FS
	free   atomic.Uint64                                    // answer of GetDiskUsage
	ops    atomic.Int64                                     // changing operations so far
	failOp atomic.Pointer[func(n int64, what string) error] // asked before each, n counts from 1
}

func newBadFS(inner vfs.FS) *badFS {
	b := &badFS{FS: inner}
	b.free.Store(1 << 30)
	return b
}

// fail has every operation from now on fail as f says; nil means none.
func (b *badFS) fail(f func(n int64, what string) error) {
	if f == nil {
		b.failOp.Store(nil)
		return
	}
	b.failOp.Store(&f)
}

func (b *badFS) op(what string) error {
	n := b.ops.Add(1)
	if f := b.failOp.Load(); f != nil {
		return (*f)(n, what)
	}
	return nil
}

func (b *badFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: b.free.Load(), TotalBytes: 10 << 30}, nil
}

func (b *badFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := b.op("create " + string(c)); err != nil {
		return nil, err
	}
	f, err := b.FS.Create(name, c)
	return &badFile{File: f, fs: b, c: string(c)}, err
}

func (b *badFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := b.op("create " + string(c)); err != nil {
		return nil, err
	}
	f, err := b.FS.ReuseForWrite(old, name, c)
	return &badFile{File: f, fs: b, c: string(c)}, err
}

func (b *badFS) Rename(old, name string) error {
	if err := b.op("rename"); err != nil {
		return err
	}
	return b.FS.Rename(old, name)
}

type badFile struct {
	vfs.File
	fs *badFS
	c  string
}

// Write writes half of p before it fails, as a disk does.
func (f *badFile) Write(p []byte) (int, error) {
	if err := f.fs.op("write " + f.c); err != nil {
		n, err2 := f.File.Write(p[:len(p)/2])
		return n, errors.Join(err, err2)
	}
	return f.File.Write(p)
}

func (f *badFile) Sync() error {
	if err := f.fs.op("sync " + f.c); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *badFile) SyncData() error {
	if err := f.fs.op("sync " + f.c); err != nil {
		return err
	}
	return f.File.SyncData()
}

func noSpace(_ int64, what string) error {
	if strings.HasPrefix(what, "sync") {
		return nil
	}
	return &os.PathError{Op: what, Path: "x", Err: syscall.ENOSPC}
}

func openFS(t *testing.T, fsys vfs.FS) *store.DB {
	t.Helper()
	db, err := store.OpenFS(fsys, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func put(db *store.DB, key string, value []byte) error {
	return db.Update(key, func(tx *store.Tx) error { tx.Set([]byte(key), value); return nil })
}

// checkHas reports keys that were acknowledged and are missing.
func checkHas(t *testing.T, db *store.DB, keys []string) {
	t.Helper()
	missing := 0
	for _, k := range keys {
		if _, err := db.Get([]byte(k)); err != nil {
			if missing++; missing < 5 {
				t.Errorf("acknowledged %s: %v", k, err)
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged writes are missing", missing, len(keys))
	}
}

// writers puts values until stop is closed or a put fails with an error that isn't ErrFull.
type writers struct {
	mu     sync.Mutex
	acked  []string
	full   int // puts refused
	err    error
	hooks  atomic.Int64
	stop   chan struct{}
	wg     sync.WaitGroup
	update chan struct{} // gets a token for every result, if someone takes it
}

func startWriters(db *store.DB, n, size int) *writers {
	w := &writers{stop: make(chan struct{}), update: make(chan struct{})}
	for i := range n {
		w.wg.Go(func() {
			value := make([]byte, size)
			for j := 0; ; j++ {
				key := fmt.Sprintf("w%d/%d", i, j)
				err := db.Update(key, func(tx *store.Tx) error {
					tx.Set([]byte(key), value)
					tx.OnCommit(func() { w.hooks.Add(1) })
					return nil
				})
				w.mu.Lock()
				switch {
				case err == nil:
					w.acked = append(w.acked, key)
				case errors.Is(err, store.ErrFull):
					w.full++
				default:
					w.err = err
				}
				w.mu.Unlock()
				select {
				case <-w.stop:
					return
				case w.update <- struct{}{}:
				default:
					runtime.Gosched()
				}
				if err != nil && !errors.Is(err, store.ErrFull) {
					return
				}
			}
		})
	}
	return w
}

// await returns when cond, which is called with w.mu held, is true.
func (w *writers) await(cond func() bool) {
	for {
		w.mu.Lock()
		ok := cond()
		w.mu.Unlock()
		if ok {
			return
		}
		<-w.update
	}
}

func (w *writers) end() {
	close(w.stop)
	w.wg.Wait()
}

func TestUpdateIsRefusedWhileLittleSpaceIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newBadFS(vfs.NewMem())
		db := openFS(t, fsys)
		if err := put(db, "a", []byte("1")); err != nil {
			t.Fatal(err)
		}
		fsys.free.Store(1 << 20)
		time.Sleep(time.Second) // the fake clock's: room looks again
		err := db.Update("a", func(tx *store.Tx) error {
			tx.Set([]byte("a"), []byte("2"))
			tx.OnCommit(func() { t.Error("OnCommit ran though the disk is full") })
			return nil
		})
		if !errors.Is(err, store.ErrFull) {
			t.Errorf("Update = %v, want ErrFull", err)
		}
		if v, err := db.Get([]byte("a")); string(v) != "1" || err != nil {
			t.Errorf("Get = %q, %v after a refused write", v, err)
		}
		if err := db.Update("a", func(*store.Tx) error { return nil }); err != nil {
			t.Errorf("Update that writes nothing = %v", err)
		}
		fsys.free.Store(1 << 30)
		time.Sleep(time.Second)
		if err := put(db, "a", []byte("3")); err != nil {
			t.Errorf("Update when there is space again = %v", err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingAcknowledgedIsLostWhenTheDiskFillsUp(t *testing.T) {
	fsys := newBadFS(vfs.NewMem())
	db := openFS(t, fsys)
	w := startWriters(db, 8, 4<<10)
	for range 3 {
		w.await(func() bool { return len(w.acked) > 200 })
		fsys.fail(noSpace)
		full := 0
		w.await(func() bool { full = w.full; return full > 20 })
		fsys.fail(nil)
		before := 0
		w.await(func() bool { before = len(w.acked); return true })
		w.await(func() bool { return len(w.acked) > before+200 })
	}
	w.end()
	if w.err != nil {
		t.Errorf("Update = %v", w.err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := int(w.hooks.Load()); n < len(w.acked) {
		t.Errorf("%d hooks ran for %d acknowledged writes", n, len(w.acked))
	}
	db = openFS(t, fsys)
	checkHas(t, db, w.acked)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseOnAFullDiskReturnsAndLosesNothing(t *testing.T) {
	fsys := newBadFS(vfs.NewMem())
	db := openFS(t, fsys)
	w := startWriters(db, 8, 4<<10)
	w.await(func() bool { return len(w.acked) > 200 })
	fsys.fail(noSpace)
	w.await(func() bool { return w.full > 20 })
	if err := db.Close(); !errors.Is(err, store.ErrFull) {
		t.Errorf("Close = %v, want ErrFull", err)
	}
	w.end()
	if !errors.Is(w.err, store.ErrClosed) {
		t.Errorf("Update after Close = %v, want ErrClosed", w.err)
	}
	fsys.fail(nil)
	db = openFS(t, fsys)
	checkHas(t, db, w.acked)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCompactionWithoutSpaceIsTriedAtLeisure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newBadFS(vfs.NewMem())
		db := openFS(t, fsys)
		var tries, made atomic.Int64
		fail := func(counter *atomic.Int64, err error) {
			fsys.fail(func(_ int64, what string) error {
				if what != "create pebble-compaction" {
					return nil
				}
				counter.Add(1)
				return err
			})
		}
		fail(&tries, syscall.ENOSPC)
		for range 10 {
			if err := put(db, "a", []byte("1")); err != nil {
				t.Fatal(err)
			}
			if err := store.Flush(db); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // the fake clock's
		if n := tries.Load(); n < 10 || n > 1000 {
			t.Errorf("%d tries in a minute", n)
		}
		if err := put(db, "a", []byte("2")); err != nil {
			t.Errorf("Update while there is no space to compact = %v", err)
		}
		fail(&made, nil)
		time.Sleep(time.Minute)
		if made.Load() == 0 {
			t.Error("no compaction when there is space again")
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAfterAFailedSyncChangesAreRefused(t *testing.T) {
	fsys := newBadFS(vfs.NewMem())
	db := openFS(t, fsys)
	w := startWriters(db, 8, 100)
	w.await(func() bool { return len(w.acked) > 200 })
	fsys.fail(func(_ int64, what string) error {
		if what == "sync pebble-wal" {
			return syscall.EIO
		}
		return nil
	})
	w.await(func() bool { return w.err != nil })
	w.end()
	fsys.fail(nil)
	for _, key := range []string{"later", w.acked[0]} {
		if err := put(db, key, nil); !errors.Is(err, store.ErrStalled) || !errors.Is(err, syscall.EIO) {
			t.Errorf("Update after a failed fsync = %v, want ErrStalled for EIO", err)
		}
	}
	checkHas(t, db, w.acked)
	if err := db.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close after a failed fsync = %v, want EIO", err)
	}
	db = openFS(t, fsys)
	checkHas(t, db, w.acked)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenOnAFullDiskReadsAndGoesOnWhenThereIsSpace(t *testing.T) {
	mem := vfs.NewMem()
	db := openFS(t, mem)
	keys := []string{"a", "b", "c"}
	for _, k := range keys {
		if err := put(db, k, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for n := int64(1); ; n++ {
		fsys := newBadFS(mem)
		full := fsys.fillUp(n)
		db := openFS(t, fsys)
		checkHas(t, db, keys)
		if !full() {
			if n < 5 {
				t.Errorf("Open took %d changing operations", n)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		if err := put(db, "a", nil); !errors.Is(err, store.ErrFull) {
			t.Errorf("Update with a disk full after %d operations = %v, want ErrFull", n, err)
		}
		if n%2 == 0 { // it may end without having written
			if err := db.Close(); err != nil {
				t.Errorf("Close with a disk full after %d operations: %v", n, err)
			}
			continue
		}
		// A reader that began before goes on with what it has.
		if err := db.View(func(v *store.View) error {
			fsys.fail(nil)
			key := fmt.Sprintf("after %d", n)
			awaitPut(t, db, key)
			keys = append(keys, key)
			_, err := v.Get([]byte("c"))
			return err
		}); err != nil {
			t.Errorf("a read that began before there was space: %v", err)
		}
		checkHas(t, db, keys)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOnAFullDiskReadersWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newBadFS(vfs.NewMem())
		db := openFS(t, fsys)
		if err := put(db, "a", nil); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		fsys.free.Store(1 << 20)
		db = openFS(t, fsys)
		goOn, done := make(chan struct{}), make(chan error, 3)
		go func() {
			done <- db.Update("a", func(*store.Tx) error { <-goOn; return nil })
		}()
		synctest.Wait()
		go func() {
			done <- db.Update("a", func(*store.Tx) error { return nil }) // the same lock
		}()
		synctest.Wait()
		var told []string
		go func() {
			_, err := db.Subscribe("a", func(c store.Change) { told = append(told, string(c.Key)) })
			done <- err
		}()
		synctest.Wait()
		close(goOn)
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("reading a store that takes no changes: %v", err)
			}
		}
		if diff := cmp.Diff([]string{"a"}, told); diff != "" {
			t.Errorf("told of a store that takes no changes (-want +got):\n%s", diff)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// fillUp has the disk full from the n-th changing operation on. full reports whether there was one.
func (b *badFS) fillUp(n int64) (full func() bool) {
	var failed atomic.Bool
	b.fail(func(i int64, what string) error {
		if i < n {
			return nil
		}
		err := noSpace(i, what)
		if err != nil {
			failed.Store(true)
		}
		return err
	})
	return failed.Load
}

// awaitPut puts until the disk takes it.
func awaitPut(t *testing.T, db *store.DB, key string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		err := put(db, key, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrStalled) {
			t.Fatal(err)
		}
	}
}

func TestOpenWithLittleSpaceReads(t *testing.T) {
	fsys := newBadFS(vfs.NewMem())
	fsys.free.Store(1 << 20)
	if _, err := store.OpenFS(fsys, "", nil); !errors.Is(err, store.ErrFull) {
		t.Errorf("making a store with little space: %v, want ErrFull", err)
	}
	fsys.free.Store(1 << 30)
	db := openFS(t, fsys)
	if err := put(db, "a", nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fsys.free.Store(1 << 20)
	before := fsys.ops.Load()
	db = openFS(t, fsys)
	checkHas(t, db, []string{"a"})
	if err := put(db, "b", nil); !errors.Is(err, store.ErrFull) {
		t.Errorf("Update with little space: %v, want ErrFull", err)
	}
	if n := fsys.ops.Load() - before; n != 0 {
		t.Errorf("%d operations changed the disk", n)
	}
	fsys.free.Store(1 << 30)
	awaitPut(t, db, "b")
	checkHas(t, db, []string{"a", "b"})
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// An Update that the disk keeps in the engine holds its lock; who comes behind it must not wait for the disk.
func TestWhoWaitsForALockIsLetGoWhenTheDiskIsFull(t *testing.T) {
	fsys := newBadFS(vfs.NewMem())
	db := openFS(t, fsys)
	if err := put(db, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	writing := make(chan struct{})
	fill := make(chan struct{})
	var once sync.Once
	fsys.fail(func(n int64, what string) error {
		if what == "write pebble-wal" {
			once.Do(func() { close(writing); <-fill })
		}
		return noSpace(n, what)
	})
	const callers = 5
	results := make(chan error, callers)
	go func() { results <- put(db, "a", []byte("2")) }()
	<-writing
	for range callers - 1 {
		go func() { results <- put(db, "a", []byte("3")) }()
	}
	close(fill)
	for range callers {
		if err := <-results; !errors.Is(err, store.ErrFull) {
			t.Errorf("Update = %v, want ErrFull", err)
		}
	}
	if err := put(db, "a", []byte("4")); !errors.Is(err, store.ErrFull) {
		t.Errorf("Update while another is in the engine = %v, want ErrFull", err)
	}
	if err := db.Update("b", func(*store.Tx) error { return nil }); err != nil {
		t.Errorf("Update that writes nothing = %v", err)
	}
	// What the engine had taken comes when there is space, and then the lock is free.
	fsys.fail(nil)
	awaitPut(t, db, "b")
	awaitPut(t, db, "a")
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestADiskThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newBadFS(vfs.NewMem())
		db := openFS(t, fsys)
		answer := make(chan struct{})
		fsys.fail(func(_ int64, what string) error {
			if what == "sync pebble-wal" {
				<-answer
			}
			return nil
		})
		began := time.Now() // the fake clock's
		if err := put(db, "a", []byte("1")); !errors.Is(err, store.ErrStalled) {
			t.Errorf("Update = %v, want ErrStalled", err)
		}
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
		for _, key := range []string{"a", "b"} { // at once
			if err := put(db, key, []byte("2")); !errors.Is(err, store.ErrStalled) {
				t.Errorf("Update of %s = %v, want ErrStalled", key, err)
			}
		}
		close(answer)
		synctest.Wait()
		if v, err := db.Get([]byte("a")); string(v) != "1" || err != nil {
			t.Errorf("a is %q, %v: what was on its way comes when the disk answers", v, err)
		}
		if err := put(db, "a", []byte("3")); err != nil {
			t.Errorf("Update when the disk answers = %v", err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAcknowledgedWritesSurviveLossOfPower(t *testing.T) {
	mem := vfs.NewCrashableMem()
	db := openFS(t, mem)
	w := startWriters(db, 8, 1<<10)
	for range 5 {
		n := 0
		w.await(func() bool { n = len(w.acked); return true })
		w.await(func() bool { return len(w.acked) > n+100 })
		var acked []string
		w.await(func() bool { acked = w.acked; return true })
		crashed := openFS(t, mem.CrashClone(vfs.CrashCloneCfg{}))
		checkHas(t, crashed, acked)
		if err := crashed.Close(); err != nil {
			t.Error(err)
		}
	}
	w.end()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	const env = "STORE_TEST_DIR"
	if dir := os.Getenv(env); dir != "" { // the child
		db, err := store.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					key := fmt.Sprintf("%d-%d/%d", os.Getpid(), i, n)
					if err := put(db, key, make([]byte, 2000)); err != nil {
						t.Error(err)
						return
					}
					fmt.Println("acked", key) // one write
				}
			})
		}
		wg.Wait()
	}
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGKILL")
	}
	dir := filepath.Join(t.TempDir(), "store")
	var acked []string
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAcknowledgedWritesSurviveKill$")
		cmd.Env = append(os.Environ(), env+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if key, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
				acked = append(acked, key)
			}
			switch n {
			case 0:
				if _, err := store.Open(dir, nil); !errors.Is(err, store.ErrLocked) {
					t.Errorf("Open while another process has the folder = %v, want ErrLocked", err)
				}
			case 1000:
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait() // killed
		db, err := store.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkHas(t, db, acked)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked) < 3000 {
		t.Errorf("only %d writes were acknowledged", len(acked))
	}
}
