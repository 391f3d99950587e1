package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
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
	hasty, hastySSH := host(t, sshd.Options{Deny: []string{"fsync"}})
	if list := Run(t.Context(), primary(t, source, hasty.URL(t.TempDir()), hastySSH), Roles{}); !says(list, "store cache1", Warning, "may not survive a power cut") || Faults(list) != 0 {
		t.Errorf("a server without fsync:\n%s", text(list))
	}
	for name, c := range map[string]struct {
		url   string
		ssh   config.SSH
		words string
		fix   string
	}{
		"another host key": {s.URL(t.TempDir()), config.SSH{Key: s.KeyFile, KnownHosts: otherSSH.KnownHosts}, "host key", "known_hosts"},
		"another key":      {other.URL(t.TempDir()), config.SSH{Key: ssh.Key, KnownHosts: otherSSH.KnownHosts}, "refused the key", "authorized_keys"},
		"read-only":        {readOnly.URL(t.TempDir()), readOnlySSH, "write projects/doctor/alpha", ""},
		"full":             {s.URL(full), ssh, "write projects/doctor/alpha", ""},
		"full, and said":   {s.URL(full), ssh, "B free", "make room"},
		"nobody there":     {address, goneSSH, "reach", "see that the host is up"},
	} {
		t.Run(name, func(t *testing.T) {
			list := Run(t.Context(), primary(t, source, c.url, c.ssh), Roles{})
			at := slices.IndexFunc(list, func(f Finding) bool {
				return f.Check == "store cache1" && f.Level == Fault && strings.Contains(f.Says, c.words)
			})
			if at < 0 || !strings.Contains(list[at].Fix, c.fix) || !says(list, "source", OK, "") || Faults(list) == 0 {
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
	if says(list, "source", OK, "") || says(list, "store cache1", OK, "account") || says(list, "store cache1", Warning, "account") || t.Failed() {
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
	gone := primary(t, t.TempDir(), t.TempDir(), config.SSH{})
	tr := &trip{report: &report{}, work: filepath.Join(t.TempDir(), scratchName)}
	tr.choose(&config.Primary{Source: filepath.Join(gone.Primary.Source, "gone"), State: filepath.Join(gone.Primary.State, "gone")})
	if !strings.HasPrefix(tr.tree, tr.work+"/") || !strings.Contains(tr.where, "not the source's") {
		t.Errorf("without a source: %s, said to be on that of %s", tr.tree, tr.where)
	}
	two := primary(t, t.TempDir(), t.TempDir(), config.SSH{})
	lock, err := durable.Lock(filepath.Join(two.Primary.State, "doctor.lock"))
	must(t, err)
	defer func() { must(t, lock.Close()) }()
	list := Run(t.Context(), two, Roles{Seal: func(context.Context, *config.Primary, *os.File) error { t.Error("both at once"); return nil }})
	at := slices.IndexFunc(list, func(f Finding) bool { return f.Level == Warning && strings.HasPrefix(f.Says, "not tried") })
	if at < 0 || !strings.Contains(list[at].Fix, "the other doctor") {
		t.Errorf("findings:\n%s", text(list))
	}
}

// onThread runs what changes its thread on one of its own, which ends with it.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- do()
	}()
	return <-done
}

// TestOldKernel: the kernel itself says to this thread that it is 2.6.
func TestOldKernel(t *testing.T) {
	const uname26 = 0x0020000
	r := &report{}
	must(t, onThread(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, uname26, 0, 0); errno != 0 {
			return errno
		}
		kernel(r)
		return nil
	}))
	if !says(r.list, "kernel", Warning, "neither passthrough nor") || len(r.list) != 1 {
		t.Errorf("findings:\n%s", text(r.list))
	}
}

// TestPrivileges: every capability that is missing is told, and whoever is not root.
func TestPrivileges(t *testing.T) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all [2]unix.CapUserData
	must(t, unix.Capget(&hdr, &all[0]))
	for _, c := range capabilities {
		r := &report{}
		must(t, onThread(func() error {
			caps := all
			caps[c.bit/32].Effective &^= 1 << (c.bit % 32)
			if err := unix.Capset(&unix.CapUserHeader{Version: hdr.Version}, &caps[0]); err != nil {
				return err
			}
			privileges(r)
			return nil
		}))
		level := Warning
		if c.needed {
			level = Fault
		}
		if !says(r.list, "privileges", level, c.name+" is missing") || says(r.list, "privileges", OK, "") {
			t.Errorf("without %s:\n%s", c.name, text(r.list))
		}
	}
	r := &report{}
	must(t, onThread(func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 1234, 1234, 1234); errno != 0 {
			return errno
		}
		privileges(r)
		return nil
	}))
	if !says(r.list, "privileges", Fault, "not root") || len(r.list) != 1 {
		t.Errorf("not root:\n%s", text(r.list))
	}
}

// TestStacked: a file system on another has no passthrough; one that is not is not said to be.
func TestStacked(t *testing.T) {
	disk := loopdisk.New(t, "ext4", 16<<20, "")
	dirs := map[string]string{}
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		dirs[name] = filepath.Join(disk, name)
		must(t, os.Mkdir(dirs[name], 0o755))
	}
	must(t, unix.Mount("overlay", dirs["merged"], "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dirs["lower"], dirs["upper"], dirs["work"])))
	t.Cleanup(func() { must(t, unix.Unmount(dirs["merged"], 0)) })
	for name, want := range map[string]bool{"merged": true, "lower": false} {
		r := &report{}
		if source(r, dirs[name]); says(r.list, "source", Warning, "stacked on another") != want {
			t.Errorf("%s:\n%s", name, text(r.list))
		}
	}
}

// TestNoInodes: a file system may be full of files with much space left.
func TestNoInodes(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mount("none", dir, "tmpfs", 0, "size=64m,nr_inodes=40"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	r := &report{}
	if space(r, dir); len(r.list) != 1 || r.list[0].Level != OK {
		t.Errorf("at first:\n%s", text(r.list))
	}
	for i, err := 0, error(nil); err == nil; i++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600)
	}
	if space(r, filepath.Join(dir, "not made yet", "nor this")); !says(r.list, "space", Warning, "of 40 inodes are free") {
		t.Errorf("without inodes:\n%s", text(r.list))
	}
	endless := t.TempDir()
	must(t, unix.Mount("none", endless, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(endless, 0)) })
	r = &report{}
	if space(r, endless); len(r.list) != 1 || r.list[0].Level != OK {
		t.Errorf("a file system that tells no sizes:\n%s", text(r.list))
	}
}

func TestRoomy(t *testing.T) {
	for free, want := range map[int64]string{0: Fault, 9: Fault, 10: Warning, 99: Warning, 100: OK, 1000: OK} {
		r := &report{}
		if roomy(r, "space", "here", free, 1000); r.list[0].Level != want {
			t.Errorf("%d of 1000: %s", free, r.list[0].Level)
		}
	}
}

// TestOfEachRole: what is filled and what is written to, with the volumes that have come so far.
func TestOfEachRole(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"media", "projects", "lost+found", ".hidden"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	cache, bravo := config.Store{Name: "cache1"}, config.Store{Name: "bravo"}
	for want, c := range map[string]*config.Config{
		"[/s /o /v] alpha [papers] [cache1 bravo]":         {Primary: &config.Primary{Node: "alpha", Volume: "papers", State: "/s", Source: "/v", Spool: config.Spool{Dir: "/o"}, Cache: cache, Replicas: []config.Store{bravo}}},
		"[/s DIR] charlie [media projects] [cache1 bravo]": {Peer: &config.Peer{Node: "charlie", State: "/s", Store: dir, Cache: cache, Replicas: []config.Store{bravo}}},
		"[/s DIR] cache1 [media projects] [bravo]":         {Cache: &config.Cache{Node: "cache1", State: "/s", Store: dir, Ship: config.Ship{To: []config.Store{bravo}}}},
		"[/s DIR]  [] []": {Receive: &config.Receive{Node: "vault1", State: "/s", Store: dir}},
	} {
		node, volumes, stores := destinations(c)
		names := []string{}
		for _, s := range stores {
			names = append(names, s.Name)
		}
		if got := strings.ReplaceAll(fmt.Sprint(places(c), " ", node, " ", volumes, " ", names), dir, "DIR"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
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
