package demo

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestWriteTree: what the demo writes is what it says, and the awkward files are all there.
func TestWriteTree(t *testing.T) {
	from := t.TempDir()
	for i := range mostFiles + 10 {
		must(t, os.WriteFile(filepath.Join(from, string(rune('a'+i%26))+strings.Repeat("x", i)), []byte("12345"), 0o600))
	}
	d := &demo{opt: Options{Out: io.Discard, Tree: from}, dir: t.TempDir(), began: time.Now()}
	must(t, os.Mkdir(d.path("mnt"), 0o755))
	files, bytes, err := d.writeTree()
	if err != nil || len(files) != mostFiles+6 || bytes < 5*mostFiles {
		t.Fatalf("%d files, %d bytes, %v", len(files), bytes, err)
	}
	for _, f := range files {
		if st, err := os.Lstat(d.path("mnt", f)); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%q: %v", f, err)
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat(d.path("mnt", "awkward/holes"), &st))
	if st.Size < 64<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("the file with a hole has %d bytes on %d blocks", st.Size, st.Blocks)
	}
	must(t, unix.Lstat(d.path("mnt", "awkward/program"), &st))
	if st.Mode&0o7777 != 0o4755 {
		t.Errorf("mode %o", st.Mode)
	}
}

func TestCopyTreeStopsAtBytes(t *testing.T) {
	from := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.WriteFile(filepath.Join(from, name), make([]byte, mostBytes), 0o600))
	}
	d := &demo{opt: Options{Out: io.Discard}, dir: t.TempDir()}
	files, bytes, err := d.copyTree(from)
	if err != nil || len(files) != 1 || bytes != mostBytes {
		t.Errorf("%q %d %v", files, bytes, err)
	}
}

func TestUnmountedLeavesPlainDirectoriesAlone(t *testing.T) {
	d := &demo{dir: t.TempDir()}
	must(t, os.Mkdir(d.path("mnt"), 0o755))
	if d.isMount() || d.unmounted() != nil {
		t.Error("a plain directory is taken for a mount")
	}
	must(t, unix.Mount("none", d.path("mnt"), "tmpfs", 0, ""))
	if !d.isMount() {
		t.Error("a mount is not seen")
	}
	must(t, d.unmounted())
	if d.isMount() {
		t.Error("the mount is still there")
	}
}
