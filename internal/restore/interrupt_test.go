package restore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"filippo.io/age"

	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
	"slipway/internal/store"
)

// With these in the environment the test binary is a restore of its own process.
const (
	envDir      = "RESTORE_TEST_STORE"
	envTarget   = "RESTORE_TEST_TARGET"
	envIdentity = "RESTORE_TEST_IDENTITY"
	envOwner    = "RESTORE_TEST_OWNER"
)

func TestMain(m *testing.M) {
	if os.Getenv(envDir) == "" {
		os.Exit(m.Run())
	}
	if err := childRestore(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func childRestore() error {
	s, err := store.Open(os.Getenv(envDir), store.Options{})
	if err != nil {
		return err
	}
	id, err := age.ParseX25519Identity(os.Getenv(envIdentity))
	if err != nil {
		return err
	}
	tree, err := restore.Load(context.Background(), restore.Source{
		Stores: []restore.NamedStore{{Name: "vault1", Store: s}}, IDs: []age.Identity{id}, Owners: []string{os.Getenv(envOwner)},
	}, restore.At{})
	if err != nil {
		return err
	}
	res, err := tree.Restore(context.Background(), restore.Options{Target: os.Getenv(envTarget)})
	if err != nil {
		return err
	}
	for _, f := range res.Failed {
		fmt.Printf("failed %q: %v\n", f.Path, f.Err)
	}
	for _, k := range res.Kept {
		fmt.Printf("kept %q\n", k)
	}
	return nil
}

// child prepares a restore in a process of its own.
func child(t *testing.T, v *volumetest.Volume, target string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envDir+"="+v.Dirs[0], envTarget+"="+target, envIdentity+"="+v.Identity.String(), envOwner+"="+v.Owner.Key)
	return cmd
}

// A restore killed at any instant and started again ends as if it had not been killed.
func TestKilledAndStartedAgain(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := zoo(t, v)
	for i := range 300 {
		w.file(w.dir(1, fmt.Sprint("dir ", i)), "file", strings.Repeat(fmt.Sprint(i), 5000))
	}
	w.seal()
	tree := load(t, v.Source(), restore.At{})
	whole := t.TempDir()
	start := time.Now()
	clean(t, tree, restore.Options{Target: whole})
	took := time.Since(start)
	want := scan(t, whole)

	for round := range 6 {
		target := t.TempDir()
		for shot := range 4 {
			cmd := child(t, v, target)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// The process needs a while until it begins to write.
			wait := time.NewTimer(20*time.Millisecond + time.Duration(rand.Int64N(int64(took))))
			<-wait.C
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed, or done already
			t.Logf("round %d, shot %d: %d of %d files there", round, shot, len(scan(t, target)), len(want))
		}
		clean(t, tree, restore.Options{Target: target})
		same(t, want, scan(t, target))
	}
}

// Cancelled after any number of bytes, it leaves nothing half done under a real name.
func TestCancelledAndStartedAgain(t *testing.T) {
	v := volumetest.New(t, "vault1")
	zoo(t, v).seal()
	tree := load(t, v.Source(), restore.At{})
	whole := t.TempDir()
	clean(t, tree, restore.Options{Target: whole})
	want := scan(t, whole)
	target := t.TempDir()
	for share := int64(1); share <= 10; share++ {
		ctx, cancel := context.WithCancel(context.Background())
		_, err := tree.Restore(ctx, restore.Options{Target: target, Progress: func(done, total int64) {
			if done >= total*share/10 {
				cancel()
			}
		}})
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		for path := range scan(t, target) {
			if strings.HasSuffix(path, ".tmp") {
				t.Errorf("%s was left", path)
			}
		}
	}
	clean(t, tree, restore.Options{Target: target})
	same(t, want, scan(t, target))
}

// After a crash of the machine, files can have their size and times without their bytes. The marker of the run that was cut
// off tells.
func TestMachineCrash(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	w.file(1, "f", "written")
	w.file(1, "other", "written")
	w.seal()
	tree := load(t, v.Source(), restore.At{})
	target := t.TempDir()
	clean(t, tree, restore.Options{Target: target})
	path := filepath.Join(target, "f")
	lose := func() {
		t.Helper()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path, make([]byte, 7), 0o644), os.Chtimes(path, st.ModTime(), st.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	lose()
	if res := clean(t, tree, restore.Options{Target: target}); res.Same != 2 {
		t.Fatalf("without a marker %+v", res)
	}
	marker := filepath.Join(target, ".slipway-restore-run")
	if err := os.WriteFile(marker, []byte("11111111-2222-3333-4444-555555555555\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if res := clean(t, tree, restore.Options{Target: target}); res.Files != 2 {
		t.Errorf("with another boot's marker %+v", res)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "written" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Lstat(marker); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the marker is still there: %v", err)
	}
}

func TestTwoAtOnce(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	w.file(1, "f", "x")
	w.seal()
	target := t.TempDir()
	f, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only a lock
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, v.Source(), restore.At{}).Restore(context.Background(), restore.Options{Target: target}); !errors.Is(err, restore.ErrLocked) {
		t.Errorf("%v", err)
	}
}

// Another user restores what he may, and what he may not is told once for each kind.
func TestNotRoot(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := zoo(t, v)
	closed := w.add(1, "closed", unix.S_IFDIR|0o555, nil)
	w.file(closed, "inside", "inside")
	w.seal()
	place := t.TempDir()
	target := filepath.Join(place, "target")
	// The child needs to reach the store and the target.
	err := errors.Join(os.Chmod(place, 0o755), os.Mkdir(target, 0o700), os.Chown(target, 1000, 1000), openUp(t, filepath.Dir(v.Dirs[0])), openUp(t, place))
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		cmd := child(t, v, target)
		cmd.Path = copySelf(t, place)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("round %d: %v: %s", round, err, out)
		}
		got := string(out)
		if round == 0 {
			for _, want := range []string{`failed "null": make file: operation not permitted`, `failed "disk"`, "owner of ", "trusted.* attributes of 1 files", "security.* attributes of 1 files"} {
				if strings.Count(got, want) != 1 {
					t.Errorf("round %d: %q is not said once:\n%s", round, want, got)
				}
			}
		}
		if strings.Contains(got, "kept") {
			t.Errorf("round %d: %s", round, got)
		}
	}
	files := scan(t, target)
	if d := files["suid"]; !strings.HasPrefix(d, "100755 1000:1000 ") {
		t.Errorf("a set-id file that belongs to somebody else now: %s", d)
	}
	if d := files["closed"]; !strings.HasPrefix(d, "40555 1000:1000 ") || files["closed/inside"] == "" {
		t.Errorf("closed directory: %s, inside it: %s", d, files["closed/inside"])
	}
	if d := files["xattrs"]; !strings.Contains(d, `"user.a"=00ff0a`) || !strings.HasPrefix(d, "100444 ") {
		t.Errorf("%s", d)
	}
}

// openUp makes a directory, everything in it and the temporary directories above it readable to other users.
func openUp(t *testing.T, dir string) error {
	t.Helper()
	for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || filepath.Base(path) == "target" {
			return err
		}
		mode := os.FileMode(0o644)
		if d.IsDir() {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

// copySelf puts the test binary where other users can run it.
func copySelf(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "child")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFullDiskStops(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	for i := range 8 {
		w.file(1, fmt.Sprint(i), strings.Repeat("abcdefgh", 100_000+i))
	}
	w.seal()
	target := t.TempDir()
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
	tree := load(t, v.Source(), restore.At{})
	res, err := tree.Restore(context.Background(), restore.Options{Target: target})
	if !errors.Is(err, unix.ENOSPC) || res == nil || res.Files == 8 || len(res.Failed) > 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	if again := clean(t, tree, restore.Options{Target: target}); again.Files+again.Same != 8 || again.Same != res.Files {
		t.Errorf("first %+v, then %+v", res, again)
	}
}
