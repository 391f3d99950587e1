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
	"slipway/internal/initialise"
	"slipway/internal/loopdisk"
	"slipway/internal/sshd"
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
	list := Run(t.Context(), primary(t, source, s.URL(data), ssh))
	for _, want := range [][2]string{
		{"configuration", "no faults"}, {"kernel", "passthrough"}, {"source", "extended attributes, ACLs"}, {"space", "free"},
		{"store cache1", "reached"}, {"store cache1", "written, made durable and read back"},
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
			list := Run(t.Context(), primary(t, source, c.url, c.ssh))
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
	list := Run(t.Context(), primary(t, dir, t.TempDir(), config.SSH{}))
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
	list := Run(t.Context(), primary(t, disk, t.TempDir(), config.SSH{}))
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
