package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slipway/internal/durable"

	"golang.org/x/sys/unix"
)

// localDir is a store on a local disk. Other accounts may write into it, so below its root nothing is followed: no
// symbolic links, and only regular files are read, whatever lies under a name.
type localDir struct {
	root  string
	limit Limiter
	dirs  dirSet // directories known to be durable in their parents
	tally tally
}

func newLocalDir(root string, opt Options) (*localDir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &localDir{root: root, limit: opt.Limit}
	if st, err := os.Stat(root); !opt.Unseen && err == nil && !st.IsDir() {
		return nil, fmt.Errorf("open store %s: %w: %w", root, ErrNotDir, unix.ENOTDIR)
	}
	return s, nil
}

func (s *localDir) Publish(ctx context.Context, name string, data []byte) error {
	err := s.write(ctx, "publish", name, data, (*durable.Dir).CreateIdempotent)
	if err == nil {
		s.tally.add(len(data))
	}
	return err
}

func (s *localDir) CreateExclusive(ctx context.Context, name string, data []byte) error {
	return s.write(ctx, "create", name, data, (*durable.Dir).CreateExclusive)
}

func (s *localDir) Replace(ctx context.Context, name string, data []byte) error {
	return s.write(ctx, "replace", name, data, (*durable.Dir).Overwrite)
}

// write runs one of durable's verbs in name's directory.
func (s *localDir) write(ctx context.Context, verb, name string, data []byte,
	do func(d *durable.Dir, name string, data []byte, perm os.FileMode) error) error {
	err := s.begin(ctx, name)
	if err == nil {
		err = pace(ctx, s.limit, len(data))
	}
	if err == nil {
		err = s.in(filepath.Dir(name), true, func(d *durable.Dir) error {
			perm, err := filePerm(d)
			if err != nil {
				return err
			}
			return do(d, filepath.Base(name), data, perm)
		})
	}
	return s.explain(verb, name, err)
}

func (s *localDir) Remove(ctx context.Context, name string) error {
	err := s.begin(ctx, name)
	if err == nil {
		err = s.in(filepath.Dir(name), false, func(d *durable.Dir) error { return d.Remove(filepath.Base(name)) })
	}
	if isAbsent(err) {
		return nil // the directory is absent, and the object with it
	}
	return s.explain("remove", name, err)
}

func (s *localDir) Read(ctx context.Context, name string, max int64) ([]byte, error) {
	return s.readInto(ctx, name, max, nil)
}

func (s *localDir) readInto(ctx context.Context, name string, max int64, buf []byte) ([]byte, error) {
	err := s.begin(ctx, name)
	if err != nil {
		return nil, s.explain("read", name, err)
	}
	f, err := s.open(name, unix.O_RDONLY|unix.O_NONBLOCK) // a fifo must not block
	if err != nil {
		return nil, s.explain("read", name, err)
	}
	data, err := readRegular(f, max, buf)
	return data, s.explain("read", name, errors.Join(err, f.Close()))
}

// regularSize returns the size of a file, which is to be a regular one and no larger than max.
func regularSize(f *os.File, max int64) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, errNotRegular
	}
	if st.Size() > max {
		return 0, fmt.Errorf("%w: %d bytes, at most %d are expected", ErrTooLarge, st.Size(), max)
	}
	return st.Size(), nil
}

// readRegular reads a whole file, into buf if it fits.
func readRegular(f *os.File, max int64, buf []byte) ([]byte, error) {
	size, err := regularSize(f, max)
	if err != nil {
		return nil, err
	}
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	data := buf[:size]
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return data, nil
}

func (s *localDir) Stat(ctx context.Context, name string) (Info, error) {
	err := s.begin(ctx, name)
	if err != nil {
		return Info{}, s.explain("stat", name, err)
	}
	var info Info
	err = s.in(filepath.Dir(name), false, func(d *durable.Dir) error {
		info, err = statAt(d.File(), filepath.Base(name))
		return err
	})
	info.Name = name
	return info, s.explain("stat", name, err)
}

func (s *localDir) List(ctx context.Context, dir string) ([]Info, error) {
	if err := errors.Join(ctx.Err(), checkDir(dir)); err != nil {
		return nil, s.explain("list", dir, err)
	}
	var found []Info
	err := s.in(filepath.Clean(dir), false, func(d *durable.Dir) error {
		names, err := d.File().Readdirnames(-1)
		for _, name := range names {
			info, statErr := statAt(d.File(), name)
			if statErr == nil { // gone meanwhile, or nothing of ours
				found = append(found, info)
			}
		}
		return err
	})
	if isAbsent(err) {
		return nil, nil
	}
	return accept(found), s.explain("list", dir, err)
}

func statAt(dir *os.File, name string) (Info, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Info{}, err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return Info{}, errNotRegular
	}
	return Info{Name: name, Size: st.Size, ModTime: time.Unix(st.Mtim.Unix()), Dir: kind == unix.S_IFDIR}, nil
}

func (s *localDir) Close() error { return nil }

func (s *localDir) begin(ctx context.Context, name string) error {
	return errors.Join(ctx.Err(), CheckName(name))
}

// in opens a directory of the store, makes it first if told to, and closes it after f.
func (s *localDir) in(dir string, make bool, f func(d *durable.Dir) error) error {
	open := s.openDir
	if make {
		open = s.openOrMake
	}
	d, err := open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f(d), d.Close())
}

func (s *localDir) openOrMake(dir string) (*durable.Dir, error) {
	if s.dirs.has(dir) {
		d, err := s.openDir(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
		s.dirs.forget() // somebody removed it, and who knows what else
	}
	if err := durable.MkdirAll(s.root, 0o750); err != nil {
		return nil, rootError(err)
	}
	return s.enter(dir)
}

// enter goes down from the root, making what lacks and fsyncing what is there into its parent: whoever made it may have
// died before that.
func (s *localDir) enter(dir string) (*durable.Dir, error) {
	d, err := s.openDir(".")
	if err != nil || dir == "." {
		return d, err
	}
	way := ""
	for element := range strings.SplitSeq(dir, "/") {
		way = filepath.Join(way, element)
		if !s.dirs.has(way) {
			if err := mkdirIn(d, element); err != nil {
				return nil, errors.Join(err, d.Close())
			}
			s.dirs.add(way)
		}
		next, err := s.openDir(way)
		if err := errors.Join(err, d.Close()); err != nil {
			return nil, err
		}
		d = next
	}
	return d, nil
}

func mkdirIn(d *durable.Dir, name string) error {
	perm, err := dirPerm(d)
	if err != nil {
		return err
	}
	return d.Mkdir(name, perm)
}

// Where the group of a directory may write (an account's data directory, setgid to the daemon's group), it may write what
// is made below as well; elsewhere it may read.
func dirPerm(d *durable.Dir) (os.FileMode, error) {
	st, err := d.File().Stat()
	if err != nil {
		return 0, err
	}
	return 0o750 | st.Mode().Perm()&0o020, nil
}

func filePerm(d *durable.Dir) (os.FileMode, error) {
	perm, err := dirPerm(d)
	return perm &^ 0o111, err
}

func (s *localDir) openDir(dir string) (*durable.Dir, error) {
	f, err := s.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return durable.NewDir(f), nil
}

// open opens what lies below the root under a path without symbolic links. The root itself may be reached through some.
func (s *localDir) open(name string, flags uint64) (*os.File, error) {
	root, err := os.OpenFile(s.root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, rootError(err)
	}
	fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	path := filepath.Join(s.root, name)
	if err := errors.Join(err, root.Close()); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// rootError tells a store that is no directory from an object that is not there.
func rootError(err error) error {
	if errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%w: %w", ErrNotDir, err)
	}
	return err
}

// isAbsent tells that there is nothing under a name: not even its directory.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) && !errors.Is(err, ErrNotDir)
}

func (s *localDir) localPath() (string, bool) { return s.root, true }

func (s *localDir) weak() []string { return nil }

func (s *localDir) powers(context.Context) ([]string, error) { return nil, nil }

func (s *localDir) confirmed() int64 { return s.tally.sum() }

// space asks for the file system that holds the store, or will once it is made.
func (s *localDir) space(context.Context) (free, total uint64, err error) {
	for dir := s.root; ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if errors.Is(err, fs.ErrNotExist) && dir != "/" {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("ask for space at %s: %w", dir, err)
		}
		return st.Bavail * uint64(st.Frsize), st.Blocks * uint64(st.Frsize), nil
	}
}

// explain names what was done to which object and gives the error its class.
func (s *localDir) explain(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrNotDir) { // has its class, and ENOTDIR in it means something else here
		return fmt.Errorf("%s %s in %s: %w", verb, name, s.root, err)
	}
	classes := []struct{ is, class error }{
		{durable.ErrDiffers, ErrDiffers}, {fs.ErrNotExist, ErrNotExist}, {fs.ErrExist, ErrExist},
		{unix.ENOSPC, ErrFull}, {unix.EDQUOT, ErrFull}, {unix.EROFS, ErrReadOnly},
		{unix.ENOTDIR, ErrNotExist}, {unix.ELOOP, errNotRegular}, {unix.ENXIO, errNotRegular},
	}
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return fmt.Errorf("%s %s in %s: %w: %w", verb, name, s.root, c.class, err)
		}
	}
	return fmt.Errorf("%s %s in %s: %w", verb, name, s.root, err)
}
