// Package warm keeps a directory equal to a volume's tree at its newest complete batch, ready to be mounted. Each step costs
// what changed since the last one, not the size of the tree: what moved is moved, however large, and only new content is read
// from the stores.
//
// A step writes all new objects into a hidden directory of Dir first (stage.go). Then the state notes the new tree and what is
// left to do, which is commit point 9 of docs/guarantees.md; from there on the step needs no store and is only ever finished,
// never taken back: what goes away or moves is detached, what comes or moved is attached, attributes and times come last
// (apply.go). Everything is done through descriptors of directories and single names, never through a symbolic link.
//
// What is true after a crash: before the commit Dir is as it was, but for the hidden directory; after it Open finishes the
// step from what the state says. Dir and its file system are synced before the state says that a step is done. What lies in
// Dir and is not the tree's is moved aside when it is met, never lost.
package warm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
	"slipway/internal/journal"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/object"
)

// Classes of errors.
var (
	// ErrNotOwn: the directory holds something, and this state did not put it there.
	ErrNotOwn = errors.New("directory is not empty and not this warm tree's")
	// ErrVolume: the stores hold another volume than the directory.
	ErrVolume = errors.New("directory holds another volume")
	// ErrState: the note of a step in progress cannot be read.
	ErrState = errors.New("note of the step in progress is damaged")
)

// Options of a warm tree. Dir and State have to be there.
type Options struct {
	Dir    string                                      // on a local file system; only this package writes below it
	State  string                                      // a directory of its own
	Source func(context.Context) (chain.Source, error) // asked at each step
	Log    *slog.Logger                                // nil: nothing is said
}

// Moment is a batch of the volume; zero: none.
type Moment struct {
	Volume   batch.VolumeID
	Epoch    batch.Epoch
	Seq      batch.Seq
	Digest   batch.Digest
	SealedAt time.Time
}

// Tree is the directory and its state. Its methods are called by one goroutine at a time.
type Tree struct {
	opt  Options
	lock *os.File
	cat  *catalog.Catalog
	root *os.File

	fault func(op string) error // tests end a step where they want
}

// Open opens the directory and its state, which is made if it is not there, and finishes a step that was cut off. It needs no
// store.
func Open(opt Options) (*Tree, error) { return open(opt, nil) }

func open(opt Options, fault func(string) error) (*Tree, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tree{opt: opt, fault: fault}
	err := t.openAll()
	if err == nil {
		err = t.Finish()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open warm tree %s: %w", opt.Dir, err), t.Close())
	}
	return t, nil
}

func (t *Tree) openAll() (err error) {
	if t.lock, err = durable.Lock(filepath.Join(t.opt.State, "lock")); err != nil {
		return err
	}
	if t.cat, err = catalog.Open(filepath.Join(t.opt.State, "tree.db")); err != nil {
		return err
	}
	fd, err := unix.Open(t.opt.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t.root = os.NewFile(uintptr(fd), t.opt.Dir)
	return t.own()
}

// own checks that the directory is the state's, or makes it so if it is empty.
func (t *Tree) own() error {
	now, err := look(t.rootFd(), "")
	if err != nil {
		return err
	}
	return t.cat.Update(func(tx *catalog.Tx) error {
		root, ok, err := tx.Inode(batch.Root)
		switch {
		case err != nil:
			return err
		case ok && root.Ident == now.ident():
			return nil
		case ok:
			return ErrNotOwn
		}
		names, err := readNames(t.rootFd())
		if err != nil {
			return err
		}
		for _, n := range names {
			if n != lostFound {
				return fmt.Errorf("%w: it holds %q", ErrNotOwn, n)
			}
		}
		root.Inode = batch.Inode{ID: batch.Root, Mode: now.Mode, UID: now.UID, GID: now.GID, Mtime: now.Mtime}
		root.Ident = now.ident()
		return tx.PutInode(&root)
	})
}

// lostFound is made by mkfs in the root of some file systems.
const lostFound = "lost+found"

func (t *Tree) rootFd() int { return int(t.root.Fd()) }

// Close gives up the locks.
func (t *Tree) Close() error {
	var errs []error
	if t.root != nil {
		errs = append(errs, t.root.Close())
	}
	if t.cat != nil {
		errs = append(errs, t.cat.Close())
	}
	if t.lock != nil {
		errs = append(errs, t.lock.Close())
	}
	return errors.Join(errs...)
}

// At returns the moment that the directory is equal to, but for what Lacks names. Not whole: a step towards it was cut off and
// is not finished.
func (t *Tree) At() (at Moment, whole bool, err error) {
	m, err := t.meta()
	return moment(&m), m.HeadTemp == "", err
}

func moment(m *catalog.Meta) Moment {
	return Moment{m.VolumeID, m.Epoch, m.Head, m.HeadDigest, m.SealedAt}
}

func (t *Tree) meta() (m catalog.Meta, err error) {
	err = t.cat.View(func(tx *catalog.Tx) error {
		m, err = tx.Meta()
		return err
	})
	return m, err
}

// Lack is a file of the tree that the directory does not have.
type Lack struct {
	Path string // one of its names
	Why  string // lost: it was not there as it was left; else what kept it from being made
}

// Lacks lists the files that could not be made, or were found lost since.
func (t *Tree) Lacks() (list []Lack, err error) {
	err = t.cat.View(func(tx *catalog.Tx) error {
		return tx.EachPending(func(id batch.FileID, p catalog.Pending) error {
			path, err := pathOf(tx, id)
			list = append(list, Lack{path, p.Reason})
			return err
		})
	})
	return list, err
}

// File is an entry of the tree with its file: the record as in the batches, and the object that it is in the directory.
type File struct {
	Path   string // "" is the root
	Parent batch.FileID
	Name   string
	Inode  *batch.Inode
	There  bool          // in the directory; not: its content is not sealed, or it is among the lacks
	Ident  journal.Ident // FS is not set
	Size   int64         // st_size
	Ctime  int64         // as last seen by this package
}

// Each calls fn for the root and every entry of the tree, directories before what is in them.
func (t *Tree) Each(ctx context.Context, fn func(*File) error) error {
	return t.cat.View(func(tx *catalog.Tx) error {
		return each(ctx, tx, &File{}, batch.Root, fn)
	})
}

func each(ctx context.Context, tx *catalog.Tx, at *File, id batch.FileID, fn func(*File) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in, ok, err := tx.Inode(id)
	if err != nil || !ok {
		return errors.Join(err, missing(id, ok))
	}
	at.Inode, at.There, at.Ident, at.Size, at.Ctime = &in.Inode, !in.Ident.IsZero(), in.Ident, in.Size, in.Ctime
	if err := fn(at); err != nil || !isDir(&in.Inode) {
		return err
	}
	return tx.Entries(id, func(name string, child batch.FileID) error {
		next := &File{Path: join(at.Path, name), Parent: id, Name: name}
		return each(ctx, tx, next, child, fn)
	})
}

func missing(id batch.FileID, ok bool) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%w: inode %d is not there", catalog.ErrCorrupt, id)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// pathOf returns one path of a file.
func pathOf(tx *catalog.Tx, id batch.FileID) (path string, err error) {
	for depth := 0; id != batch.Root && depth < maxDepth; depth++ {
		list, err := namesOf(tx, id)
		if err != nil || len(list) == 0 {
			return path, err
		}
		if id = list[0].Parent; path == "" {
			path = list[0].Name
		} else {
			path = list[0].Name + "/" + path
		}
	}
	return path, nil
}

const maxDepth = 1 << 20

// name is a name in a directory.
type name struct {
	Parent batch.FileID
	Name   string
}

func namesOf(tx *catalog.Tx, id batch.FileID) (list []name, err error) {
	err = tx.Names(id, func(parent batch.FileID, n string) error {
		list = append(list, name{parent, n})
		return nil
	})
	return list, err
}

func isDir(in *batch.Inode) bool { return in.Mode&unix.S_IFMT == unix.S_IFDIR }
func isReg(in *batch.Inode) bool { return in.Mode&unix.S_IFMT == unix.S_IFREG }

// sealed tells whether a file can be made at all.
func sealed(in *batch.Inode) bool {
	if !isReg(in) {
		return true
	}
	c, _, _ := object.Content(in)
	return c != nil
}
