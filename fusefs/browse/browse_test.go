package browse_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/fusefs/browse"
	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/volumetest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// history counts what is loaded.
type history struct {
	line   *chain.Line
	mu     sync.Mutex
	loaded []batch.Seq
}

func (h *history) Moments(ctx context.Context) ([]restore.Moment, error) { return h.line.History(ctx) }

func (h *history) Tree(ctx context.Context, seq batch.Seq) (*restore.Tree, error) {
	h.mu.Lock()
	h.loaded = append(h.loaded, seq)
	h.mu.Unlock()
	return restore.FromLine(ctx, h.line, restore.At{Seq: seq, Incomplete: true})
}

const mtime = int64(1767225600_123456789)

// volume has two moments: a file of several pieces with a hole, a link, something odd; then the file shorter and the rest gone.
func volume(t *testing.T) (*volumetest.Volume, []byte) {
	v := volumetest.New(t, "vault1")
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	content := &batch.Content{Size: int64(len(data)) + 4096, Clean: true, Pieces: v.Pieces(data, 50_000), Holes: []batch.Hole{{Offset: 100_000, Len: 4096}}}
	whole := append(append(bytes.Clone(data[:100_000]), make([]byte, 4096)...), data[100_000:]...)
	file := func(id batch.FileID, c *batch.Content) batch.Inode {
		return batch.Inode{ID: id, Mode: unix.S_IFREG | 0o640, UID: 1000, GID: 1001, Mtime: mtime, Content: c, Xattrs: map[string][]byte{"user.x": []byte("value"), "security.capability": []byte("c")}}
	}
	root := batch.Inode{ID: batch.Root, Mode: unix.S_IFDIR | 0o755, Mtime: mtime}
	v.Seal(&batch.Body{
		Inodes: []batch.Inode{root, file(2, content), {ID: 3, Mode: unix.S_IFLNK | 0o777, Mtime: mtime, Target: "file"},
			{ID: 4, Mode: unix.S_IFDIR | 0o755, Mtime: mtime}, {ID: 5, Mode: unix.S_IFREG | 0o600, Mtime: mtime}, {ID: 6, Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3), Mtime: mtime}},
		Entries: []batch.Entry{{Parent: batch.Root, Name: "file", ID: 2}, {Parent: batch.Root, Name: "link", ID: 3}, {Parent: batch.Root, Name: "dir", ID: 4},
			{Parent: 4, Name: "odd\xff\n", ID: 2}, {Parent: 4, Name: "pending", ID: 5}, {Parent: batch.Root, Name: "null", ID: 6}},
	}, nil)
	v.Seal(&batch.Body{
		Inodes:  []batch.Inode{file(2, v.Content("short"))},
		Entries: []batch.Entry{{Parent: batch.Root, Name: "link"}},
	}, nil)
	return v, whole
}

// shown mounts and unmounts at the end, which must end Serve.
func shown(t *testing.T, root browse.Root) string {
	t.Helper()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error { return browse.Serve(ctx, dir, root, func() { close(ready) }) })
	<-ready
	t.Cleanup(func() {
		stop()
		must(t, g.Wait())
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("after the unmount: %v, %v", left, err)
		}
	})
	return dir
}

func log(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// TestMoment: one moment, with everything that stat(2), read(2) and the like show; nothing can be changed.
func TestMoment(t *testing.T) {
	v, whole := volume(t)
	tree, err := restore.Load(t.Context(), v.Source(), restore.At{Seq: 1})
	must(t, err)
	dir := shown(t, browse.Moment(tree, log(t)))

	got, err := os.ReadFile(filepath.Join(dir, "file"))
	must(t, err)
	if !bytes.Equal(got, whole) {
		t.Errorf("%d bytes that differ", len(got))
	}
	f, err := os.Open(filepath.Join(dir, "dir", "odd\xff\n"))
	must(t, err)
	defer func() { must(t, f.Close()) }()
	for _, at := range []int{0, 99_990, 100_000, 104_090, len(whole) - 5} { // around the hole and the end
		part := make([]byte, min(20, len(whole)-at))
		if _, err := f.ReadAt(part, int64(at)); err != nil || !bytes.Equal(part, whole[at:at+len(part)]) {
			t.Errorf("at %d: %q, %v", at, part, err)
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "file"), &st))
	if st.Mode != unix.S_IFREG|0o640 || st.Uid != 1000 || st.Gid != 1001 || st.Nlink != 2 || st.Mtim.Nano() != mtime || st.Size != int64(len(whole)) {
		t.Errorf("stat %+v", st)
	}
	if to, err := os.Readlink(filepath.Join(dir, "link")); err != nil || to != "file" {
		t.Errorf("link to %q, %v", to, err)
	}
	value := make([]byte, 100)
	if n, err := unix.Getxattr(filepath.Join(dir, "file"), "user.x", value); err != nil || string(value[:n]) != "value" {
		t.Errorf("xattr %q, %v", value, err)
	}
	if n, err := unix.Listxattr(filepath.Join(dir, "file"), value); err != nil || string(value[:n]) != "user.x\x00" {
		t.Errorf("xattrs %q, %v", value[:max(n, 0)], err)
	}
	if _, err := os.ReadFile(filepath.Join(dir, "dir", "pending")); !errors.Is(err, unix.EIO) {
		t.Errorf("what was not sealed yet: %v", err)
	}
	if _, err := os.Open(filepath.Join(dir, "null")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a device is opened: %v", err)
	}
	for what, err := range map[string]error{
		"write": os.WriteFile(filepath.Join(dir, "file"), nil, 0o644), "create": os.WriteFile(filepath.Join(dir, "new"), nil, 0o644),
		"remove": os.Remove(filepath.Join(dir, "file")), "mkdir": os.Mkdir(filepath.Join(dir, "new"), 0o755), "chmod": os.Chmod(filepath.Join(dir, "file"), 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestMoments: each batch under its number and its time, loaded when somebody enters it and not before, once.
func TestMoments(t *testing.T) {
	v, whole := volume(t)
	line, err := chain.Open(t.Context(), v.Source())
	must(t, err)
	h := &history{line: line}
	root, err := browse.Moments(t.Context(), h, log(t))
	must(t, err)
	dir := shown(t, root)

	names := func(path string) (list []string) {
		entries, err := os.ReadDir(filepath.Join(dir, path))
		must(t, err)
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	if got := strings.Join(names(""), " "); got != "1 2 at latest" {
		t.Errorf("the root has %q", got)
	}
	if len(h.loaded) > 0 {
		t.Errorf("loaded before anybody entered: %v", h.loaded)
	}
	for path, want := range map[string]string{"1/file": string(whole), "2/file": "short", "latest/file": "short", "at/2026-11-23T10:00:01Z/dir/odd\xff\n": string(whole)} {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
	if got := strings.Join(names("2"), " "); got != "dir file null" {
		t.Errorf("moment 2 has %q", got)
	}
	var a, b unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "1/file"), &a))
	must(t, unix.Stat(filepath.Join(dir, "2/file"), &b))
	if a.Ino == b.Ino {
		t.Error("two states of a file are one to find(1) and tar(1)")
	}
	for _, path := range []string{"3", "01", "0", "-1", "one"} {
		if _, err := os.Stat(filepath.Join(dir, path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(h.loaded) != 2 {
		t.Errorf("loaded %v", h.loaded)
	}
}

// TestLostContent: what no store has is EIO, the rest can be read.
func TestLostContent(t *testing.T) {
	v, _ := volume(t)
	tree, err := restore.Load(t.Context(), v.Source(), restore.At{Seq: 1})
	must(t, err)
	must(t, os.RemoveAll(filepath.Join(v.Dirs[0], "shards")))
	dir := shown(t, browse.Moment(tree, log(t)))
	if _, err := os.ReadFile(filepath.Join(dir, "file")); !errors.Is(err, unix.EIO) {
		t.Errorf("read: %v", err)
	}
	if _, err := os.ReadDir(filepath.Join(dir, "dir")); err != nil {
		t.Error(err)
	}
}
