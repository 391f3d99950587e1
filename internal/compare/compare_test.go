package compare

import (
	"os"
	"path/filepath"
	"slices"
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

var moment = time.Date(2026, 11, 23, 10, 0, 0, 5, time.UTC)

// plant makes the tree that the cases spoil, the same each time.
func plant(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t,
		os.Mkdir(at("dir"), 0o755), os.WriteFile(at("dir/file"), []byte(strings.Repeat("content ", 100_000)), 0o644),
		os.Link(at("dir/file"), at("hard")), os.Symlink("dir/file", at("soft")), unix.Mkfifo(at("fifo"), 0o600),
		os.WriteFile(at("other"), []byte("x"), 0o600), unix.Setxattr(at("other"), "user.a", []byte("1"), 0),
	)
	stamp(t, root)
	return root
}

// stamp sets all times to one moment.
func stamp(t *testing.T, root string) {
	t.Helper()
	ts := unix.NsecToTimespec(moment.UnixNano())
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

func TestEqual(t *testing.T) {
	if d, err := Trees(plant(t), plant(t)); err != nil || len(d) != 0 {
		t.Errorf("%q %v", d, err)
	}
}

// TestSees spoils one thing each.
func TestSees(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(root string) error
		want  string
		stamp bool
	}{
		"content": {func(r string) error {
			return os.WriteFile(r+"/dir/file", []byte(strings.Repeat("content ", 99_999)+"contenT "), 0o644)
		}, "dir/file: content", true},
		"size":    {func(r string) error { return os.Truncate(r+"/other", 0) }, "other: size 1 and 0", true},
		"mode":    {func(r string) error { return unix.Chmod(r+"/other", 0o4600) }, "other: mode 100600 and 104600", true},
		"owner":   {func(r string) error { return os.Chown(r+"/other", 5, 6) }, "other: owner [0 0] and [5 6]", true},
		"time":    {func(r string) error { return os.Chtimes(r+"/dir", moment, moment.Add(1)) }, "dir: modified", false},
		"missing": {func(r string) error { return os.Remove(r + "/fifo") }, "fifo: missing", true},
		"more":    {func(r string) error { return os.WriteFile(r+"/more", nil, 0o600) }, "more: not in the original", true},
		"target": {func(r string) error {
			return joined(os.Remove(r+"/soft"), os.Symlink("dir/fil", r+"/soft"))
		}, `soft: size 8 and 7, target "dir/file" and "dir/fil"`, true},
		"type": {func(r string) error {
			return joined(os.Remove(r+"/fifo"), os.WriteFile(r+"/fifo", nil, 0o600))
		}, "fifo: mode 10600 and 100600", true},
		"link": {func(r string) error {
			return joined(os.Remove(r+"/hard"), os.WriteFile(r+"/hard", []byte(strings.Repeat("content ", 100_000)), 0o644))
		}, "hard: links 2 and 1", true},
		"xattr value": {func(r string) error { return unix.Setxattr(r+"/other", "user.a", []byte("2"), 0) }, "other: extended attributes", true},
		"xattr":       {func(r string) error { return unix.Removexattr(r+"/other", "user.a") }, "other: extended attributes", true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := plant(t), plant(t)
			must(t, tt.spoil(b))
			if tt.stamp {
				stamp(t, b)
			}
			d, err := Trees(a, b)
			if err != nil || !slices.ContainsFunc(d, func(d Difference) bool { return strings.HasPrefix(d.Path+": "+d.What, tt.want) }) {
				t.Errorf("want %q in %q, %v", tt.want, d, err)
			}
		})
	}
}

func joined(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
