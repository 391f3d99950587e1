package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/initialise"
	"slipway/internal/loopdisk"
	"slipway/internal/sshd"
	"slipway/internal/state"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// primary makes a volume whose cache is at url, as an operator would.
func primary(t *testing.T, source, url string, ssh config.SSH) *config.Config {
	t.Helper()
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	path := filepath.Join(dir, "alpha.yml")
	_, err := initialise.Init(initialise.Options{
		Volume: "projects", Node: "alpha", Source: source, Mount: mnt, State: filepath.Join(dir, "state"), Config: path,
		Identity: filepath.Join(dir, "identity"), Cache: config.Store{Name: "cache1", URL: url}, SSHKey: ssh.Key, KnownHosts: ssh.KnownHosts,
	})
	must(t, err)
	c, err := config.Load(path)
	must(t, err)
	return c
}

// host is a real sshd.
func host(t *testing.T, opt sshd.Options) (*sshd.Server, config.SSH) {
	t.Helper()
	s, err := sshd.Start(filepath.Join(t.TempDir(), "sshd"), opt)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return s.Serve(ctx) })
	t.Cleanup(func() { stop(); must(t, g.Wait()) })
	return s, config.SSH{Key: s.KeyFile, KnownHosts: s.KnownHosts}
}

// says finds a finding of a check and level with some words.
func says(list []Finding, check, level, words string) bool {
	for _, f := range list {
		if f.Check == check && f.Level == level && strings.Contains(f.Says, words) && (level == OK || check == "configuration" || f.Fix != "") {
			return true
		}
	}
	return false
}

func text(list []Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%s %s: %s (%s)\n", f.Level, f.Check, f.Says, f.Fix)
	}
	return b.String()
}

// TestSound: nothing is wrong with a volume on ext4 and a cache host with OpenSSH, and what was tried leaves nothing in the source.
func TestSound(t *testing.T) {
	source := loopdisk.New(t, "ext4", 64<<20, "")
	s, ssh := host(t, sshd.Options{})
	data := t.TempDir()
	list := Run(t.Context(), primary(t, source, s.URL(data), ssh), Roles{})
	for _, want := range [][2]string{
		{"configuration", "no faults"}, {"kernel", "passthrough"}, {"source", "extended attributes, ACLs"}, {"space", "free"},
		{"store cache1", "reached"}, {"store cache1", "written, made durable and read back"},
		{"store cache1", "the account can neither remove"},
	} {
		if !says(list, want[0], OK, want[1]) {
			t.Errorf("nothing of %q, %q", want[0], want[1])
		}
	}
	if Faults(list) != 0 || t.Failed() {
		t.Errorf("findings:\n%s", text(list))
	}
	left, err := os.ReadDir(source)
	must(t, err)
	for _, e := range left {
		if e.Name() != "lost+found" {
			t.Errorf("the source has %s", e.Name())
		}
	}
	if _, err := os.Stat(filepath.Join(data, "projects", "doctor", "alpha")); err != nil {
		t.Error(err)
	}
}

// TestStoreFaults: what is wrong with a store is said by what it is, with what to do, and the rest is looked at all the same.
func TestStoreFaults(t *testing.T) {
	source := t.TempDir()
	s, ssh := host(t, sshd.Options{})
	other, otherSSH := host(t, sshd.Options{})
	readOnly, readOnlySSH := host(t, sshd.Options{ReadOnly: true})
	full := loopdisk.New(t, "ext4", 8<<20, "")
	fill(t, full)
	gone, goneSSH := host(t, sshd.Options{})
	address := gone.URL(t.TempDir())
	address = strings.Replace(address, gone.Addr, "127.0.0.1:1", 1)
	away := primary(t, source, t.TempDir(), goneSSH)
	away.Primary.Backups = []config.Store{{Name: "vault1", URL: gone.URL(t.TempDir())}, {Name: "vault2", URL: address}}
	if list := Run(t.Context(), away, Roles{}); !says(list, "store vault1", OK, "reached") || !says(list, "store vault2", Warning, "cannot be drilled") || Faults(list) != 0 {
		t.Errorf("backup hosts:\n%s", text(list))
	}
	free, freeSSH := host(t, sshd.Options{AllowAll: true})
	if list := Run(t.Context(), primary(t, source, free.URL(t.TempDir()), freeSSH), Roles{}); !says(list, "store cache1", Warning, "the account may remove, change attributes, link") || Faults(list) != 0 {
		t.Errorf("an account that may do everything:\n%s", text(list))
	}
	for name, c := range map[string]struct {
		url   string
		ssh   config.SSH
		words string
	}{
		"another host key": {s.URL(t.TempDir()), config.SSH{Key: s.KeyFile, KnownHosts: otherSSH.KnownHosts}, "host key"},
		"another key":      {other.URL(t.TempDir()), config.SSH{Key: ssh.Key, KnownHosts: otherSSH.KnownHosts}, "refused the key"},
		"read-only":        {readOnly.URL(t.TempDir()), readOnlySSH, "write projects/doctor/alpha"},
		"full":             {s.URL(full), ssh, "write projects/doctor/alpha"},
		"nobody there":     {address, goneSSH, "reach"},
	} {
		t.Run(name, func(t *testing.T) {
			list := Run(t.Context(), primary(t, source, c.url, c.ssh), Roles{})
			if !says(list, "store cache1", Fault, c.words) || !says(list, "source", OK, "") || Faults(list) == 0 {
				t.Errorf("findings:\n%s", text(list))
			}
		})
	}
}

func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	must(t, f.Close())
}

// TestPoorSource: a file system without what slipway wants is told by what is missing.
func TestPoorSource(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mount("none", dir, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	list := Run(t.Context(), primary(t, dir, t.TempDir(), config.SSH{}), Roles{})
	for _, words := range []string{"extended attributes", "POSIX ACLs", "time of birth"} {
		if !says(list, "source", Warning, words) {
			t.Errorf("nothing of %s", words)
		}
	}
	if says(list, "source", OK, "") || t.Failed() {
		t.Errorf("findings:\n%s", text(list))
	}
}

// TestFullPlaces: a disk that is nearly full is told before it is.
func TestFullPlaces(t *testing.T) {
	disk := loopdisk.New(t, "ext4", 16<<20, "")
	fill(t, disk)
	list := Run(t.Context(), primary(t, disk, t.TempDir(), config.SSH{}), Roles{})
	if !says(list, "space", Fault, disk) {
		t.Errorf("findings:\n%s", text(list))
	}
}

func TestOlder(t *testing.T) {
	for release, want := range map[string]bool{"6.8.12-generic": true, "6.9.0": false, "6.18.44": false, "5.10.0-28-amd64": true, "7.0": false, "nonsense": true} {
		if got := older(release, 6, 9); got != want {
			t.Errorf("%s: %v", release, got)
		}
	}
}

// TestRoundTripCleansUp: whatever ends a round trip, and what an earlier one has left when it was killed: nothing stays behind.
func TestRoundTripCleansUp(t *testing.T) {
	source := loopdisk.New(t, "ext4", 64<<20, "")
	c := primary(t, source, t.TempDir(), config.SSH{})
	for _, left := range []string{source, c.Primary.State} {
		must(t, os.MkdirAll(filepath.Join(left, scratchName, "made", "modes"), 0o700))
	}
	kept := t.TempDir() // a mount that is left is not removed through
	must(t, os.WriteFile(filepath.Join(kept, "file"), nil, 0o600))
	point := filepath.Join(c.Primary.State, scratchName, "mnt")
	must(t, os.Mkdir(point, 0o700))
	for range 2 {
		must(t, unix.Mount(kept, point, "", unix.MS_BIND, ""))
	}
	var tree string
	list := Run(t.Context(), c, Roles{Seal: func(_ context.Context, p *config.Primary, made *os.File) error {
		tree = made.Name()
		entries, err := os.ReadDir(tree)
		must(t, err)
		if len(entries) != len(kinds) || p.Source != tree {
			t.Errorf("%d kinds in %s, the volume's source is %s", len(entries), tree, p.Source)
		}
		return fmt.Errorf("seal: no such luck")
	}})
	if !says(list, "metadata", Fault, "no such luck") {
		t.Errorf("findings:\n%s", text(list))
	}
	if !strings.HasPrefix(tree, source) {
		t.Errorf("the tree was made in %s", tree)
	}
	if _, err := os.Stat(filepath.Join(kept, "file")); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{source, c.Primary.State} {
		if _, err := os.Lstat(filepath.Join(dir, scratchName)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestRoundTripPlaces: a tree is made on the source's file system where nobody journals it, and it is said where that is not possible.
func TestRoundTripPlaces(t *testing.T) {
	disk := loopdisk.New(t, "ext4", 64<<20, "")
	around := filepath.Join(disk, "projects")
	must(t, os.Mkdir(around, 0o755))
	for name, c := range map[string]struct {
		source string
		mount  bool
		want   string
	}{
		"the state's own file system": {t.TempDir(), true, ""}, "the directory around": {around, true, disk}, "the source itself": {disk, false, disk}, "mounted": {disk, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conf := primary(t, c.source, t.TempDir(), config.SSH{})
			if c.mount {
				lock, err := durable.Lock(state.Dir(conf.Primary.State).Lock())
				must(t, err)
				defer func() { must(t, lock.Close()) }()
			}
			if c.want == "" {
				c.want = conf.Primary.State
			}
			tr := &trip{report: &report{}, work: filepath.Join(conf.Primary.State, scratchName)}
			tr.choose(conf.Primary)
			if !strings.HasPrefix(tr.tree, c.want+"/") || strings.Contains(tr.where, "not the source's") != (name == "mounted") {
				t.Errorf("%s, said to be on that of %s", tr.tree, tr.where)
			}
		})
	}
	two := primary(t, t.TempDir(), t.TempDir(), config.SSH{})
	lock, err := durable.Lock(filepath.Join(two.Primary.State, "doctor.lock"))
	must(t, err)
	defer func() { must(t, lock.Close()) }()
	list := Run(t.Context(), two, Roles{Seal: func(context.Context, *config.Primary, *os.File) error { t.Error("both at once"); return nil }})
	if !says(list, "metadata", Warning, "not tried") {
		t.Errorf("findings:\n%s", text(list))
	}
}

// TestFilledHoles: a file that has lost its holes is told from one that has them.
func TestFilledHoles(t *testing.T) {
	dir := t.TempDir()
	must(t, holes(dir))
	must(t, stillSparse("", dir))
	f, err := os.OpenFile(filepath.Join(dir, "sparse"), os.O_RDWR, 0)
	must(t, err)
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, sparseSize))
	must(t, f.Close())
	if err := stillSparse("", dir); err == nil {
		t.Error("not seen")
	}
}
