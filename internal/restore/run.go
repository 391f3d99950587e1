package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/restore/chain"
	"slipway/internal/restore/content"
	"slipway/internal/restore/object"
	"slipway/internal/store"
)

// workers is how many files are written at once.
const workers = 4

// ErrLocked means that another restore is writing into the same target.
var ErrLocked = errors.New("another restore is writing there")

// run is one restore into one target.
type run struct {
	t    *Tree
	opt  Options
	plan *plan
	dirs *handles
	euid int
	make *object.Maker
	// An earlier run's files may have their size and times but not their bytes: the machine went down before its final sync.
	untrusted bool

	mu      sync.Mutex
	result  Result
	done    int64
	skipped map[string]*skip // attributes that could not be set, by kind
}

// skip is a kind of attribute that this process may not set, told once.
type skip struct {
	files int
	first string
	err   error
}

// Restore writes the tree below the target and never leaves it. With an error it stopped; what is there is whole, and the
// same restore started again finishes it. Without one, everything but what the result lists is there and durable.
func (t *Tree) Restore(ctx context.Context, opt Options) (*Result, error) {
	p, err := t.plan(opt.Paths)
	if err != nil {
		return nil, err
	}
	r := &run{t: t, opt: opt, plan: p, euid: os.Geteuid(), skipped: make(map[string]*skip)}
	r.make = &object.Maker{Content: t.content, NoSUID: opt.NoSUID, Euid: r.euid, Skip: r.skip}
	r.result.Failed = p.failed
	root, err := r.openTarget()
	if err != nil {
		return nil, fmt.Errorf("restore into %s: %w", opt.Target, err)
	}
	if root != nil {
		defer func() { _ = root.Close() }() // synced before
		r.dirs = newHandles(int(root.Fd()))
		defer r.dirs.closeAll()
	}
	if err := r.all(ctx, root); err != nil {
		return r.finished(), fmt.Errorf("restore into %s: %w", opt.Target, err)
	}
	return r.finished(), nil
}

// openTarget opens the target, which is made if it is not there. nil in a dry run without it.
func (r *run) openTarget() (*os.File, error) {
	if r.opt.Target == "" {
		return nil, ErrPath
	}
	top := r.plan.dirs[0]
	st, err := os.Stat(r.opt.Target)
	switch {
	case err == nil && !st.IsDir():
		return nil, unix.ENOTDIR
	case err == nil:
		top.existed = true
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	case r.opt.DryRun:
		top.state = dirAbsent
		return nil, nil
	default:
		if err := os.MkdirAll(filepath.Dir(r.opt.Target), 0o755); err != nil {
			return nil, err
		}
		if err := os.Mkdir(r.opt.Target, 0o700); err != nil {
			return nil, err
		}
	}
	root, err := os.Open(r.opt.Target)
	if err != nil || r.opt.DryRun {
		return root, err
	}
	if err := unix.Flock(int(root.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// all is the restore from the first directory to the final sync.
func (r *run) all(ctx context.Context, root *os.File) error {
	r.progress(0)
	if r.opt.DryRun {
		return r.dry(ctx)
	}
	if err := r.begin(int(root.Fd())); err != nil {
		return err
	}
	if err := r.makeDirs(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for group := range r.plan.groups() {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			for _, f := range group {
				if err := r.file(gctx, f); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.end(root)
}

// end gives the directories their attributes, the deepest first, and makes everything durable. The marker goes before the
// target's own times are set, because its removal would move them.
func (r *run) end(root *os.File) error {
	dirs := slices.Clone(r.plan.dirs)
	slices.Reverse(dirs)
	for _, d := range dirs[:len(dirs)-1] {
		r.finishDir(d)
	}
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	// Died here: everything is durable, and the next run finds it equal.
	if err := unix.Unlinkat(int(root.Fd()), markerName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", markerName, err)
	}
	r.finishDir(dirs[len(dirs)-1])
	if err := root.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// markerName is a file in the target's root while a restore runs.
const markerName = ".slipway-restore-run"

// begin leaves the marker, and reads the one that an interrupted run left. Where the volume itself has a file of that name,
// the restore goes without.
func (r *run) begin(root int) error {
	if _, taken := r.t.step(r.plan.dirs[0].inode.ID, markerName); taken {
		return nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	fd, err := unix.Openat(root, markerName, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", markerName, err)
	}
	f := os.NewFile(uintptr(fd), markerName)
	defer func() { _ = f.Close() }() // synced below
	old, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return fmt.Errorf("read %s: %w", markerName, err)
	}
	r.untrusted = len(old) > 0 && string(old) != string(boot)
	if string(old) == string(boot) || r.untrusted {
		return nil // an untrusted marker stays as it is until a run has ended well
	}
	if _, err := f.WriteAt(boot, 0); err != nil {
		return fmt.Errorf("write %s: %w", markerName, err)
	}
	if err := errors.Join(f.Sync(), unix.Fsync(root)); err != nil {
		return fmt.Errorf("sync %s: %w", markerName, err)
	}
	return nil
}

// Stops tells whether an error ends the whole restore: no place, no store, or the caller's wish.
func Stops(err error) bool {
	list := []error{context.Canceled, context.DeadlineExceeded, store.ErrTemporary, chain.ErrIdentity}
	var read *content.Error
	if !errors.As(err, &read) {
		list = append(list, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO)
	}
	return slices.ContainsFunc(list, func(e error) bool { return errors.Is(err, e) })
}

// fail notes a failure, or returns the error if it ends the restore.
func (r *run) fail(path string, err error) error {
	if Stops(err) {
		return fmt.Errorf("%q: %w", path, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Failed = append(r.result.Failed, Failure{path, err})
	return nil
}

// skip notes an attribute that this process may not set.
func (r *run) skip(kind, path string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.skipped[kind]
	if s == nil {
		s = &skip{first: path, err: err}
		r.skipped[kind] = s
	}
	s.files++
}

func (r *run) note(fn func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(&r.result)
}

func (r *run) progress(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += n
	if r.opt.Progress != nil {
		r.opt.Progress(r.done, r.plan.total)
	}
}

// finished returns the result, sorted.
func (r *run) finished() *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	for kind, s := range r.skipped {
		err := fmt.Errorf("%s of %d files could not be restored, first of %q: %w", kind, s.files, s.first, s.err)
		r.result.Failed = append(r.result.Failed, Failure{Err: err})
	}
	clear(r.skipped)
	slices.SortFunc(r.result.Failed, func(a, b Failure) int { return comparePaths(a.Path, b.Path) })
	for _, list := range [][]string{r.result.Kept, r.result.Earlier, r.result.Unclean} {
		slices.SortFunc(list, comparePaths)
	}
	res := r.result
	return &res
}

func comparePaths(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}
