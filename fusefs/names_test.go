package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// TestAwkwardNames: any name the disk takes, the mount takes, and the journal has it byte for byte.
func TestAwkwardNames(t *testing.T) {
	f := mounted(t)
	names := []string{
		strings.Repeat("n", 255), "new\nline", `quote"'\`, "invalid \xff\xfe utf-8", " ", "...", "-rf", "tab\tand \x01", "ü日本",
	}
	for _, name := range names {
		must(t, os.WriteFile(f.path(name), []byte(name), 0o644))
		if got, err := os.ReadFile(f.path(name)); err != nil || string(got) != name {
			t.Errorf("%q: read %q, %v", name, got, err)
		}
	}
	if err := os.WriteFile(f.path(strings.Repeat("n", 256)), nil, 0o644); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a name of 256 bytes: %v", err)
	}
	dir, err := os.Open(f.mnt)
	must(t, err)
	defer closing(dir)
	got, err := dir.Readdirnames(-1)
	must(t, err)
	sort.Strings(got)
	sort.Strings(names)
	if !slices.Equal(got, names) {
		t.Errorf("listed %q, want %q", got, names)
	}
	f.checkJournal()
}

// TestDeepPath goes deeper than a path can say, step by step.
func TestDeepPath(t *testing.T) {
	f := mounted(t)
	name := strings.Repeat("d", 200)
	at, err := unix.Open(f.mnt, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	for i := range 30 {
		must(t, unix.Mkdirat(at, name, 0o755))
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(at))
		if at = next; i == 29 {
			fd, err := unix.Openat(at, "leaf", unix.O_CREAT|unix.O_WRONLY, 0o644)
			must(t, err)
			must(t, unix.Close(fd))
		}
	}
	must(t, unix.Close(at))
	want := 30 + 1
	for _, r := range f.records() {
		if r.Op == journal.OpCreate {
			want--
		}
	}
	if want != 0 {
		t.Errorf("%d creations are missing in the journal", want)
	}
}

// TestReaddir: a listing has every entry once, from any position it was given, with entries going and coming meanwhile.
func TestReaddir(t *testing.T) {
	f := mounted(t)
	want := map[string]bool{".": true, "..": true}
	for i := range 3000 {
		name := fmt.Sprintf("entry-%04d-%s", i, strings.Repeat("x", i%60))
		want[name] = true
		must(t, os.WriteFile(f.below(name), nil, 0o644))
	}
	fd, err := unix.Open(f.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer closingFd(fd)
	list := func() []string {
		var all []string
		buf := make([]byte, 1000) // small, so that the listing is resumed often
		for {
			n, err := unix.Getdents(fd, buf)
			must(t, err)
			if n == 0 {
				return all
			}
			for rest := buf[:n]; len(rest) > 0; {
				size := int(rest[16]) | int(rest[17])<<8
				name, _, _ := strings.Cut(string(rest[19:size]), "\x00")
				all = append(all, name)
				rest = rest[size:]
			}
		}
	}
	check := func(what string, got []string) {
		t.Helper()
		seen := map[string]bool{}
		for _, name := range got {
			if seen[name] {
				t.Errorf("%s: %s twice", what, name)
			}
			seen[name] = true
		}
		if len(seen) != len(want) {
			t.Errorf("%s: %d entries, want %d", what, len(seen), len(want))
		}
	}
	check("first", list())
	_, err = unix.Seek(fd, 0, 0)
	must(t, err)
	check("again, from the cache", list())
	must(t, os.Remove(f.path("entry-0007-xxxxxxx")))
	delete(want, "entry-0007-xxxxxxx")
	must(t, os.WriteFile(f.path("late"), nil, 0o644))
	want["late"] = true
	_, err = unix.Seek(fd, 0, 0)
	must(t, err)
	check("after changes", list())
}

// TestOwnXattr: user.slipway.* is answered, never listed, and cannot be set; nothing of it is journaled.
func TestOwnXattr(t *testing.T) {
	f := mounted(t)
	must(t, os.MkdirAll(f.path("a/b"), 0o755))
	for _, name := range []string{"a/b/file", "a/slow", "a/panic"} {
		must(t, os.WriteFile(f.path(name), nil, 0o644))
	}
	get := func(name, attr string) (string, error) {
		buf := make([]byte, 200)
		n, err := unix.Getxattr(f.path(name), attr, buf)
		return string(buf[:max(n, 0)]), err
	}
	// answered asks again where the 50 ms were over before the answer: on a busy machine they may be.
	answered := func(name, attr string) (got string, err error) {
		poll(t, attr+" of "+name, func() bool {
			got, err = get(name, attr)
			return !errors.Is(err, unix.ENODATA)
		})
		return got, err
	}
	records := f.since(func() {
		for _, name := range []string{".", "a", "a/b/file"} {
			if got, err := answered(name, "user.slipway.stage"); err != nil || got != "stage of "+name {
				t.Errorf("stage of %s: %q, %v", name, got, err)
			}
		}
		for name, attr := range map[string]string{"a/slow": "user.slipway.stage", "a": "user.slipway.other", "a/b": "user.slipway.eta"} {
			if got, err := get(name, attr); !errors.Is(err, unix.ENODATA) {
				t.Errorf("%s of %s: %q, %v", attr, name, got, err)
			}
		}
		if got, err := answered("a", "user.slipway.copies"); err != nil || got != "cache1,vault1" {
			t.Errorf("copies: %q, %v", got, err)
		}
		if _, err := unix.Getxattr(f.path("a"), "user.slipway.copies", make([]byte, 5)); err != unix.ERANGE {
			t.Errorf("into a small buffer: %v", err)
		}
		if err := unix.Setxattr(f.path("a"), "user.slipway.other", []byte("x"), 0); err != unix.EPERM {
			t.Errorf("set another: %v", err)
		}
		if err := unix.Setxattr(f.path("a"), "user.slipway.stage", nil, 0); err != unix.EPERM {
			t.Errorf("set: %v", err)
		}
		if err := unix.Removexattr(f.path("a"), "user.slipway.stage"); err != unix.EPERM {
			t.Errorf("remove: %v", err)
		}
	})
	if len(ops(records)) > 0 {
		t.Errorf("journaled: %v", records)
	}
	must(t, unix.Setxattr(f.below("a"), "user.slipway.stage", []byte("not ours"), 0))
	must(t, unix.Setxattr(f.below("a"), "user.kept", nil, 0))
	buf := make([]byte, 200)
	n, err := unix.Listxattr(f.path("a"), buf)
	if err != nil || string(buf[:n]) != "user.kept\x00" {
		t.Errorf("listed %q, %v", buf[:max(n, 0)], err)
	}

	must(t, unix.Rename(f.path("a/b"), f.path("c")))
	if got, err := answered("c/file", "user.slipway.stage"); err != nil || got != "stage of c/file" {
		t.Errorf("after a rename: %q, %v", got, err)
	}
}

// TestPanicIsAGap: a fault in one request is EIO for that one, and the spooler is told that something may be missing.
func TestPanicIsAGap(t *testing.T) {
	f := mounted(t)
	must(t, os.WriteFile(f.path("panic"), nil, 0o644))
	records := f.since(func() {
		if _, err := unix.Getxattr(f.path("panic"), "user.slipway.stage", make([]byte, 10)); err != unix.EIO {
			t.Errorf("got %v, want EIO", err)
		}
	})
	last := records[len(records)-1]
	if got := ops(records); len(got) != 1 || last.Op != journal.OpGap || !strings.Contains(last.Name, "panic") {
		t.Errorf("journaled %v", records)
	}
	must(t, os.WriteFile(f.path("next"), nil, 0o644))
}

// TestDirectIO, holes and what is not passed on answer as the disk does, or as docs/limits says.
func TestSpecialIO(t *testing.T) {
	for mode, change := range map[string]func(*childOptions){"passthrough": func(*childOptions) {}, "served": served} {
		t.Run(mode, func(t *testing.T) {
			f := mounted(t, change)
			file, err := os.OpenFile(f.path("sparse"), os.O_RDWR|os.O_CREATE, 0o644)
			must(t, err)
			defer closing(file)
			must(t, file.Truncate(4<<20))
			_, err = file.WriteAt([]byte("data"), 1<<20)
			must(t, err)
			fd := int(file.Fd())
			if off, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil || off != 1<<20 {
				t.Errorf("SEEK_DATA: %d, %v", off, err)
			}
			if off, err := unix.Seek(fd, 1<<20, unix.SEEK_HOLE); err != nil || off != 1<<20+4096 {
				t.Errorf("SEEK_HOLE: %d, %v", off, err)
			}
			if err := unix.IoctlFileClone(fd, fd); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("FICLONE: %v", err)
			}
			must(t, file.Sync())
			for _, flags := range []int{unix.O_APPEND, unix.O_NONBLOCK, unix.O_SYNC, unix.O_NOATIME, unix.O_DIRECT} {
				fd, err := unix.Open(f.path("sparse"), unix.O_RDWR|flags, 0)
				if err != nil {
					t.Errorf("open with flags %x: %v", flags, err)
					continue
				}
				must(t, unix.Close(fd))
			}
			log, err := os.OpenFile(f.path("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			must(t, err)
			defer closing(log)
			second, err := os.OpenFile(f.path("log"), os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			defer closing(second)
			for range 3 {
				_, err := log.WriteString("a")
				must(t, err)
				_, err = second.WriteString("b")
				must(t, err)
			}
			if got, _ := os.ReadFile(f.path("log")); string(got) != "ababab" {
				t.Errorf("appended %q", got)
			}
			if mode != "served" {
				// In passthrough the kernel goes on appending: the file below keeps the flags of the open.
				return
			}
			_, err = unix.FcntlInt(log.Fd(), unix.F_SETFL, 0)
			must(t, err)
			_, err = unix.Pwrite(int(log.Fd()), []byte("A"), 0)
			must(t, err)
			if got, _ := os.ReadFile(f.path("log")); string(got) != "Ababab" {
				t.Errorf("no longer appending: %q", got)
			}
			direct, err := unix.Open(f.path("log"), unix.O_WRONLY|unix.O_DIRECT, 0)
			must(t, err)
			defer closingFd(direct)
			if _, err := unix.Pwrite(direct, []byte("odd"), 1); err != nil {
				t.Errorf("O_DIRECT asks for an alignment that was not given to the mount: %v", err)
			}
		})
	}
}

// TestOneThread does a little of everything while the serving process has GOMAXPROCS=1.
func TestOneThread(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1")
	f := mounted(t)
	for _, s := range steps() {
		if err := s.do(f); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	for i := range 200 {
		must(t, os.WriteFile(f.path(fmt.Sprint(i)), []byte("x"), 0o644))
	}
	must(t, filepath.Walk(f.mnt, func(_ string, _ os.FileInfo, err error) error { return err }))
	f.checkJournal()
}
