// Package capture reads files of the source as they were at one moment, and packs what they hold into shards in the node's own
// store.
//
// How a file's content gets into a batch:
//
//  1. Capturer.Capture(job, packer): a stable read; the chunks have places, some in shards that are still open.
//  2. Packing.FlushAll: every shard is published in the node's own store, or has failed.
//  3. for each capture that is NeedsLists: PackLists, which packs the list of its pieces; then FlushAll once more.
//  4. Packing.TakePublished: the shards that the batch introduces.
//  5. for each capture with Through at most the Serial of the last shard taken: Content goes into the batch. An error there
//     means that one of its shards could not be published: the file stays pending and is captured again. The others wait
//     for the next batch with their pieces as they are.
//
// After a crash anywhere in between nothing names the shards, and the file is pending still.
package capture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/source"
)

// Classes of errors of a capture. The file stays pending in every case; a vanished one is fs.ErrNotExist, another object in
// its place source.ErrMoved.
var (
	ErrBusy     = errors.New("file is open for writing or mapped")
	ErrChanging = errors.New("file changed each time it was read")
)

const (
	// maxTries bounds how often a file that changes while it is read is read again.
	maxTries = 3
	// raceWindow is how old a change must be before an unmoved ctime proves that nothing changed: a clock tick of older
	// kernels, and a page fault or write(2) that has set the time and not stored yet.
	raceWindow = 50 * time.Millisecond
)

// Job asks for the content of one file.
type Job struct {
	ID    batch.FileID
	Path  string // below the source, as it is known now
	Ident journal.Ident
	Force bool // the file has writers: take it all the same, as not clean if need be
}

// Captured is what a capture brought. It may be handed on to another goroutine, not used by two.
type Captured struct {
	ID     batch.FileID
	Ident  journal.Ident
	Attr   journal.Attr      // from before the read: a later change is seen against it
	Xattrs map[string][]byte // nil: none
	Size   int64             // of the content; what Attr says, except where an unclean read met an earlier end
	Clean  bool              // one state that the file really had
	Bytes  int64             // read
	Took   time.Duration
	Err    error

	pieces []*placed
	lists  []*placed // of a file with too many pieces, once PackLists was there
	holes  []batch.Hole
}

// Capturer reads files of one source. Safe for concurrent use.
type Capturer struct {
	root *os.File
	keys chunk.Keys
}

// New makes a capturer of the files below root.
func New(root *os.File, keys chunk.Keys) *Capturer { return &Capturer{root: root, keys: keys} }

// Capture reads one file as a whole that it was at one moment, and packs it. The result's Err says why it could not.
func (c *Capturer) Capture(ctx context.Context, job Job, p *Packer) Captured {
	began := time.Now()
	got := Captured{ID: job.ID, Ident: job.Ident}
	if err := c.read(ctx, job, p, &got); err != nil {
		got.Err = fmt.Errorf("capture %q: %w", job.Path, err)
	}
	got.Took = time.Since(began)
	return got
}

func (c *Capturer) read(ctx context.Context, job Job, p *Packer, got *Captured) error {
	f, err := source.Open(c.root, job.Path, unix.O_RDONLY, job.Ident)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	for range maxTries {
		stable, err := c.attempt(ctx, f, job.Force, p, got)
		if err != nil {
			return err
		}
		if stable {
			return nil
		}
	}
	if !job.Force {
		return ErrChanging
	}
	return nil // as read last, not clean
}

// attempt reads the file once and tells whether it held still. The order is what makes an unmoved ctime a proof:
//
//	probe      no writer, or
//	statx      the time before,
//	flush      every dirty page made clean, so that the next store through a mapping moves the time (only with writers),
//	lseek      waits for a write(2) under way, which has set its time before it stores (source.Holes),
//	read
//	statx      the same time, size, mtime: no store since the flush, no write since the first statx
//	probe      without writers at first: none came meanwhile, so no mapping that the missing flush would have caught
func (c *Capturer) attempt(ctx context.Context, f *os.File, force bool, p *Packer, got *Captured) (stable bool, err error) {
	quiet, err := findWriter(f, force)
	if err != nil {
		return false, err
	}
	before, racy, err := stateBefore(ctx, f)
	if err != nil {
		return false, err
	}
	if !quiet {
		if err := cleanPages(f); err != nil {
			return false, err
		}
	}
	if err := c.take(ctx, f, before, p, got); err != nil {
		return false, err
	}
	after, err := statFile(f)
	if err != nil {
		return false, err
	}
	still, err := findWriter(f, force)
	if err != nil {
		return false, err
	}
	if !quiet && !writesBack(f) {
		return true, nil // no more can be told by reading again
	}
	got.Clean = !racy && quiet == still && got.Size == before.Size && sameState(before, after)
	return got.Clean, nil
}

// stateBefore returns the attributes once a change that happened just now is past; racy when another one came meanwhile.
func stateBefore(ctx context.Context, f *os.File) (attr journal.Attr, racy bool, err error) {
	if attr, err = statFile(f); err != nil || !recent(attr.Ctime) {
		return attr, false, err
	}
	t := time.NewTimer(raceWindow - time.Since(time.Unix(0, attr.Ctime)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return attr, true, ctx.Err()
	}
	attr, err = statFile(f)
	return attr, recent(attr.Ctime), err
}

// findWriter asks for hidden writers: without force one is ErrBusy. Where the file system has no leases nobody can tell, and
// what the mount knows has to do.
func findWriter(f *os.File, force bool) (quiet bool, err error) {
	quiet, err = source.Quiet(f)
	switch {
	case errors.Is(err, source.ErrNoLease):
		return !force, nil
	case err == nil && !quiet && !force:
		return false, ErrBusy
	}
	return quiet, err
}

// take reads attributes and content as they are now into got.
func (c *Capturer) take(ctx context.Context, f *os.File, attr journal.Attr, p *Packer, got *Captured) error {
	holes, err := source.Holes(f, attr.Size)
	if err != nil {
		return err
	}
	xattrs, err := source.Xattrs(f)
	if err != nil {
		return err
	}
	r := newDataReader(f, attr.Size, holes)
	pieces, err := c.pack(ctx, r, p)
	if err != nil {
		return err
	}
	got.Attr, got.Xattrs = attr, xattrs
	got.pieces, got.lists = pieces, nil
	got.Bytes = r.bytes
	got.Size, got.holes = r.extent()
	return nil
}

// statFile returns the attributes of an open regular file that still has a name.
func statFile(f *os.File) (journal.Attr, error) {
	_, attr, err := source.Stat(int(f.Fd()), "")
	if err != nil {
		return attr, err
	}
	if attr.Mode&unix.S_IFMT != unix.S_IFREG {
		return attr, fmt.Errorf("not a regular file: %w", source.ErrMoved)
	}
	if attr.Nlink == 0 {
		return attr, fmt.Errorf("removed while it was read: %w", fs.ErrNotExist)
	}
	return attr, nil
}

func sameState(a, b journal.Attr) bool {
	return a.Ctime == b.Ctime && a.Mtime == b.Mtime && a.Size == b.Size
}

func recent(ctime int64) bool {
	age := time.Since(time.Unix(0, ctime))
	return age >= 0 && age < raceWindow
}

// cleanPages writes the file's dirty pages back, which write-protects them in every mapping. Twice, because btrfs only begins
// the work of compressing extents in the first round; nothing here is for durability.
func cleanPages(f *os.File) error {
	const whole = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for range 2 {
		if err := unix.SyncFileRange(int(f.Fd()), 0, 0, whole); err != nil {
			return fmt.Errorf("write back before reading: %w", err)
		}
	}
	return nil
}

// writesBack tells whether a store to a clean mapped page is known to move the file's time below. Where nothing is written
// back (tmpfs, DAX) pages are never clean, and of others nobody has looked: a file with writers is never clean there.
func writesBack(f *os.File) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
	default:
		return false
	}
	var stx unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, 0, &stx); err != nil {
		return false
	}
	return stx.Attributes&unix.STATX_ATTR_DAX == 0
}
