package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// dirs makes a source with a file and a directory in it, and an empty mount point.
func dirs(t *testing.T) (source, mountPoint string) {
	t.Helper()
	return dirsBelow(t, t.TempDir())
}

// sharedDisk is a file system of its own whose mounts spread to every mount namespace, as is usual under systemd.
func sharedDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

func dirsBelow(t *testing.T, root string) (source, mountPoint string) {
	t.Helper()
	source, mountPoint = filepath.Join(root, "projects data"), filepath.Join(root, "mnt")
	for _, dir := range []string{source, mountPoint, filepath.Join(source, "src")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(source, "main.go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return source, mountPoint
}

func prepare(t *testing.T, source, mountPoint string) (*place, error) {
	t.Helper()
	p, err := preparePlace(t.Context(), source, mountPoint, 200*time.Millisecond)
	if err == nil {
		t.Cleanup(p.close)
	}
	return p, err
}

// listing is what a child would see in the source.
func listing(t *testing.T, p *place) []string {
	t.Helper()
	f, err := p.reopenSource()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPlaces(t *testing.T) {
	source, mountPoint := dirs(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(source, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{source, mountPoint}, {source, source}, {link, source}, {source, link}, {source + "/", source}} {
		p, err := prepare(t, c[0], c[1])
		if err != nil {
			t.Errorf("%q: %v", c, err)
			continue
		}
		if names := listing(t, p); len(names) != 2 {
			t.Errorf("%q: the source holds %q", c, names)
		}
	}
}

func TestPlacesRefused(t *testing.T) {
	source, mountPoint := dirs(t)
	full := t.TempDir()
	for _, name := range []string{"a", "b", "c", "d"} {
		if err := os.WriteFile(filepath.Join(full, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one := t.TempDir()
	if err := os.Mkdir(filepath.Join(one, "old\nstuff"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ source, mountPoint, says string }{
		"no source":              {source + "x", mountPoint, "source " + source + "x: not usable: it does not exist"},
		"source is a file":       {source + "/main.go", mountPoint, "it is not a directory"},
		"no mount point":         {source, mountPoint + "x", "mount point " + mountPoint + "x: not usable: it does not exist"},
		"mount point is a file":  {source, source + "/main.go", "it is not a directory"},
		"mount point in use":     {source, full, ", …"},
		"mount point holds one":  {source, one, `it is neither the source nor empty, it holds "old\nstuff"`},
		"mount point in source":  {source, source + "/src", "it lies inside the source"},
		"source in mount point":  {source + "/src", source, "it lies inside the mount point"},
		"everything is a source": {"/", mountPoint, "it lies inside the source"},
	} {
		_, err := prepare(t, c.source, c.mountPoint)
		if !errors.Is(err, ErrPlace) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q in it", name, err, c.says)
		}
	}
}

func TestLivingMountRefused(t *testing.T) {
	source, mountPoint := dirs(t)
	newFakeMount(t, mountPoint)
	inside := filepath.Join(mountPoint, ".")
	for _, c := range [][2]string{{source, mountPoint}, {mountPoint, source}, {mountPoint, inside}} {
		if _, err := prepare(t, c[0], c[1]); !errors.Is(err, ErrMounted) {
			t.Errorf("%q: %v", c, err)
		}
	}
}

// TestDyingMount: one whose supervisor has just been killed ends a moment later.
func TestDyingMount(t *testing.T) {
	source, _ := dirs(t)
	m := newFakeMount(t, source)
	var g errgroup.Group
	g.Go(func() error {
		<-time.After(100 * time.Millisecond)
		m.die(t)
		return nil
	})
	p, err := preparePlace(t.Context(), source, source, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if names := listing(t, p); len(names) != 2 {
		t.Errorf("the source holds %q", names)
	}
}

// TestSilentMount: one that does not answer is not dead.
func TestSilentMount(t *testing.T) {
	source, _ := dirs(t)
	mountSilent(t, source)
	if _, err := prepare(t, source, source); !errors.Is(err, ErrMounted) {
		t.Error(err)
	}
}

// TestBeneathDeadMount: the source is opened, with the mounts below it, while everybody else goes on seeing the dead mount.
func TestBeneathDeadMount(t *testing.T) {
	for _, inPlace := range []bool{true, false} {
		source, mountPoint := dirsBelow(t, sharedDisk(t))
		if inPlace {
			mountPoint = source
		}
		below := filepath.Join(source, "src")
		if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(below, unix.MNT_DETACH) })
		if err := os.WriteFile(filepath.Join(below, "mounted"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			newFakeMount(t, mountPoint).die(t)
		}
		p := watchExposure(t, mountPoint, func() *place {
			p, err := prepare(t, source, mountPoint)
			if err != nil {
				t.Fatal(err)
			}
			return p
		})
		if names := listing(t, p); len(names) != 2 {
			t.Errorf("in place %v: the source holds %q", inPlace, names)
		}
		fd, err := unix.Openat(int(p.source.Fd()), "src/mounted", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Errorf("in place %v: a mount below the source: %v", inPlace, err)
		} else if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/new", p.source.Fd()), nil, 0o600); err != nil {
			t.Error(err)
		}
		for _, left := range []string{"two", "one"} {
			if c, err := inspect(mountPoint); c != dead || err != nil {
				t.Fatalf("in place %v: of %s dead mounts: %v, %v", inPlace, left, c, err)
			}
			if err := unix.Unmount(mountPoint, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(filepath.Join(source, "new")); err != nil {
			t.Error(err)
		}
	}
}

// watchExposure runs f several times while it looks whether the mount at path ever does not answer as a dead one.
func watchExposure(t *testing.T, path string, f func() *place) (p *place) {
	t.Helper()
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			default:
			}
			var st unix.Statfs_t
			if err := unix.Statfs(path, &st); !errors.Is(err, unix.ENOTCONN) {
				return fmt.Errorf("%s does not answer as a dead mount: type %x (%w)", path, st.Type, err)
			}
		}
	})
	for range 5 {
		p = f()
	}
	close(done)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	return p
}

// TestFullMountPointBeneathDeadMount: what a dead mount hides at the mount point is seen as well.
func TestFullMountPointBeneathDeadMount(t *testing.T) {
	source, mountPoint := dirs(t)
	if err := os.WriteFile(filepath.Join(mountPoint, "hidden"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newFakeMount(t, mountPoint).die(t)
	if _, err := prepare(t, source, mountPoint); !errors.Is(err, ErrPlace) || !strings.Contains(err.Error(), `"hidden"`) {
		t.Error(err)
	}
}

func TestLivingBeneathDead(t *testing.T) {
	source, _ := dirs(t)
	newFakeMount(t, source)
	newFakeMount(t, source).die(t)
	if _, err := prepare(t, source, source); !errors.Is(err, ErrMounted) {
		t.Error(err)
	}
}

func TestInsideSlipwayMount(t *testing.T) {
	all := parseMounts("21 1 8:1 / / rw - ext4 /dev/vda rw\n" +
		`30 21 0:40 / /srv/the\040projects rw,nosuid shared:1 - fuse.slipway projects rw` + "\nnonsense\n")
	for path, want := range map[string]string{
		"/srv/the projects/src": "/srv/the projects", "/srv/the projects": "", "/srv/the projects2": "", "/srv": "",
	} {
		if got, _ := slipwayAbove(all, path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestTopAt: a mount put beneath another comes later in the table and is not on top, one put over another is.
func TestTopAt(t *testing.T) {
	const root = "21 1 8:1 / / rw - ext4 /dev/vda rw\n"
	for text, want := range map[string]int{
		"40 50 0:41 / /srv/projects rw - fuse.slipway projects rw\n50 21 0:42 / /srv/projects rw - fuse.slipway projects rw\n": 40,
		"40 21 0:41 / /srv/projects rw - fuse.slipway projects rw\n50 40 0:42 / /srv/projects rw - fuse.slipway projects rw\n": 50,
		"40 21 0:41 / /srv/projects rw - fuse.slipway projects rw\n50 21 0:42 / /srv/projects2 rw - ext4 /dev/vdb rw\n":        40,
	} {
		all := parseMounts(root + text)
		if top, ok := topAt(all, "/srv/projects"); !ok || top.id != want {
			t.Errorf("%q: %+v", text, top)
		}
		if top, ok := topAt(all, "/"); !ok || top.id != 21 {
			t.Errorf("/: %+v", top)
		}
		if _, ok := topAt(all, "/srv"); ok {
			t.Error("a mount where there is none")
		}
	}
}
