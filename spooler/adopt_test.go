package spooler

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/doctor"
	"slipway/internal/initialise"
	"slipway/internal/loopdisk"
)

// examined is what doctor says of a volume's metadata, when directories are sealed by seal.
func examined(t *testing.T, source string, seal doctor.Seal) (list []doctor.Finding) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"mnt", "cache"} {
		check(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	conf, stateDir := filepath.Join(dir, "alpha.yml"), filepath.Join(dir, "state")
	_, err := initialise.Init(initialise.Options{
		Volume: "projects", Node: "alpha", Source: source, Mount: filepath.Join(dir, "mnt"), State: stateDir, Config: conf,
		Identity: filepath.Join(dir, "identity"), Cache: config.Store{Name: "cache1", URL: filepath.Join(dir, "cache")},
	})
	check(t, err)
	c, err := config.Load(conf)
	check(t, err)
	for _, f := range doctor.Run(t.Context(), c, doctor.Roles{Seal: seal}) {
		if f.Check == "metadata" {
			list = append(list, f)
		}
	}
	for _, d := range []string{source, stateDir} {
		entries, err := os.ReadDir(d)
		check(t, err)
		for _, e := range entries {
			if strings.Contains(e.Name(), "scratch") {
				t.Errorf("%s is left in %s", e.Name(), d)
			}
		}
	}
	return list
}

func adopt(ctx context.Context, p *config.Primary, source *os.File) error {
	return Adopt(ctx, Options{Config: p, Source: source, BatchInterval: p.BatchInterval})
}

// TestRoundTrip: every kind of metadata comes back from a real seal and a real restore, on each file system that volumes lie on, within 5 s.
// A busy machine may take longer now and then; what the round trip itself waited for it would wait for on all of them.
func TestRoundTrip(t *testing.T) {
	quickest := time.Hour
	for _, fs := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(fs, func(t *testing.T) {
			began := time.Now()
			list := examined(t, loopdisk.New(t, fs, 320<<20, ""), adopt)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v", took)
			} else {
				quickest = min(quickest, took)
			}
			if len(list) != 18 {
				t.Errorf("%d findings", len(list))
			}
			for _, f := range list {
				if f.Level != doctor.OK {
					t.Errorf("%s: %s (%s)", f.Level, f.Says, f.Fix)
				}
			}
		})
	}
	if quickest > 5*time.Second {
		t.Errorf("the quickest took %v", quickest)
	}
}

// TestRoundTripSees: what is not as it was sealed is found, by its kind, and nothing else is.
func TestRoundTripSees(t *testing.T) {
	source := t.TempDir()
	for kind, spoil := range map[string]func(dir string) error{
		"content": func(dir string) error { return os.WriteFile(dir+"/4096", make([]byte, 4096), 0) },
		"modes":   func(dir string) error { return unix.Chmod(dir+"/file 4755", 0o755) },
		"owners and groups": func(dir string) error {
			return os.Lchown(dir+"/link", 7, 7)
		},
		"modification times":    func(dir string) error { return os.Chtimes(dir+"/1", time.Time{}, time.Unix(0, 2)) },
		"user.* attributes":     func(dir string) error { return unix.Removexattr(dir+"/dir", "user.slipway-doctor") },
		"trusted.* attributes":  func(dir string) error { return unix.Setxattr(dir+"/file", "trusted.slipway-doctor", nil, 0) },
		"security.* attributes": func(dir string) error { return unix.Setxattr(dir+"/file", "security.slipway-doctor", nil, 0) },
		"file capabilities":     func(dir string) error { return unix.Removexattr(dir+"/program", "security.capability") },
		"ACLs":                  func(dir string) error { return unix.Removexattr(dir+"/file", "system.posix_acl_access") },
		"default ACLs":          func(dir string) error { return unix.Removexattr(dir+"/heir", "system.posix_acl_default") },
		"symbolic links":        func(dir string) error { return os.Remove(dir + "/odd") },
		"hard links": func(dir string) error {
			if err := os.Remove(dir + "/file"); err != nil {
				return err
			}
			return os.WriteFile(dir+"/file", []byte("x"), 0o600)
		},
		"FIFOs and sockets":     func(dir string) error { return unix.Chmod(dir+"/socket", 0o644) },
		"devices":               func(dir string) error { return os.Remove(dir + "/block") },
		"odd names":             func(dir string) error { return os.WriteFile(dir+"/\xff", nil, 0o600) },
		"empty directories":     func(dir string) error { return os.Remove(dir + "/a/b/c") },
		"holes of sparse files": func(dir string) error { return os.Truncate(dir+"/sparse", 1) },
	} {
		t.Run(kind, func(t *testing.T) {
			list := examined(t, source, func(ctx context.Context, p *config.Primary, made *os.File) error {
				return errors.Join(adopt(ctx, p, made), spoil(filepath.Join(made.Name(), kind)))
			})
			var faults []string
			for _, f := range list {
				if f.Level == doctor.Fault {
					faults = append(faults, f.Says)
				}
			}
			if len(faults) != 1 || !strings.HasPrefix(faults[0], kind+": sealed, restored, and not the same: ") {
				t.Errorf("faults: %q", faults)
			}
		})
	}
}
