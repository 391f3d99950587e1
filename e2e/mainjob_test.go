package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// goTree is the tree that the long forms use: the Go distribution this test was built with, about 15,000 files.
func goTree(t *testing.T) string {
	t.Helper()
	root := runtime.GOROOT() //nolint:staticcheck // the tests run where they were built
	if *full {
		return root
	}
	return filepath.Join(root, "src", "cmd", "compile")
}

// copyTree copies with everything that cp can keep.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp -a %s %s: %v\n%s", from, to, err, out)
	}
}

// TestMainJob writes a real tree and a directory of awkward files through the mount while the spooler runs, waits until two
// backup hosts have it, and restores from one of them alone as a fresh machine would.
func TestMainJob(t *testing.T) {
	for _, inPlace := range []bool{false, true} {
		name := map[bool]string{false: "beside", true: "in place"}[inPlace]
		t.Run(name, func(t *testing.T) {
			r := random(t)
			s := newSite(t, siteOptions{inPlace: inPlace})
			s.start()
			copyTree(t, goTree(t), filepath.Join(s.mount, "go"))
			awkward(t, filepath.Join(s.mount, "awkward"), r)
			s.wait("stored")
			want := snapshot(t, s.mount)
			equal(t, "restored from vault1", want, snapshot(t, s.restore("vault1")))
			s.stopPrimary()
			equal(t, "source after unmounting", want, snapshot(t, s.source))
			equal(t, "restored from vault2", want, snapshot(t, s.restore("vault2")))
			s.shipper.stop(t)
		})
	}
}

// TestHistory adopts a tree that existed before the first mount, changes it in every way, and restores earlier moments. What
// was changed in the source while nothing was mounted is right in the first batches after the next mount.
func TestHistory(t *testing.T) {
	r := random(t)
	s := newSite(t, siteOptions{inPlace: true})
	copyTree(t, goTree(t), filepath.Join(s.source, "go"))
	awkward(t, filepath.Join(s.source, "awkward"), r)
	s.start()
	s.wait("stored")
	adopted, adoptedAt := snapshot(t, s.mount), s.head()

	shake(t, s.mount)
	s.wait("stored")
	shaken, shakenAt := snapshot(t, s.mount), s.head()

	s.stopPrimary()
	behindTheBack(t, s.source)
	want := snapshot(t, s.source)
	s.startPrimary()
	s.wait("stored")
	equal(t, "mount after edits in the source", want, snapshot(t, s.mount))

	equal(t, "newest", want, snapshot(t, s.restore("vault1")))
	equal(t, "after the changes", shaken, snapshot(t, s.restore("vault2", "--at", shakenAt)))
	equal(t, "as adopted", adopted, snapshot(t, s.restore("vault1", "--at", adoptedAt)))
}

// head returns the number of the newest batch.
func (s *site) head() string {
	s.t.Helper()
	rows := s.jsonLines("status", "-c", s.config)
	if len(rows) == 0 {
		s.t.Fatal("status says nothing")
	}
	return strings.TrimSuffix(jsonNumber(rows[0]["head_batch"]), ".0")
}

// shake renames whole directories, overwrites by rename, truncates and removes.
func shake(t *testing.T, dir string) {
	t.Helper()
	in := func(p ...string) string { return filepath.Join(append([]string{dir}, p...)...) }
	must(t, os.Rename(in("go"), in("moved")))
	must(t, os.Mkdir(in("below"), 0o755))
	must(t, os.Rename(in("moved"), in("below", "deeper")))
	must(t, os.WriteFile(in("awkward", "new"), []byte("written aside, then renamed over"), 0o600))
	must(t, os.Rename(in("awkward", "new"), in("awkward", "one byte")))
	must(t, os.Truncate(in("awkward", "big"), 1<<20))
	must(t, os.Truncate(in("awkward", "empty"), 4096))
	must(t, os.Remove(in("awkward", "owned")))
	must(t, os.Remove(in("awkward", "empty directory")))
	must(t, os.WriteFile(in("awkward", "empty directory"), []byte("a file where a directory was"), 0o644))
	f, err := os.OpenFile(in("awkward", "repeated"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("one line more\n")
	must(t, err)
	must(t, f.Close())
	must(t, os.Remove(in("awkward", "link")))
	must(t, os.Symlink("somewhere else", in("awkward", "link")))
	must(t, os.Chmod(in("awkward", "sub"), 0o700))
	must(t, os.RemoveAll(in("below", "deeper", "internal")))
}

// behindTheBack changes the source directly: files created, rewritten with their old mtime put back, moved with their
// directory, removed.
func behindTheBack(t *testing.T, dir string) {
	t.Helper()
	in := func(p ...string) string { return filepath.Join(append([]string{dir}, p...)...) }
	must(t, os.WriteFile(in("created"), []byte("while nothing was mounted"), 0o644))
	must(t, os.Mkdir(in("created directory"), 0o755))
	must(t, os.WriteFile(in("created directory", "file"), []byte("in it"), 0o644))
	info, err := os.Stat(in("awkward", "repeated"))
	must(t, err)
	f, err := os.OpenFile(in("awkward", "repeated"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("REWRITTEN"), 1000)
	must(t, err)
	must(t, f.Close())
	must(t, os.Chtimes(in("awkward", "repeated"), info.ModTime(), info.ModTime()))
	must(t, os.Rename(in("below", "deeper"), in("back")))
	must(t, os.Remove(in("awkward", "setuid")))
	must(t, os.Rename(in("awkward", "sub"), in("below", "sub")))
}
