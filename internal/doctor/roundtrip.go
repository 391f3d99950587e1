package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/access"
	"slipway/internal/compare"
	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/initialise"
	"slipway/internal/restore"
	"slipway/internal/state"
)

// Roles are what the roles do, of which this package knows nothing: who calls Run hands it in.
type Roles struct {
	Seal  Seal  // nil: there is no round trip
	Mount Mount // nil: no mount is tried
}

// Seal seals a directory as it stands into the own store of a volume.
type Seal func(ctx context.Context, p *config.Primary, source *os.File) error

const (
	scratchName      = ".slipway-doctor-scratch"
	roundTripTimeout = 30 * time.Second
)

// trip is a round trip: a tree is made on the source's file system, sealed into a volume of its own, restored beside it and compared.
type trip struct {
	*report
	work   string // in the state directory: keys, catalog and store of the throw-away volume
	tree   string // what is made, and what is restored
	where  string // whose file system that is, in words
	failed map[string]error
	kinds  []kind // that this host has
}

// roundTrip tries every kind of metadata. It takes away what it has made, and what a run before it that was killed has left.
func roundTrip(ctx context.Context, r *report, p *config.Primary, roles Roles) {
	lock, err := durable.Lock(filepath.Join(p.State, "doctor.lock"))
	if err != nil {
		fix := "see the state directory; `slipway init` makes it"
		if errors.Is(err, durable.ErrLocked) {
			fix = "wait until the other doctor has ended"
		}
		r.warn("metadata", fix, "not tried: %v", err)
		return
	}
	defer func() { _ = lock.Close() }()
	t := &trip{report: r, work: filepath.Join(p.State, scratchName), failed: map[string]error{}}
	t.choose(p)
	ctx, stop := context.WithTimeout(ctx, roundTripTimeout)
	defer stop()
	began := time.Now()
	if err = t.clear(); err == nil {
		err = t.run(ctx, roles)
	}
	if gone := t.clear(); gone != nil {
		r.warn("metadata", "remove it", "what was made for the round trip is still there: %v", gone)
	}
	if err != nil {
		r.fault("metadata", "see the places above; if they are sound, report this with the output of `slipway version`", "the round trip through a seal and a restore ended: %v", err)
		return
	}
	r.ok("metadata", "sealed and restored on the file system of %s in %.1f s", t.where, time.Since(began).Seconds())
}

// choose finds a place on the source's file system where a tree may be made: the state directory, the directory around the source, the source
// itself as long as nobody journals it. Where there is none the state directory's own file system is tried, and said to be.
func (t *trip) choose(p *config.Primary) {
	t.tree, t.where = filepath.Join(t.work, "tree"), "the state directory, which is not the source's"
	around := filepath.Dir(p.Source)
	switch dev := deviceOf(p.Source); {
	case dev == 0:
	case dev == deviceOf(p.State):
		t.where = p.Source
	case dev == deviceOf(around):
		t.tree, t.where = filepath.Join(around, scratchName), p.Source
	case !mounted(p):
		t.tree, t.where = filepath.Join(p.Source, scratchName), p.Source
	}
}

// deviceOf returns the device that a path lies on; 0 if it is not there.
func deviceOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Dev
}

// mounted tells whether the volume is: then what is made in its source would be backed up.
func mounted(p *config.Primary) bool {
	lock, err := durable.Lock(state.Dir(p.State).Lock())
	if err != nil {
		return true
	}
	_ = lock.Close()
	var st unix.Statfs_t
	return unix.Statfs(p.Source, &st) != nil || st.Type == unix.FUSE_SUPER_MAGIC
}

// clear removes everything. A mount that is still there, because its process was killed, goes first: nothing may be removed through it.
func (t *trip) clear() error {
	point := filepath.Join(t.work, "mnt")
	for unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		continue
	}
	return errors.Join(os.RemoveAll(t.tree), os.RemoveAll(t.work))
}

func (t *trip) run(ctx context.Context, roles Roles) error {
	made, restored := filepath.Join(t.tree, "made"), filepath.Join(t.tree, "restored")
	for _, dir := range []string{made, filepath.Join(t.work, "mnt"), filepath.Join(t.work, "cache")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := t.make(made); err != nil {
		return err
	}
	identity := filepath.Join(t.work, "identity")
	c, err := volume(t.work, made, identity)
	if err != nil {
		return fmt.Errorf("make a volume for it: %w", err)
	}
	source, err := os.Open(made)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	if err := roles.Seal(ctx, c.Primary, source); err != nil {
		return err
	}
	if err := t.restore(ctx, c, identity, restored); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, k := range t.kinds {
		t.judge(k, filepath.Join(made, k.name), filepath.Join(restored, k.name))
	}
	if roles.Mount != nil {
		t.tryMount(ctx, roles.Mount, source)
	}
	return nil
}

// make makes what there is of each kind, and says what there is not.
func (t *trip) make(dir string) error {
	for _, k := range kinds {
		at := filepath.Join(dir, k.name)
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		if err := k.make(at); err != nil {
			fix := "another file system: ext4, xfs or btrfs"
			if errors.Is(err, fs.ErrPermission) {
				fix = "run this as root, with the capabilities that the mount wants"
			}
			t.warn("metadata", fix, "%s: cannot be made on the file system of %s, nor restored there: %v", k.name, t.where, err)
			if err := os.RemoveAll(at); err != nil {
				return err
			}
			continue
		}
		t.kinds = append(t.kinds, k)
	}
	return nil
}

// volume makes a volume as an operator would.
func volume(work, source, identity string) (*config.Config, error) {
	path := filepath.Join(work, "volume.yml")
	if _, err := initialise.Init(initialise.Options{
		Volume: "doctor", Node: "doctor", Source: source, Mount: filepath.Join(work, "mnt"), State: filepath.Join(work, "state"), Config: path,
		Identity: identity, Cache: config.Store{Name: "nowhere", URL: filepath.Join(work, "cache")},
	}); err != nil {
		return nil, err
	}
	return config.Load(path)
}

// restore restores from the throw-away volume's store, with its identity file alone.
func (t *trip) restore(ctx context.Context, c *config.Config, identity, target string) error {
	v, err := access.Open(ctx, access.Request{From: []string{c.Primary.Spool.Dir}, Identity: identity})
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	tree, err := restore.Load(ctx, v.Source, restore.At{})
	if err != nil {
		return err
	}
	result, err := tree.Restore(ctx, restore.Options{Target: target})
	if err != nil {
		return err
	}
	for _, f := range result.Failed {
		kind, _, _ := strings.Cut(f.Path, "/")
		t.failed[kind] = errors.Join(t.failed[kind], f.Err)
	}
	return nil
}

// judge compares what was made of a kind with what came back.
func (t *trip) judge(k kind, made, restored string) {
	list, err := compare.Trees(made, restored)
	differences := make([]string, len(list))
	for i, d := range list {
		differences[i] = fmt.Sprintf("%q: %s", d.Path, d.What)
	}
	if err == nil && k.also != nil {
		err = k.also(made, restored)
	}
	if err = errors.Join(err, t.failed[k.name]); err != nil {
		differences = append(differences, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if len(differences) == 0 {
		t.ok("metadata", "%s: sealed, restored, and the same", k.name)
		return
	}
	t.fault("metadata", "do not rely on it in this volume, and report it with the output of `slipway version`", "%s: sealed, restored, and not the same: %s", k.name, strings.Join(differences, "; "))
}
