package catalog

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// fill writes something into every bucket, enough for branch pages.
func fill(tx *Tx) error {
	for i := range batch.FileID(400) {
		in := testInode(i + 2)
		err := errors.Join(tx.PutInode(in), tx.PutEntry(1, fmt.Sprint("file ", i), in.ID), tx.PutPending(in.ID, Pending{Reason: "new"}),
			tx.PutUnchecked(in.ID), tx.PutShard(shard.Digest{byte(i)}, ShardInfo{Size: 1}), tx.PutBatch(BatchInfo{Seq: batch.Seq(i)}),
			tx.PutChunks([]Location{{Shard: shard.Digest{byte(i % 3)}, Slot: shard.Slot{Chunk: chunk.ID{byte(i), byte(i >> 8)}, Len: 1}}}))
		if err != nil {
			return err
		}
	}
	return tx.SetMeta(Meta{Head: 7, Epoch: 1})
}

// readAll reads everything by every getter that iterates.
func readAll(tx *Tx) error {
	_, err := tx.Meta()
	_, ferr := tx.Files()
	_, _, ierr := tx.Inode(17)
	_, _, berr := tx.ByIdent(testInode(17).Ident)
	return errors.Join(err, ferr, ierr, berr,
		tx.Inodes(func(*Inode) error { return nil }),
		tx.Entries(1, func(_ string, id batch.FileID) error {
			return tx.Names(id, func(batch.FileID, string) error { return nil })
		}),
		tx.Shards(func(shard.Digest, ShardInfo) error { return nil }),
		tx.Batches(0, func(BatchInfo) error { return nil }),
		tx.EachPending(func(batch.FileID, Pending) error { return nil }),
		tx.EachUnchecked(func(batch.FileID) error { return nil }))
}

// change touches every bucket and removes much.
func change(tx *Tx) error {
	for i := range batch.FileID(200) {
		err := errors.Join(tx.DeleteInode(i+2), tx.DeleteEntry(1, fmt.Sprint("file ", i)), tx.DeletePending(i+2), tx.DeleteUnchecked(i+2),
			tx.PutInode(testInode(i+1000)), tx.DeleteShard(shard.Digest{byte(i)}))
		if err != nil {
			return err
		}
	}
	_, err := tx.DeleteChunksOf(map[shard.Digest]bool{{1}: true})
	return err
}

// small returns the bytes of a sound catalog.
func small(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "catalog")
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Update(fill), c.Update(func(tx *Tx) error { return tx.PutInode(testInode(5000)) }), c.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data[:order.Uint64(newestMeta(data)[40:])*uint64(os.Getpagesize())] // without the room to grow
}

// use opens bytes as a catalog, reads and changes everything. Any error of it is fine as long as it is of the right class.
func use(t testing.TB, path string, data []byte) error {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(path)
	if err == nil {
		err = errors.Join(r.View(readAll), r.Close())
	}
	if err != nil {
		return err
	}
	c, err := Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(c.View(readAll), c.Update(change), c.View(readAll), c.Close()); err != nil {
		return err
	}
	// Closed again, it is free for the next.
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only a lock
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// Damage anywhere is an error at most, and never another than ErrCorrupt.
func TestFlips(t *testing.T) {
	sound := small(t)
	path := filepath.Join(t.TempDir(), "catalog")
	if err := use(t, path, sound); err != nil {
		t.Fatal(err)
	}
	const page = 4096
	found := 0
	rounds := 600
	for i := range rounds {
		data := append([]byte{}, sound...)
		where := rand.IntN(len(data))
		if i%2 == 0 { // headers, where structure is
			where = where/page*page + rand.IntN(200)
		}
		data[where%len(data)] ^= 1 << rand.IntN(8)
		err := use(t, path, data)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", where, err)
		}
		if err != nil {
			found++
		}
	}
	t.Logf("%d of %d flips were found; the others hit what is not in use", found, rounds)
	if found < rounds/20 {
		t.Error("hardly any damage is found")
	}
}

func TestCutShort(t *testing.T) {
	sound := small(t)
	path := filepath.Join(t.TempDir(), "catalog")
	for range 100 {
		n := rand.IntN(len(sound))
		if err := use(t, path, sound[:n]); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut after %d of %d bytes: %v", n, len(sound), err)
		}
	}
	for _, n := range []int{0, 1, 79, 80, 4096, 8192, 16384} {
		if err := use(t, path, sound[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

// FuzzOpen writes two numbers anywhere into a sound catalog.
func FuzzOpen(f *testing.F) {
	sound := small(f)
	f.Add(uint32(0), uint64(0), uint32(0), uint64(0))
	f.Add(uint32(4096*5), uint64(1)<<63, uint32(4096+56), uint64(7))
	path := filepath.Join(f.TempDir(), "catalog")
	f.Fuzz(func(t *testing.T, at uint32, with uint64, at2 uint32, with2 uint64) {
		data := append([]byte{}, sound...)
		order.PutUint64(data[int(at)%(len(data)-8):], with)
		order.PutUint64(data[int(at2)%(len(data)-8):], with2)
		if err := use(t, path, data); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Error(err)
		}
	})
}

// rootPage returns the file offset of a bucket's root page.
func rootPage(t *testing.T, path, bucket string) int64 {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }() // only read
	var off int64
	if err := db.View(func(tx *bolt.Tx) error {
		off = int64(tx.Bucket([]byte(bucket)).Root()) * int64(os.Getpagesize())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return off
}

// The faults that Go could not catch: a page that leads to itself (stack overflow), lengths of any size (memory).
func TestPageStructure(t *testing.T) {
	sound := small(t)
	path := filepath.Join(t.TempDir(), "catalog")
	if err := os.WriteFile(path, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	root := rootPage(t, path, "inodes")
	if order.Uint16(sound[root+8:]) != flagBranch {
		t.Fatal("the test needs a branch page")
	}
	free := int64(order.Uint64(newestMeta(sound)[32:])) * int64(os.Getpagesize())
	for name, damage := range map[string]func(b []byte){
		"branch leads to itself":        func(b []byte) { order.PutUint64(b[root+16+8:], order.Uint64(b[root:])) },
		"two lead to one":               func(b []byte) { copy(b[root+32+8:root+40+8], b[root+16+8:root+24+8]) },
		"beyond the end":                func(b []byte) { order.PutUint64(b[root+16+8:], 1<<40) },
		"into a header page":            func(b []byte) { order.PutUint64(b[root+16+8:], 1) },
		"key beyond the page":           func(b []byte) { order.PutUint32(b[root+16+4:], 1<<31) },
		"more elements than fit":        func(b []byte) { order.PutUint16(b[root+10:], 60000) },
		"overflow beyond the end":       func(b []byte) { order.PutUint32(b[root+12:], 1<<31) },
		"free list of 2^60":             func(b []byte) { order.PutUint16(b[free+10:], 0xFFFF); order.PutUint64(b[free+16:], 1<<60) },
		"free list names a page in use": func(b []byte) { order.PutUint64(b[free+16:], uint64(root/int64(os.Getpagesize()))) },
	} {
		data := append([]byte{}, sound...)
		damage(data)
		if err := use(t, path, data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func newestMeta(b []byte) []byte {
	first, second := b[pageHeader:], b[os.Getpagesize()+pageHeader:]
	if order.Uint64(second[48:]) > order.Uint64(first[48:]) {
		return second
	}
	return first
}

// A header page that says what bbolt's checks take for good, but that the file does not hold.
func TestHeaderPage(t *testing.T) {
	sound := small(t)
	path := filepath.Join(t.TempDir(), "catalog")
	for _, field := range []int{8, 16, 32, 40} { // page size, root, free list, high water
		for _, value := range []uint64{0, 1, 7, 1 << 20, 1 << 50, 1<<64 - 1} {
			data := append([]byte{}, sound...)
			m := newestMeta(data)
			if field == 8 {
				order.PutUint32(m[field:], uint32(value))
			} else {
				order.PutUint64(m[field:], value)
			}
			h := fnv.New64a()
			_, _ = h.Write(m[:56])
			order.PutUint64(m[56:], h.Sum64())
			if err := use(t, path, data); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("field %d = %d: %v", field, value, err)
			}
		}
	}
}

// The file is cut short under the running process: reading it is a fault of memory, and an error here.
func TestFaultWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog")
	if err := os.WriteFile(path, small(t), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	if err := c.View(readAll); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
	if err := c.Update(change); !errors.Is(err, ErrCorrupt) {
		t.Errorf("it goes on after damage was met: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrCorrupt) { // and not ErrBusy: the lock was given back
		t.Errorf("%v", err)
	}
}

func TestNewerFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog")
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	update(t, c, func(tx *Tx) error { return tx.put(inMeta, formatKey, []byte{0, 0, 0, 2}) })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrNewer) || errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

func TestNotACatalog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "catalog")
	for _, text := range []string{"", "hello", strings.Repeat("x", 100_000)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes of text: %v", len(text), err)
		}
	}
	if _, err := Open(dir); err == nil {
		t.Error("a directory is opened")
	}
}

// A panic of the caller's own function is the caller's.
func TestCallersPanic(t *testing.T) {
	c := openTemp(t)
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("recovered %v", p)
			}
		}()
		_ = c.Update(func(tx *Tx) error { panic("mine") })
	}()
	update(t, c, fill)
	view(t, c, readAll)
}

// A full disk is no damage, and the catalog works again when there is room.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	c, err := Open(filepath.Join(dir, "catalog"))
	if err != nil {
		t.Fatal(err)
	}
	update(t, c, func(tx *Tx) error { return tx.SetMeta(Meta{Head: 1}) })
	much := func(tx *Tx) error {
		for i := range batch.FileID(5000) {
			if err := tx.PutInode(testInode(i + 2)); err != nil {
				return err
			}
		}
		return tx.SetMeta(Meta{Head: 2})
	}
	if err := c.Update(much); !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrCorrupt) {
		t.Fatalf("%v", err)
	}
	view(t, c, func(tx *Tx) error {
		m, err := tx.Meta()
		if m.Head != 1 {
			t.Errorf("after the failed commit the head is %d", m.Head)
		}
		return err
	})
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	update(t, c, much)
	view(t, c, readAll)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

const envLoop = "CATALOG_TEST_LOOP"

func TestMain(m *testing.M) {
	if path := os.Getenv(envLoop); path != "" {
		if err := loop(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// loop commits for ever: the head's number and as many files as it says, and tells each commit.
func loop(path string) error {
	c, err := Open(path)
	if err != nil {
		return err
	}
	for {
		var m Meta
		err := c.Update(func(tx *Tx) error {
			var err error
			if m, err = tx.Meta(); err != nil {
				return err
			}
			m.Head++
			for i := range batch.FileID(20) {
				if err := tx.PutInode(testInode(batch.FileID(m.Head)*20 + i)); err != nil {
					return err
				}
			}
			return tx.SetMeta(m)
		})
		if err != nil {
			return err
		}
		fmt.Println(m.Head)
	}
}

// Killed at any instant, the catalog holds every commit that was told, whole.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var told batch.Seq
	for range 10 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), envLoop+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rand.IntN(8) {
			if !lines.Scan() {
				t.Fatal("the child ended by itself")
			}
			if _, err := fmt.Sscan(lines.Text(), &told); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // told before it died
			if _, err := fmt.Sscan(lines.Text(), &told); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Wait() // killed
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		view(t, c, func(tx *Tx) error {
			m, err := tx.Meta()
			n, ferr := tx.Files()
			if m.Head < told || n != int64(m.Head)*20 {
				t.Errorf("told %d, head %d, %d files", told, m.Head, n)
			}
			return errors.Join(err, ferr, readAll(tx))
		})
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
