package store_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/durable"
	"slipway/internal/sshd"
	"slipway/internal/store"

	"golang.org/x/sys/unix"
)

// mountSmall mounts a file system with little space and returns its directory.
func mountSmall(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("slipway-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// onBoth runs a test on a directory itself and on the same directory through OpenSSH.
func onBoth(t *testing.T, dir func(t *testing.T) string, run func(t *testing.T, s store.Store, dir string)) {
	t.Run("local", func(t *testing.T) {
		d := dir(t)
		run(t, open(t, d, store.Options{}), d)
	})
	t.Run("openssh", func(t *testing.T) {
		server := serve(t, sshd.Options{})
		d := dir(t)
		run(t, open(t, server.URL(d), options(server)), d)
	})
}

func TestFullDisk(t *testing.T) {
	onBoth(t, func(t *testing.T) string { return mountSmall(t, "size=2m") }, func(t *testing.T, s store.Store, dir string) {
		if err := s.Publish(t.Context(), object, content(1, 1<<20)); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			s.Publish(t.Context(), "shards/3f/3f.shard", content(2, 3<<19)),
			s.Replace(t.Context(), object, content(3, 3<<19)),
		} {
			mustBe(t, err, store.ErrFull)
			if errors.Is(err, store.ErrTemporary) {
				t.Errorf("temporary: %v", err)
			}
		}
		mustHold(t, s, object, content(1, 1<<20))
		for _, n := range temps(t, dir) {
			if n != 0 {
				t.Errorf("what did not fit was left: %d bytes", n)
			}
		}
		if err := os.Remove(filepath.Join(dir, object)); err != nil { // the host's operator makes room
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), "shards/3f/3f.shard", content(2, 3<<19)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNoInodes(t *testing.T) {
	onBoth(t, func(t *testing.T) string { return mountSmall(t, "nr_inodes=8") }, func(t *testing.T, s store.Store, _ string) {
		var err error
		for i := 0; i < 8 && err == nil; i++ {
			err = s.Publish(t.Context(), strings.Repeat("x", i+1), nil)
		}
		mustBe(t, err, store.ErrFull)
	})
}

func TestReadOnlyDisk(t *testing.T) {
	onBoth(t, func(t *testing.T) string { return mountSmall(t, "") }, func(t *testing.T, s store.Store, dir string) {
		if err := s.Publish(t.Context(), object, []byte("content")); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			s.Publish(t.Context(), "other", nil),
			s.Publish(t.Context(), "new/dir/other", nil),
			s.Replace(t.Context(), object, nil),
			s.CreateExclusive(t.Context(), "claims/1-1", nil),
		} {
			mustBe(t, err, store.ErrReadOnly)
		}
		mustHold(t, s, object, []byte("content"))
		if err := s.Publish(t.Context(), object, []byte("content")); err != nil {
			t.Fatalf("present and equal: %v", err)
		}
	})
}

// Whoever may write into a store's directory may put anything there. It is neither followed nor waited for.
func TestForeignThings(t *testing.T) {
	onBoth(t, (*testing.T).TempDir, func(t *testing.T, s store.Store, dir string) {
		secret := write(t, "secret", "secret")
		for name, make := range map[string]func(path string) error{
			"link":             func(p string) error { return os.Symlink(secret, p) },
			"dangling":         func(p string) error { return os.Symlink("nowhere", p) },
			"fifo":             func(p string) error { return unix.Mkfifo(p, 0o666) },
			"socket":           func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o666, 0) },
			"device":           func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
			durable.TempName(): func(p string) error { return os.WriteFile(p, nil, 0o600) },
			".hidden":          func(p string) error { return os.WriteFile(p, nil, 0o600) },
			"sp ace":           func(p string) error { return os.WriteFile(p, nil, 0o600) },
			"new\nline":        func(p string) error { return os.WriteFile(p, nil, 0o600) },
			"b\xffd":           func(p string) error { return os.WriteFile(p, nil, 0o600) },
		} {
			if err := make(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Publish(t.Context(), "object", nil); err != nil {
			t.Fatal(err)
		}
		found, err := s.List(t.Context(), "")
		if err != nil || len(found) != 1 || found[0].Name != "object" {
			t.Errorf("listed: %+v, %v", found, err)
		}
		for _, name := range []string{"link", "dangling", "fifo", "socket", "device"} {
			testForeign(t, s, name)
		}
		if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
			t.Fatalf("written through the link: %q, %v", data, err)
		}
	})
}

func testForeign(t *testing.T, s store.Store, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if data, err := s.Read(ctx, name, 100); err == nil || errors.Is(err, store.ErrNotExist) || ctx.Err() != nil {
		t.Errorf("read %s: %q, %v", name, data, err)
	}
	if info, err := s.Stat(ctx, name); err == nil || errors.Is(err, store.ErrNotExist) || ctx.Err() != nil {
		t.Errorf("stat %s: %+v, %v", name, info, err)
	}
	if err := s.Publish(ctx, name, []byte("secret")); !errors.Is(err, store.ErrDiffers) {
		t.Errorf("publish %s: %v", name, err)
	}
	if err := s.CreateExclusive(ctx, name, []byte("secret")); !errors.Is(err, store.ErrExist) {
		t.Errorf("create %s: %v", name, err)
	}
}

// A directory on the way that leads elsewhere is not entered, by the process that runs as a daemon of the host.
func TestLinkedDirectory(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "object"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "acks")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, store.Options{})
	_, readErr := s.Read(t.Context(), "acks/object", 100)
	_, listErr := s.List(t.Context(), "acks")
	for verb, err := range map[string]error{
		"read":    readErr,
		"list":    listErr,
		"replace": s.Replace(t.Context(), "acks/object", []byte("content")),
		"publish": s.Publish(t.Context(), "acks/deeper/object", nil),
		"remove":  s.Remove(t.Context(), "acks/object"),
	} {
		if err == nil {
			t.Errorf("%s went through the link", verb)
		}
	}
	entries, err := os.ReadDir(elsewhere)
	if err != nil || len(entries) != 1 {
		t.Fatalf("elsewhere: %v, %v", entries, err)
	}
	linked := filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(dir, linked); err != nil {
		t.Fatal(err)
	}
	if err := open(t, linked, store.Options{}).Publish(t.Context(), "object", nil); err != nil {
		t.Fatalf("a root that is a link: %v", err)
	}
}

// Where the group may write, it may write below as well: the daemon and the account share the directory.
func TestModes(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	for rootMode, want := range map[os.FileMode][2]os.FileMode{0o750: {0o750, 0o640}, 0o770: {0o770, 0o660}, 0o700: {0o750, 0o640}} {
		dir := t.TempDir()
		if err := os.Chmod(dir, rootMode); err != nil {
			t.Fatal(err)
		}
		if err := open(t, dir, store.Options{}).Publish(t.Context(), "d/object", nil); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"d", "d/object"} {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Mode().Perm() != want[i] {
				t.Errorf("below %o: %s has mode %o, %v", rootMode, name, st.Mode().Perm(), err)
			}
		}
	}
}

// What somebody removes at the store, directories included, is made again.
func TestRemovedBehindOurBack(t *testing.T) {
	onBoth(t, (*testing.T).TempDir, func(t *testing.T, s store.Store, dir string) {
		root := filepath.Join(dir, "projects")
		part := store.Sub(s, "projects")
		for range 2 {
			if err := part.Publish(t.Context(), object, []byte("content")); err != nil {
				t.Fatal(err)
			}
			mustHold(t, part, object, []byte("content"))
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			if found, err := part.List(t.Context(), ""); err != nil || len(found) != 0 {
				t.Fatalf("%v, %v", found, err)
			}
		}
	})
}

func TestRootIsAFile(t *testing.T) {
	file := write(t, "file", "")
	if _, err := store.Open(file, store.Options{}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("local: %v", err)
	}
	unseen(t, file)
	server := serve(t, sshd.Options{})
	s := open(t, server.URL(file), options(server))
	if err := s.Publish(t.Context(), "object", nil); err == nil || errors.Is(err, store.ErrTemporary) {
		t.Errorf("openssh: %v", err)
	}
	if err := open(t, server.URL("/proc/nowhere"), options(server)).Publish(t.Context(), "object", nil); err == nil ||
		errors.Is(err, store.ErrTemporary) || errors.Is(err, fs.ErrExist) {
		t.Errorf("cannot be made: %v", err)
	}
}

// unseen: whoever opens a store without looking is told by each method, and is served once the path is a directory.
func unseen(t *testing.T, file string) {
	t.Helper()
	s := open(t, file, store.Options{Unseen: true})
	methods := map[string]func() error{
		"publish": func() error { return s.Publish(t.Context(), "a/object", nil) },
		"create":  func() error { return s.CreateExclusive(t.Context(), "object", nil) },
		"read":    func() error { _, err := s.Read(t.Context(), "object", 1); return err },
		"stat":    func() error { _, err := s.Stat(t.Context(), "object"); return err },
		"list":    func() error { _, err := s.List(t.Context(), ""); return err },
		"remove":  func() error { return s.Remove(t.Context(), "object") },
	}
	for name, call := range methods {
		if err := call(); !errors.Is(err, store.ErrNotDir) || errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	below := open(t, filepath.Join(file, "below"), store.Options{Unseen: true})
	if err := below.Publish(t.Context(), "object", nil); !errors.Is(err, store.ErrNotDir) {
		t.Errorf("below a file: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), "a/object", []byte("content")); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, "a/object", []byte("content"))
	if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A small object does not wait until large ones have gone through a narrow line.
func TestSmallObjectsPass(t *testing.T) {
	server := serve(t, sshd.Options{})
	opt := options(server)
	limit := &blocking{entered: make(chan struct{}, 100)}
	opt.Limit, opt.Connections = limit, 3
	s := open(t, server.URL(t.TempDir()), opt)
	ctx, cancel := context.WithCancel(t.Context())
	const large = 6
	done := make(chan error, large)
	for i := range large {
		go func() { done <- s.Publish(ctx, strings.Repeat("x", i+1), make([]byte, 1<<20)) }()
	}
	<-limit.entered
	<-limit.entered // both connections for large objects are busy
	for i := range 3 {
		if err := s.Replace(t.Context(), "progress/alpha.json", bytes.Repeat([]byte("x"), i)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	var errs []error
	for range large {
		errs = append(errs, <-done)
	}
	if slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, context.Canceled) }) {
		t.Fatal(errs)
	}
}

// blocking lets small pieces pass and large ones wait for their context.
type blocking struct{ entered chan struct{} }

func (b *blocking) WaitN(ctx context.Context, n int) error {
	if n < 1000 {
		return nil
	}
	b.entered <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}
