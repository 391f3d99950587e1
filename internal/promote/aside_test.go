package promote

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/volumetest"
)

// TestAside: of a directory with an older state of the volume, what is the same stays untouched, and all else is moved, not lost:
// content that neither size nor times betray, attributes, extended attributes, names that the volume does not have.
func TestAside(t *testing.T) {
	c := newCluster(t, true)
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	at := time.Now().Add(-time.Hour).UnixNano()
	var body batch.Body
	id := batch.FileID(10)
	add := func(parent batch.FileID, name string, in batch.Inode) {
		id++
		in.ID, in.UID, in.GID, in.Mtime = id, uid, gid, at
		body.Inodes = append(body.Inodes, in)
		body.Entries = append(body.Entries, batch.Entry{Parent: parent, Name: name, ID: id})
	}
	file := func(data string) batch.Inode { return batch.Inode{Mode: 0o100644, Content: c.v.Content(data)} }
	add(batch.Root, "dir", batch.Inode{Mode: 0o040750})
	dir := id
	add(dir, "below", file("below"))
	for _, name := range []string{"same", "content", "mode", "xattr", "kind"} {
		add(batch.Root, name, file("what "+name+" holds"))
	}
	hole := file("data")
	hole.Content.Size, hole.Content.Holes = 3<<20, []batch.Hole{{Offset: 4, Len: 3<<20 - 4}}
	add(batch.Root, "hole", hole)
	add(batch.Root, "zeros", hole)
	add(batch.Root, "link", batch.Inode{Mode: unix.S_IFLNK | 0o777, Target: "same"})
	c.v.Seal(&body, func(e *batch.Envelope) { e.NextKeys = c.next })

	o := c.options(0)
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	want := volumetest.Scan(t, o.Source)
	before := inode(t, filepath.Join(o.Source, "same"))

	in := func(name string) string { return filepath.Join(o.Source, name) }
	write := func(name, data string, off int64) {
		f, err := os.OpenFile(in(name), os.O_WRONLY|os.O_CREATE, 0o644)
		must(t, err)
		_, err = f.WriteAt([]byte(data), off)
		must(t, err)
		must(t, f.Close())
		must(t, os.Chtimes(in(name), time.Unix(0, at), time.Unix(0, at)))
	}
	write("content", "WHAT", 0)
	write("hole", "not empty", 2<<20)
	write("zeros", string(make([]byte, 1<<20)), 1<<20) // the same, only stored
	must(t, os.Chmod(in("mode"), 0o600))
	must(t, unix.Lsetxattr(in("xattr"), "user.more", []byte("1"), 0))
	must(t, unix.Lsetxattr(in("dir"), "user.more", []byte("1"), 0))
	must(t, os.Remove(in("kind")))
	must(t, os.Mkdir(in("kind"), 0o755))
	write("kind/inside", "inside", 0)
	must(t, os.MkdirAll(in("dir/more"), 0o755))
	write("dir/more/extra", "nobody else has this", 0)
	must(t, os.Remove(in("link")))
	must(t, os.Symlink("elsewhere", in("link")))

	// As if another node had owned it meanwhile.
	must(t, os.Remove(ConfigPath(o.Config, "projects")))
	must(t, os.RemoveAll(owned(o.Config, "projects")))
	must(t, os.RemoveAll(filepath.Join(c.v.Dirs[0], "claims")))
	o.Aside = filepath.Join(filepath.Dir(o.Source), "aside")
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	moved := []string{"content", "dir/more", "hole", "kind", "link", "mode", "xattr"}
	if got := slices.Sorted(slices.Values(r.Aside)); !slices.Equal(got, moved) {
		t.Errorf("moved %v, want %v", got, moved)
	}
	if got := volumetest.Scan(t, o.Source); !maps.Equal(got, want) {
		for path := range want {
			if got[path] != want[path] {
				t.Errorf("%s: %s, want %s", path, got[path], want[path])
			}
		}
		t.Errorf("%d objects, want %d", len(got), len(want))
	}
	if inode(t, in("same")) != before {
		t.Error("what was the same was written again")
	}
	for name, data := range map[string]string{"content": "WHAT content holds", "dir/more/extra": "nobody else has this", "kind/inside": "inside"} {
		if got, err := os.ReadFile(filepath.Join(o.Aside, name)); err != nil || string(got) != data {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if len(r.Differ)+len(r.Missing) > 0 {
		t.Errorf("%+v", r)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}
