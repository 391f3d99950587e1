// Package browse shows a volume's history as a read-only file system: one moment, or all of them side by side.
//
// Nothing is kept, so a crash leaves a dead mount that umount(8) takes away, and nothing else. Content is read from the stores as somebody reads it.
package browse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore"
)

// Forever: nothing of the past changes.
const forever = 24 * time.Hour

// History gives moments and their trees.
type History interface {
	// Moments lists what can be shown, oldest first.
	Moments(ctx context.Context) ([]restore.Moment, error)
	// Tree loads the volume as a batch left it.
	Tree(ctx context.Context, seq batch.Seq) (*restore.Tree, error)
}

// Root is what Serve shows.
type Root interface{ fs.InodeEmbedder }

// Serve shows root at dir until ctx ends or somebody unmounts it; ready is called when it is there.
func Serve(ctx context.Context, dir string, root Root, ready func()) error {
	timeout := forever
	opt := &fs.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout, NullPermissions: true,
		MountOptions: fuse.MountOptions{
			FsName: "slipway", Name: "slipway-browse", AllowOther: os.Geteuid() == 0, DirectMount: true,
			DirectMountFlags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV, Options: []string{"default_permissions"},
		},
	}
	server, err := fs.Mount(dir, root, opt)
	if err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	ready()
	stop := context.AfterFunc(ctx, func() {
		if server.Unmount() != nil { // somebody is in it
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	defer stop()
	server.Wait()
	return nil
}

// Moment is the root for one tree.
func Moment(t *restore.Tree, log *slog.Logger) Root {
	return &object{tree: t, row: t.Root(), log: log}
}

// object is a file of a tree. Inode numbers are the volume's file ids, in the upper bits the moment's number among those entered.
type object struct {
	fs.Inode
	tree *restore.Tree
	row  restore.Row
	base uint64
	log  *slog.Logger
}

var _ = (interface {
	fs.NodeLookuper
	fs.NodeReaddirer
	fs.NodeGetattrer
	fs.NodeReadlinker
	fs.NodeOpener
	fs.NodeReader
	fs.NodeGetxattrer
	fs.NodeListxattrer
})((*object)(nil))

func (o *object) stable(r restore.Row) fs.StableAttr {
	return fs.StableAttr{Mode: r.Mode & unix.S_IFMT, Ino: o.base | uint64(r.ID)}
}

func (o *object) fill(r restore.Row, out *fuse.Attr) {
	out.Ino = o.base | uint64(r.ID)
	out.Mode, out.Nlink, out.Owner = r.Mode, uint32(r.Links), fuse.Owner{Uid: r.UID, Gid: r.GID}
	out.Rdev = uint32(r.Rdev)
	out.Size, out.Blocks, out.Blksize = uint64(r.Size), uint64(r.Size+511)/512, 4096
	if r.Mode&unix.S_IFMT == unix.S_IFLNK {
		out.Size = uint64(len(r.Target))
	}
	out.SetTimes(&r.Mtime, &r.Mtime, &r.Mtime)
}

// Lookup implements fs.NodeLookuper.
func (o *object) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return o.child(ctx, &o.Inode, name, out)
}

// child makes the inode of an entry below parent, which shows this directory.
func (o *object) child(ctx context.Context, parent *fs.Inode, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	r, ok := o.tree.Child(o.row.ID, name)
	if !ok {
		return nil, syscall.ENOENT
	}
	o.fill(r, &out.Attr)
	return parent.NewInode(ctx, &object{tree: o.tree, row: r, base: o.base, log: o.log}, o.stable(r)), 0
}

// Readdir implements fs.NodeReaddirer.
func (o *object) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	for _, r := range o.tree.Children(o.row.ID) {
		if r.Err == nil {
			list = append(list, fuse.DirEntry{Name: r.Path, Mode: r.Mode & unix.S_IFMT, Ino: o.base | uint64(r.ID)})
		}
	}
	return fs.NewListDirStream(list), 0
}

// Getattr implements fs.NodeGetattrer.
func (o *object) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	o.fill(o.row, &out.Attr)
	return 0
}

// Readlink implements fs.NodeReadlinker.
func (o *object) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(o.row.Target), 0 }

// Open implements fs.NodeOpener.
func (o *object) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	if o.row.State == "pending" {
		o.log.Error("open a file whose content was not sealed at that moment", "file", o.Path(nil), "batch", o.tree.Seq)
		return nil, 0, syscall.EIO // it would be read as empty
	}
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Read implements fs.NodeReader. What no store has sound is EIO, and said in the log.
func (o *object) Read(ctx context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := o.tree.ReadAt(ctx, o.row.ID, dest, off)
	switch {
	case errors.Is(err, io.EOF):
	case errors.Is(err, context.Canceled):
		return nil, syscall.EINTR
	case err != nil:
		o.log.Error("read", "file", o.Path(nil), "batch", o.tree.Seq, "error", err)
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// shown leaves out what a kernel would act on: ACLs and capabilities of another machine's users.
func (o *object) shown(name string) bool {
	return !strings.HasPrefix(name, "system.") && !strings.HasPrefix(name, "security.")
}

// Getxattr implements fs.NodeGetxattrer.
func (o *object) Getxattr(_ context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	value, ok := o.tree.Xattrs(o.row.ID)[attr]
	if !ok || !o.shown(attr) {
		return 0, syscall.ENODATA
	}
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}

// Listxattr implements fs.NodeListxattrer.
func (o *object) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	var names []byte
	for name := range o.tree.Xattrs(o.row.ID) {
		if o.shown(name) {
			names = append(append(names, name...), 0)
		}
	}
	if len(dest) < len(names) {
		return uint32(len(names)), syscall.ERANGE
	}
	return uint32(copy(dest, names)), 0
}

// moments is the root with a directory for each batch, called by its number, "latest", and at/ with their times.
type moments struct {
	fs.Inode
	history History
	log     *slog.Logger
	list    []restore.Moment

	mu     sync.Mutex
	inside map[batch.Seq]*restore.Tree // those entered; they stay in memory
}

// Moments is the root for the whole history, as it is now.
func Moments(ctx context.Context, h History, log *slog.Logger) (Root, error) {
	list, err := h.Moments(ctx)
	if err != nil {
		return nil, err
	}
	return &moments{history: h, log: log, list: list, inside: make(map[batch.Seq]*restore.Tree)}, nil
}

// OnAdd implements fs.NodeOnAdder: the names that lead to the moments.
func (m *moments) OnAdd(ctx context.Context) {
	at := m.NewPersistentInode(ctx, new(fs.Inode), fs.StableAttr{Mode: unix.S_IFDIR})
	for _, x := range m.list {
		link := &fs.MemSymlink{Data: []byte("../" + strconv.FormatUint(uint64(x.Seq), 10))}
		at.AddChild(x.SealedAt.UTC().Format(time.RFC3339Nano), at.NewPersistentInode(ctx, link, fs.StableAttr{Mode: unix.S_IFLNK}), true)
	}
	m.AddChild("at", at, false)
	if n := len(m.list); n > 0 {
		link := &fs.MemSymlink{Data: []byte(strconv.FormatUint(uint64(m.list[n-1].Seq), 10))}
		m.AddChild("latest", m.NewPersistentInode(ctx, link, fs.StableAttr{Mode: unix.S_IFLNK}), false)
	}
}

// Lookup implements fs.NodeLookuper.
func (m *moments) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if child := m.GetChild(name); child != nil {
		out.Mode = child.Mode() | 0o777
		return child, 0
	}
	for i, x := range m.list {
		if strconv.FormatUint(uint64(x.Seq), 10) != name {
			continue
		}
		e := &entrance{moments: m, moment: x, base: uint64(i+1) << 48}
		e.fill(&out.Attr)
		return m.NewInode(ctx, e, fs.StableAttr{Mode: unix.S_IFDIR, Ino: e.base | uint64(batch.Root)}), 0
	}
	return nil, syscall.ENOENT
}

// Readdir implements fs.NodeReaddirer.
func (m *moments) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	list := []fuse.DirEntry{{Name: "at", Mode: unix.S_IFDIR}, {Name: "latest", Mode: unix.S_IFLNK}}
	for _, x := range m.list {
		list = append(list, fuse.DirEntry{Name: strconv.FormatUint(uint64(x.Seq), 10), Mode: unix.S_IFDIR})
	}
	return fs.NewListDirStream(list), 0
}

// entrance is a moment's root, which does not load its tree before somebody looks inside: to list the moments must cost nothing.
type entrance struct {
	fs.Inode
	moments *moments
	moment  restore.Moment
	base    uint64
}

var _ = (interface {
	fs.NodeLookuper
	fs.NodeReaddirer
	fs.NodeGetattrer
})((*entrance)(nil))

func (e *entrance) fill(out *fuse.Attr) {
	out.Ino = e.base | uint64(batch.Root)
	out.Mode, out.Nlink = unix.S_IFDIR|0o755, 1
	out.SetTimes(&e.moment.SealedAt, &e.moment.SealedAt, &e.moment.SealedAt)
}

// enter returns the moment's root.
func (e *entrance) enter(ctx context.Context) (*object, syscall.Errno) {
	m := e.moments
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.inside[e.moment.Seq]
	if t == nil {
		var err error
		if t, err = m.history.Tree(ctx, e.moment.Seq); err != nil {
			m.log.Error("enter a moment", "batch", e.moment.Seq, "error", err)
			return nil, syscall.EIO
		}
		m.inside[e.moment.Seq] = t
	}
	return &object{tree: t, row: t.Root(), base: e.base, log: m.log}, 0
}

// Getattr implements fs.NodeGetattrer.
func (e *entrance) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	e.fill(&out.Attr)
	return 0
}

// Lookup implements fs.NodeLookuper.
func (e *entrance) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	o, errno := e.enter(ctx)
	if errno != 0 {
		return nil, errno
	}
	return o.child(ctx, &e.Inode, name, out)
}

// Readdir implements fs.NodeReaddirer.
func (e *entrance) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	o, errno := e.enter(ctx)
	if errno != 0 {
		return nil, errno
	}
	return o.Readdir(ctx)
}
